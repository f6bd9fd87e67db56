"""CITATION.cff has what version 1.2.0 of its schema demands, and the version of this work."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import hatch_version

ROOT = Path(__file__).parents[2]
_KEYS = {
    "abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi",
    "identifiers", "keywords", "license", "license-url", "message", "preferred-citation",
    "references", "repository", "repository-artifact", "repository-code",
    "title", "type", "url", "version",
}  # fmt: skip


def test_the_citation_is_by_its_schema() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"authors", "cff-version", "message", "title"} <= cited.keys() <= _KEYS
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    assert cited["authors"]
    for author in cited["authors"]:
        assert author.keys() <= {"name", "email", "website"}  # an entity
        assert author["name"]
    assert len(set(cited["keywords"])) == len(cited["keywords"]) > 0
    assert all(isinstance(each, str) for each in (cited["title"], cited["message"]))


def test_it_names_this_version_and_licence() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == hatch_version.NEXT
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["license"] == project["license"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (newest, *_) = re.findall(r"^## (\S+)", changes, re.MULTILINE)
    assert newest == cited["version"]
