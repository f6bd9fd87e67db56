"""schemathesis over the OpenAPI document, against a real service."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.effort import is_long
from tests.service.running import Process

# A short time is answered with 504, as it should be; test_limits.py has that. The service has no
# upstream, so that what is to be answered by one of them is a 503.
CONFIG = """
[parameters]
"header.X-Request-Timeout" = "60"

[[operations]]
include-path-regex = "^/v1/(chat/completions|completions|embeddings|messages|responses)$"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
"""
HOOKS = Path(__file__).with_name("unlisted_headers.py")
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
    "unsupported_method",
)  # fmt: skip


@pytest.mark.long
def test_what_the_document_says_is_what_the_service_does(
    process: Process, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    url = asyncio.run(process.url())
    phases = "examples,coverage,fuzzing" if is_long() else "fuzzing"
    effort = ["--max-examples", "300" if is_long() else "4"] + (
        [] if is_long() else ["--seed", "1"]
    )
    config = f'hooks = "{HOOKS}"\n{CONFIG}'
    (tmp_path / "schemathesis.toml").write_text(config, encoding="utf-8")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "run",
            f"{url}/openapi.json",
            "--checks",
            ",".join(CHECKS),
            "--phases",
            phases,
            *effort,
            "--generation-database",
            "none",
            "--suppress-health-check",
            "all",
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    tried = re.search(r"(\d+) generated", done.stdout)
    assert tried is not None, done.stdout + done.stderr
    record_property("tried", f"{tried[1]} passing, {done.returncode} failing")
    assert done.returncode == 0, done.stdout + done.stderr
