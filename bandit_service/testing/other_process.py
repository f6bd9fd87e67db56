"""Folds the laws' events in a process of its own, under another hash seed.

One process serves every policy of a test run: it reads one policy per line of JSON and answers
with the hash of the state that it reached.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache, reduce
from typing import Any

import policies
from bandit_service.core import codec
from bandit_service.testing.events import history
from policies import Policy

HASH_SEED = "20417"
_MAIN = f"from {__name__} import main; main()"


def reached(policy: Policy[Any]) -> str:
    """The hash of the state after the same 80 events, whoever asks."""
    return codec.sha256(codec.dump(reduce(policy.learn, history(80, seed=5), policy.init())))


def reached_elsewhere(kind: type[Policy[Any]], parameters: Mapping[str, Any]) -> str:
    """The same, in the other process."""
    line = {"module": kind.__module__, "name": kind.__qualname__, "parameters": dict(parameters)}
    process = _process(policies.directories())
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(line) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"the other process could not fold {kind.__qualname__}")
    return answer.strip()


@cache
def _process(directories: tuple[str, ...]) -> subprocess.Popen[str]:
    path = os.pathsep.join(sys.path)
    command = ["env", f"PYTHONHASHSEED={HASH_SEED}", f"PYTHONPATH={path}", sys.executable]
    process = subprocess.Popen(
        [*command, "-c", _MAIN, *directories],  # `-m` warns: the package has imported this module
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)  # its input ends, and so does it
    return process


def main() -> None:
    """Answer until the input ends."""
    for directory in sys.argv[1:]:
        policies.add_directory(directory)
    for line in sys.stdin:
        asked = json.loads(line)
        kind = getattr(importlib.import_module(asked["module"]), asked["name"])
        sys.stdout.write(reached(kind(**asked["parameters"])) + "\n")
        sys.stdout.flush()
