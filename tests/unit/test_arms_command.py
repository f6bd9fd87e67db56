"""`init` and `arms`: a first configuration from what is there, without any key in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bandit_service import settings
from bandit_service.cli import main
from bandit_service.data.known_models import known_models

SECRET = "sk-never-written"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No provider's key is there, and this is the directory."""
    for provider in known_models().providers:
        monkeypatch.delenv(provider.key_env, raising=False)
    monkeypatch.chdir(tmp_path)


def test_init_writes_what_a_service_can_start_with_and_no_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    assert main(["init"]) == 0
    said = capsys.readouterr()
    path = tmp_path / "bandit.toml"
    text = path.read_text(encoding="utf-8")
    assert SECRET not in text + said.out + said.err
    found = settings.read(path)
    assert {one.spec.id for one in found.upstreams} == {"openai", "anthropic"}
    by_name = {model.model: model for model in known_models().models}
    assert {arm.upstream for arm in found.arms} == {"openai", "anthropic"}
    for arm in found.arms:
        facts = by_name[arm.id]
        assert (arm.usd_per_mtok_in, arm.usd_per_mtok_out, arm.context_window) == (
            facts.usd_per_mtok_in, facts.usd_per_mtok_out, facts.context_window
        )  # fmt: skip
        assert facts.source in text
    assert main(["init"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == text


def test_init_without_any_key_names_the_variables(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["init"]) == 2
    assert "looked for OPENAI_API_KEY, ANTHROPIC_API_KEY" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_arms_of_one_model_with_several_efforts_are_a_family(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    assert main(["init"]) == 0
    path = tmp_path / "bandit.toml"
    before = settings.read(path)
    assert main(["arms", "add", "openai/gpt-5-mini", "--effort", "low", "--effort", "high"]) == 0
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    found = settings.read(path)
    assert found.arms[: len(before.arms)] == before.arms
    added = found.arms[len(before.arms) :]
    assert [(arm.id, arm.model, arm.family, arm.request.reasoning_effort) for arm in added] == [
        ("gpt-5-mini-low", "gpt-5-mini", "gpt-5-mini", "low"),
        ("gpt-5-mini-high", "gpt-5-mini", "gpt-5-mini", "high"),
    ]
    capsys.readouterr()
    assert main(["arms", "list", "--config", str(path)]) == 0
    assert '{"reasoning_effort": "high"}' in capsys.readouterr().out


def test_embedding_models_are_known_and_those_of_another_length_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert main(["arms", "list", "--known"]) == 0
    assert "embedding of 1536 dimensions" in capsys.readouterr().out
    assert main(["init"]) == 0
    assert main(["arms", "add", "text-embedding-3-small"]) == 0
    path = tmp_path / "bandit.toml"
    text = path.read_text(encoding="utf-8")
    assert main(["arms", "add", "text-embedding-3-large"]) == 2
    assert "must have the same dimensions" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == text
    assert main(["arms", "add", "text-embedding-3-large", "--unrouted"]) == 0
    small, large = settings.read(path).arms[-2:]
    assert (small.kind, small.dimensions, small.routed) == ("embedding", 1536, True)
    assert (large.kind, large.dimensions, large.routed) == ("embedding", 3072, False)
    assert main(["arms", "list", "--config", str(path)]) == 0
    assert "embedding  not routed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["gpt-5-minni"], "unknown model 'gpt-5-minni'; did you mean gpt-5-mini"),
        (["gpt-4o-mini", "--effort", "low"], "gpt-4o-mini takes no reasoning effort"),
        (["gpt-5-mini", "--effort", "low", "--effort", "high", "--id", "x"], "--id: is one arm's"),
        (["gpt-5-mini", "--thinking-budget", "2000"], "thinking_budget: an upstream of kind 'op"),
        (["gpt-5-mini", "--upstream", "nowhere"], "nowhere"),
        (["gpt-5.4-mini"], "gpt-5.4-mini"),  # its id is taken
    ],
)
def test_what_cannot_be_added_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    asked: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert main(["init"]) == 0
    path = tmp_path / "bandit.toml"
    text = path.read_text(encoding="utf-8")
    assert main(["arms", "add", *asked]) == 2
    assert said in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == text
    assert [each.name for each in tmp_path.iterdir()] == ["bandit.toml"]


def test_every_known_model_has_a_source_a_date_and_a_known_provider(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = known_models()
    assert known.date >= "2026-11-29"
    ids = {provider.id for provider in known.providers}
    for model in known.models:
        assert model.source.startswith("https://")
        assert model.provider in ids
        assert model.usd_per_mtok_in > 0.0
        embeds = model.kind == "embedding"
        assert model.usd_per_mtok_out == 0.0 if embeds else model.usd_per_mtok_out > 0.0
    assert all(any(m.first for m in known.models if m.provider == id) for id in ids)
    assert main(["arms", "list", "--known"]) == 0
    assert known.date in capsys.readouterr().out
