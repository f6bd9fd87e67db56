"""`bandit-service experiments` against a running service: every action, and every way to err."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bandit_service import cli
from tests.service.keyring import Keyring
from tests.service.running import Client, a_vector, serving

TOML = """
[[experiments]]
id = "trial"
share = 0.5
[[experiments.variants]]
key = "today"
arm = "llama-3.1-8b-instruct"
weight = 0.5
[[experiments.variants]]
key = "router"
arm = "gemini-2.5-pro"
weight = 0.5

[[experiments]]
id = "other"
variants = [{key = "a", weight = 0.5}, {key = "b", arm = "gemini-2.5-pro", weight = 0.5}]
"""


class Terminal:
    """Runs commands; what they print and how they end."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url, self._capsys = url, capsys

    async def __call__(self, *words: str, code: int = 0) -> str:
        given = ["experiments", *words, "--url", self._url]
        assert await asyncio.to_thread(cli.main, given) == code, words
        printed = self._capsys.readouterr()
        return printed.out if code == 0 else printed.err


@pytest.fixture
def terminal(client: Client, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(client.url, capsys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trial.toml"
    path.write_text(TOML)
    return path


async def test_from_a_file_to_the_end(client: Client, terminal: Terminal, file: Path) -> None:
    said = await terminal("put", "trial", "--file", str(file), "--why", "is it better?")
    assert said == "trial: draft. It is draft: no unit was assigned yet.\n"
    said = await terminal("put", "--file", str(file), "--start")
    assert [line.split(".")[0] for line in said.splitlines()] == [
        "trial: running",
        "other: running",
    ]
    for i in range(12):
        decided = await client.decide(embedding=a_vector(i), unit=f"u{i}")
        await client.reward(decided["decision_id"], quality=0.5)
    listed = await terminal()
    assert "trial                    running    50.0%" in listed
    assert "other                    running   100.0%" in listed
    shown = await terminal("results", "trial")
    assert shown.startswith("trial: running, 50.0% of users, by reward, learning: today nothing")
    assert "Not enough data" in shown
    assert "running" in await terminal("ramp", "trial", "--share", "0.8", "--why", "more")
    assert "running" in await terminal("weights", "trial", "today=0.3", "router=0.7")
    assert "paused" in await terminal("pause", "trial")
    assert "running" in await terminal("start", "trial")
    as_json = json.loads(await terminal("results", "trial", "--json"))
    assert as_json["share"] == 0.8
    assert [one["weight"] for one in as_json["variants"]] == [0.3, 0.7]
    assert as_json["changes"][0]["why"] == "is it better?"
    assert "stopped" in await terminal("stop", "trial", "--winner", "router", "--why", "done")
    assert "trial: deleted" in await terminal("delete", "trial")
    assert "trial" not in await terminal("list")


async def test_the_kill_switch_and_the_hold_out(client: Client, terminal: Terminal) -> None:
    assert await terminal("rules") == "No kill switch, no hold-out.\n"
    said = await terminal("rules", "--holdout-share", "0.05", "--holdout-arm", "gemini-2.5-pro")
    assert said == "5.0% of the units are held out on gemini-2.5-pro.\n"
    said = await terminal("rules", "--stopped", "yes", "--why", "night")
    assert said.splitlines()[0] == "The kill switch is on: no unit is in any experiment."
    assert said.splitlines()[1].startswith("5.0% of the units"), "what is not named stays"
    assert "The kill switch is on" in await terminal("list")
    said = await terminal("rules", "--stopped", "no", "--holdout-share", "0")
    assert said == "No kill switch, no hold-out.\n"
    _, rules = await client.get("/v1/experiment-rules")
    assert rules["holdout_arm"] == "gemini-2.5-pro"


async def test_what_goes_wrong_is_a_sentence(terminal: Terminal, file: Path) -> None:
    for words, code, says in (
        (["results", "none"], 1, "id: no experiment 'none'; GET /v1/experiments lists them"),
        (
            ["put", "third", "--file", str(file)],
            2,
            "has no experiment 'third'; it has trial, other",
        ),
        (["put", "--file", str(file.with_name("none.json"))], 2, "none.json: cannot be read: No"),
        (["weights", "trial", "today"], 2, "'today': must be VARIANT=WEIGHT, as control=0.5"),
        (["whatif", "trial", "--policy", "nosuch"], 2, "--policy: "),
        (["rules", "--holdout-share", "0.1"], 1, "holdout_arm: name the arm"),
    ):
        err = await terminal(*words, code=code)
        assert says in err, err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "text", "id", "code", "says"),
    [
        ("e.toml", "[[experiments]", "", 2, "not TOML"),
        ("e.json", "{", "", 2, "not JSON"),
        ("e.json", "[3]", "", 2, "must hold an experiment"),
        ("e.json", '{"variants": []}', "", 2, "has no id"),
        ("e.json", '{"variants": []}', "named", 1, "variants: from 2 to 20"),
    ],
)
async def test_a_file_that_cannot_be_used(
    tmp_path: Path, terminal: Terminal, name: str, text: str, id: str, code: int, says: str
) -> None:
    path = tmp_path / name
    await asyncio.to_thread(path.write_text, text)
    err = await terminal("put", *([id] if id else []), "--file", str(path), code=code)
    assert says in err


async def test_a_service_that_is_not_there_and_a_key_that_may_not(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(cli.main, ["experiments", "--url", "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1 cannot be reached: " in capsys.readouterr().err
    ring = Keyring(reader={"scopes": ["read"]})
    async with serving(tmp_path / "var", models, **ring.environ) as client:
        terminal = Terminal(client.url, capsys)
        assert "experiment" in await terminal("list", "--key", ring["reader"])
        said = await terminal("start", "x", "--key", ring["reader"], code=1)
        assert "this key does not have the scope 'admin'" in said


def test_an_action_that_needs_more_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["results"], "the following arguments are required: id"),
        (["put", "e"], "the following arguments are required: --file"),
        (["ramp", "e"], "the following arguments are required: --share"),
        (["begin", "e"], "invalid choice: 'begin'"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["experiments", *words])
        assert ended.value.code == 2
        assert says in capsys.readouterr().err
