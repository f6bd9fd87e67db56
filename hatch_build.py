"""Compiles the scan of remembered queries, and what `nested` computes, into the wheel.

Without a C compiler the package is the same and does both by numpy; docs/performance.md says how
much slower. The libraries are plain C without Python's headers: they go with every version of
Python.

    python hatch_build.py

compiles it in place, for a checkout that is not installed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zlib
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # compiled in place, where nothing is packed
    BuildHookInterface = object

LIBRARIES = {"store/_scan.c": "store/_scan.so", "policies/_nested.c": "policies/_nested.so"}
# No contraction: a product that is added without being rounded first gives other bits.
FLAGS = ("-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared")


def compiled(root: Path) -> str:
    """Why not all libraries could be compiled, "" where they were."""
    return next(filter(None, [_compiled(root, *each) for each in LIBRARIES.items()]), "")


def _compiled(root: Path, source: str, library: str) -> str:
    made_here = f"{library}.{os.getpid()}"
    sum_of_source = f"-DSOURCE={zlib.crc32((root / source).read_bytes())}u"
    for compiler in ("cc", "gcc", "clang", *shlex.split(sysconfig.get_config_var("CC") or "")[:1]):
        if shutil.which(compiler) is None:
            continue
        made = subprocess.run(  # noqa: S603 - the compiler of whoever installs
            [compiler, *FLAGS, sum_of_source, source, "-o", made_here, "-lm"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode == 0:  # in one step: another process may be loading the one before
            (root / made_here).replace(root / library)
            return ""
        (root / library).unlink(missing_ok=True)  # one of other source must not be taken for it
        return f"{compiler}: {made.stderr.strip()}"
    (root / library).unlink(missing_ok=True)
    return "there is no C compiler"


class ScanBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Puts the libraries into the wheel, which is then one for this platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Called by hatchling before it packs."""
        if self.target_name != "wheel":
            return
        why = compiled(Path(self.root))
        if why:
            self.app.display_warning(f"not all is compiled, and it will be slower: {why}")
        there = [each for each in LIBRARIES.values() if (Path(self.root) / each).exists()]
        if not there:
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"] += there


if __name__ == "__main__":
    sys.exit(compiled(Path(__file__).parent) or None)
