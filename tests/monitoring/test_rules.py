"""The alert rules: valid, tested before and after they fire, each with its page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.tools import tool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
SUMMARIES = {
    rule["alert"]: rule["annotations"]["summary"]
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


@pytest.fixture
def promtool() -> str:
    return tool("promtool")


@pytest.mark.parametrize(("what", "file"), [("check", "rules.yaml"), ("test", "rules_test.yaml")])
def test_promtool_agrees(promtool: str, what: str, file: str) -> None:
    command = [promtool, what, "rules", str(RULES.with_name(file))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_cannot_fire_fails_its_test(promtool: str, tmp_path: Path) -> None:
    rules = RULES.read_text(encoding="utf-8").replace("ratio_rate5m > 0.01", "ratio_rate5m > 0.5")
    (tmp_path / "rules.yaml").write_text(rules, encoding="utf-8")
    tests = yaml.safe_load(RULES.with_name("rules_test.yaml").read_text(encoding="utf-8"))
    tests["tests"] = [one for one in tests["tests"] if "BanditErrorRatioHigh" in one["name"]]
    command = [promtool, "test", "rules", str(tmp_path / "rules_test.yaml")]
    Path(command[-1]).write_text(yaml.safe_dump(tests), encoding="utf-8")
    assert subprocess.run(command, capture_output=True).returncode != 0
    shutil.copy(RULES, tmp_path)
    assert subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", SUMMARIES)
def test_each_alert_has_tests_and_a_page(name: str) -> None:
    tests = RULES.with_name("rules_test.yaml").read_text(encoding="utf-8")
    assert f"{name}, bad" in tests
    assert f"{name}, good" in tests
    page = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}\n")
    for part in ("What it means", "What to look at", "What to do"):
        assert f"## {part}\n" in page
    says = re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", page.split("\n\n")[1].replace("\n", " "))
    assert says == f"{SUMMARIES[name]}."


def test_alerts_and_pages_name_metrics_that_there_are() -> None:
    listed = _read("docs/metrics.md") + _read("docs/scale.md")
    known = set(re.findall(r"^\| `(bandit_\w+)`", listed, re.MULTILINE))
    known |= set(re.findall(r"CREATE TABLE (bandit_\w+)", _read("store/_postgres_sql.py")))
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "runbooks").iterdir()]
    for text in (RULES.read_text(encoding="utf-8"), *pages):
        for name in re.findall(r"\bbandit_[a-z0-9_]+", text):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in known, name


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
