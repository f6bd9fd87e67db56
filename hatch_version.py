"""The version of what is built here: by the tag `vX.Y.Z`, or of the commits after it.

    python hatch_version.py

prints it. A source distribution carries its version in PKG-INFO, and this is not asked; the
archive of a tag, as a forge packs it, carries `.git_archival.txt`. Without any of these, and
without git, it is the next version's `.dev0`.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

NEXT = "0.2.0"
"""What the first tag is to be, or the next one where no tag can be seen."""
UNKNOWN = f"{NEXT}.dev0"
GIVEN = "HATCH_BANDIT_SERVICE_VERSION"
"""The variable that sets it, whatever git says, as for an image. No setting of the service."""

_DESCRIBED = re.compile(
    r"v(?P<tag>\d+(?:\.\d+)*)(?:-(?P<after>\d+)-g(?P<commit>[0-9a-f]+))?(?P<dirty>-dirty)?"
)


def version(root: Path = Path(__file__).parent) -> str:
    """The version of the tree in `root`, by PEP 440."""
    return os.environ.get(GIVEN, "") or _archived(root) or _checked_out(root) or UNKNOWN


def of(described: str) -> str:
    """The version of what `git describe` says; "" where it names no tag.

    >>> of("v0.2.0"), of("v0.2.0-0-gabc123")
    ('0.2.0', '0.2.0')
    >>> of("v0.2.0-3-gabc123"), of("v0.2.0-0-gabc123-dirty")
    ('0.2.1.dev3+gabc123', '0.2.1.dev0+gabc123.dirty')
    >>> of("v0.2.0-rc1-0-gabc123")
    ''
    """
    found = _DESCRIBED.fullmatch(described)
    if found is None:
        return ""
    tag, after, commit = found["tag"], int(found["after"] or 0), found["commit"]
    if not after and not found["dirty"]:
        return tag
    first, last = ([*tag.split(".")[:-1]], int(tag.split(".")[-1]))
    return f"{'.'.join([*first, str(last + 1)])}.dev{after}+" + _local(commit, found["dirty"])


def _local(commit: str | None, dirty: str | None) -> str:
    return ".".join([f"g{commit}"] * bool(commit) + ["dirty"] * bool(dirty))


def _archived(root: Path) -> str:
    path = root / ".git_archival.txt"
    if not path.is_file():
        return ""
    found = re.search(r"^describe: (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return of(found[1]) if found else ""


def _checked_out(root: Path) -> str:
    """By git; "" where there is none, or where its tree is another one that `root` stands in."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root.resolve():
        return ""
    described = _git(root, "describe", "--tags", "--long", "--match", "v[0-9]*", "--dirty")
    if found := of(described):
        return found
    commits, commit = _git(root, "rev-list", "--count", "HEAD"), _git(root, "describe", "--always")
    dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{NEXT}.dev{commits}+" + _local(commit, dirty) if commit else ""


def _git(root: Path, *arguments: str) -> str:
    """What git prints of `root`; "" where it fails or is not there.

    Within a hook of git the environment names another repository.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607 - the git of whoever builds
            cwd=root,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    print(version())  # noqa: T201
