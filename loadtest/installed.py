"""What `make dist` built, as a stranger would install it: hashes, size, a start, a second build.

Makes an empty environment outside the tree, installs the wheels of the service and of the model
into it from the directory, everything else from the package index, and prints what it takes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

from loadtest.ports import free_port

LIMIT_MB = 250
_START_S = 120.0
_BUILD = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]


class Wrong(Exception):
    """Something is not as it has to be."""


def main(argv: list[str] | None = None) -> int:
    """Check a directory; 0 where all is well."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.installed", description=__doc__)
    parser.add_argument("dist", type=Path, help="the directory that `make dist` wrote")
    parser.add_argument("--size-only", action="store_true", help="install and measure, no more")
    args = parser.parse_args(argv)
    dist = args.dist.resolve()
    try:
        with tempfile.TemporaryDirectory() as directory:
            if not args.size_only:
                print(f"{check_hashes(dist)} files have the hashes of SHA256SUMS")
            python = installed(dist, Path(directory) / "environment")
            check_size(python)
            if not args.size_only:
                print("the first decision:", decided(python, Path(directory)))
                print(f"a second build has the same bytes: {', '.join(built_again(dist))}")
    except Wrong as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def check_hashes(dist: Path) -> int:
    """How many files have the hash that is written down."""
    lines = (dist / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    for line in lines:
        wanted, name = line.split(maxsplit=1)
        if hashlib.sha256((dist / name).read_bytes()).hexdigest() != wanted:
            raise Wrong(f"{name}: has another hash than SHA256SUMS says")
    return len(lines)


def installed(dist: Path, directory: Path, *more: str) -> Path:
    """The interpreter of an environment with the wheels of the service, the model and `more`."""
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    names = ("bandit_service", "bandit_model*", *more)
    wheels = [str(_one(dist, f"{name}-*.whl")) for name in names]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *wheels],
        check=True,
    )
    return python


def check_size(python: Path) -> None:
    """Print what the environment takes, bytecode included, and the largest packages."""
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    sizes = {path.name: _bytes(path) for path in site.iterdir()}
    total = sum(sizes.values())
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:8]:
        print(f"{size / 1e6:8.1f} MB  {name}")
    print(f"{total / 1e6:8.1f} MB  in all, {len(list(site.glob('*.dist-info')))} packages")
    if total > LIMIT_MB * 1e6:
        raise Wrong(f"more than {LIMIT_MB} MB")


def decided(python: Path, directory: Path) -> str:
    """What the service of this environment answers to a text, without a file or a key."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", directory / "log"
    environ = {"BANDIT_SERVER_PORT": str(port)}
    command = [str(python.parent / "bandit-service"), "serve"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=directory, env=environ, stdout=out, stderr=out)
    try:
        wait_for(f"{url}/readyz", process, log)
        body = json.dumps({"query": "What is 17 * 23?"}).encode()
        with urllib.request.urlopen(f"{url}/v1/decide", body) as answer:  # noqa: S310
            told = json.load(answer)
    finally:
        process.terminate()
        process.wait(30)
    if told.get("fallback"):
        raise Wrong(f"decided without the text: {told['fallback']}")
    if (models := directory / "var" / "models").exists():
        raise Wrong(f"a model was exported into {models}, though its package is installed")
    return f"{told['arm']} with probability {told['propensity']:.3f}"


def built_again(dist: Path) -> list[str]:
    """The wheels that a build of the source distributions makes again, byte for byte."""
    same = []
    sources = sorted(dist.glob("*.tar.gz"))
    with tempfile.TemporaryDirectory() as directory:
        for source in sources:
            unpacked = Path(directory) / source.name
            unpacked.mkdir()
            subprocess.run(["tar", "-xzf", str(source), "-C", str(unpacked)], check=True)
            (tree,) = unpacked.iterdir()
            wheel = _one(dist, f"{source.name.split('-')[0]}-*.whl")
            epoch = str(int((tree / "PKG-INFO").stat().st_mtime))
            subprocess.run(
                [*_BUILD, "--outdir", directory, str(tree)],
                check=True,
                capture_output=True,
                env={"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": epoch},  # noqa: TID251 - the compiler's
            )
            if (Path(directory) / wheel.name).read_bytes() != wheel.read_bytes():
                raise Wrong(f"{wheel.name}: a second build has other bytes")
            same.append(wheel.name)
    return same


def _one(dist: Path, pattern: str) -> Path:
    found = list(dist.glob(pattern))
    if len(found) != 1:
        raise Wrong(f"{dist}: {len(found)} files {pattern}, there must be one; run `make dist`")
    return found[0]


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers; Wrong where it ended, or takes too long."""
    end = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(url).close()  # noqa: S310
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise Wrong(f"the service did not start:\n{log.read_text(errors='replace')[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
