"""Kinds of faults that the command line had on commit 5a5a85b: each test would fail there."""

from __future__ import annotations

import gc
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bandit_service import cli, settings
from bandit_service.cli.commands import config, experiments, try_
from bandit_service.data.recordings import load
from tests.unit.data.recordings import a_row, write

COMMAND = [sys.executable, "-m", "bandit_service.cli"]


def _environ(**changed: str) -> dict[str, str]:
    kept = {"PATH", "PYTHONPATH", "HOME", "VIRTUAL_ENV"}
    ours = os.environ.items()  # noqa: TID251 - passed on
    return {name: text for name, text in ours if name in kept} | changed


@pytest.mark.parametrize(
    "environ",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["latin-1", "C"],
)
def test_a_sign_that_the_terminal_lacks_loses_no_result(environ: dict[str, str]) -> None:
    """Seen on 5a5a85b: UnicodeEncodeError with a traceback, exit 1."""
    done = subprocess.run(
        [*COMMAND, "policies"], env=_environ(**environ), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"uniform: " in done.stdout


@pytest.mark.parametrize(
    "words", [["policies"], ["--help"], ["policies", "--json"]], ids=lambda words: words[-1]
)
def test_a_reader_that_leaves_early_is_no_error(words: list[str]) -> None:
    """Seen on 5a5a85b: "[Errno 32] Broken pipe" on stderr, exit 1."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = subprocess.run(
            [*COMMAND, *words],
            env=_environ(PYTHONUNBUFFERED="1"),
            stdout=writes,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_an_answer_of_the_service_is_no_error_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen on 0e17ee51: "http://127.0.0.1:8080 broke off: [Errno 32] Broken pipe", exit 1."""
    row = {"revision": 1, "ts": 0.0, "by": "admin", "changed": ["arms"], "why": "new"}
    monkeypatch.setattr(config, "asked", lambda *_, **__: {"history": [row] * 9})
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb", buffering=0) as pipe, monkeypatch.context() as patched:
        stdout = io.TextIOWrapper(pipe, write_through=True)
        patched.setattr(sys, "stdout", stdout)
        assert cli.main(["config", "history"]) == 0
        stdout.detach()
    assert capsys.readouterr().err == ""


def test_streams_that_are_closed_are_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a daemon's; Python has None in their place."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["policies"]) == 0
    assert cli.main(["config", "check", "--config", str(tmp_path / "none.toml")]) == 2
    sys.stdout.close()
    sys.stderr.close()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["polices"], "policies"),
        (["config", "chek"], "check"),
        (["evaluate", "--data", "x", "--polcy", "knn"], "--policy"),
        (["experiments", "strat", "e"], "start"),
        (["policies", "epsilon_gredy"], "epsilon_greedy"),
        (["replay", "--data", "x.jsonl", "--policy", "metalm"], "metallm"),
        (["replay", "--data", "specialist"], "specialists"),
    ],
)
def test_the_word_that_was_meant_is_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    meant: str,
) -> None:
    """Seen on 5a5a85b: "unrecognized arguments", or a list of all there is."""
    monkeypatch.setattr(sys, "argv", ["bandit-service", *words])
    try:
        code: object = cli.main(words)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_ctrl_c_while_a_command_is_imported_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pressed(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", pressed)
    assert cli.main(["replay", "--data", "specialists"]) == 130


WRONG = """
log_levl = "info"
[sever]
port = 1
[server]
prot = 1
port = "http"
[embedding]
backend = "onx"
[policy]
name = "metalm"
[duels]
judge = "exct"
[[policies]]
name = "metallm"
parameters = {alpha = -1, ridg = 2, bias = "x"}
[[arms]]
id = ""
usd_per_mtok_in = "1"
usd_per_mtok_uot = 1
context_window = 0
upstream = "opnai"
[[arms]]
id = "b"
usd_per_mtok_in = -1
usd_per_mtok_out = -2
[[upstreams]]
id = "openai"
base_url = "api.openai.com"
kind = "opena"
idle_s = "long"
[[upstreams]]
base_url = "api.openai.com"
resend = 9
timeout = 3
[[budgets]]
scope = "everyone"
per = "year"
usd = 0
[[budgets]]
scope = "key"
id = "frnt"
per = "day"
usd = 1
[[judges]]
id = "exact"
kind = "exact"
share = 2
timeout_s = 0
[[keys]]
id = "front"
hash = "x"
scopes = ["decde"]
reward_share = 2
"""

TOLD = [
    "log_levl: no such setting; did you mean log_level?",
    "sever: no such setting; did you mean server?",
    "server.prot: no such setting; did you mean server.port?",
    "server.port: must be a whole number from 0 to 65535, got 'http'",
    "embedding.backend: must be one of onnx, torch, static, got 'onx'; did you mean onnx?",
    "policy.name: no policy named 'metalm'; did you mean metallm?",
    "duels.judge: there is no [[judges]] with id 'exct'; did you mean exact?",
    "policies[0].parameters.alpha: must be a number >= 0 and <= 1e+12, got -1",
    "policies[0].parameters.ridg: metallm has no such parameter; did you mean ridge?",
    "policies[0].parameters.bias: must be true or false",
    "arms[0].id: must be 1 to 128 printable characters",
    "arms[0].usd_per_mtok_in: must be a number, got a text",
    "arms[0].usd_per_mtok_uot: unknown field; did you mean usd_per_mtok_out?",
    "arms[0].usd_per_mtok_out: is required",
    "arms[0].context_window: must be from 1 to",
    "arms[0].upstream: there is no [[upstreams]] 'opnai'; did you mean openai?; "
    "expected one of openai",
    "arms[1].usd_per_mtok_in: must be from 0 to 100000, got -1",
    "arms[1].usd_per_mtok_out: must be from 0 to 100000, got -2",
    "upstreams[0].base_url: must begin with http:// or https://",
    "upstreams[0].kind: must be one of openai, anthropic, responses, got 'opena'",
    "upstreams[0].idle_s: must be a number, got a text",
    "upstreams[1].id: is required",
    "upstreams[1].base_url: must begin with http:// or https://",
    "upstreams[1].resend: must be from 0 to 5, got 9",
    "upstreams[1].timeout: unknown field; ",
    "budgets[0].scope: must be one of service, tenant, key",
    "budgets[0].per: must be one of",
    "budgets[0].usd: must be above 0",
    "budgets[1].id: there is no [[keys]] with id 'frnt'; did you mean front?",
    "judges[0].share: must be above 0 and at most 1, got 2",
    "judges[0].timeout_s: must be above 0",
    "keys[0].hash: must be 64 hex digits",
    "keys[0].scopes: must be some of",
    "keys[0].reward_share: must be above 0",
    "BANDIT_SERVER_PROT: no such setting; did you mean BANDIT_SERVER_PORT?",
]


def test_every_mistake_of_a_configuration_is_told_at_once(tmp_path: Path) -> None:
    """Seen on 5a5a85b: 7 of a dozen, one of each table, and `[policy] name` as `policy`."""
    path = tmp_path / "config.toml"
    path.write_text(WRONG, encoding="utf-8-sig")
    with pytest.raises(settings.BadSettings) as caught:
        settings.read(path, {"BANDIT_SERVER_PROT": "1"})
    mistakes = caught.value.mistakes
    for told in TOLD:
        assert [each for each in mistakes if each.startswith(told)], (told, mistakes)
    assert len(mistakes) == len(TOLD), sorted(mistakes)


def test_of_what_a_wrong_kind_allows_nothing_is_said(tmp_path: Path) -> None:
    """What stands in for a wrong field must not make mistakes that nobody wrote."""
    path = tmp_path / "config.toml"
    path.write_text('[[judges]]\nid = "j"\nkind = "regx"\npattern = "x"\nshare = 2\n')
    with pytest.raises(settings.BadSettings) as caught:
        settings.read(path, {})
    assert len(caught.value.mistakes) == 1


def test_config_check_says_what_would_end_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen on 5a5a85b: "the configuration is right", and the service did not start."""
    path = tmp_path / "config.toml"
    path.write_text('[server]\nhost = "0.0.0.0"\n')
    assert cli.main(["config", "check", "--config", str(path)]) == 2
    assert "config: server.host: '0.0.0.0' is reached" in capsys.readouterr().err
    path.write_text('[experiment_rules]\nholdout_share = 0.1\nholdout_arm = "mistral-large"\n')
    assert cli.main(["config", "check", "--config", str(path)]) == 0
    assert "did you mean mistral-large-2512?" in capsys.readouterr().err
    path.write_text('[policy]\nname = "fixed"\nparameters = { arm = "mistral-large" }\n')
    assert cli.main(["config", "check", "--config", str(path)]) == 0
    told = capsys.readouterr().err  # on 164cc0c0 nothing, and the cheapest arm answered
    assert "policy.parameters.arm: 'mistral-large' is no configured arm; did you mean" in told


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--port", "99999"], ["upstream", "--port", "70000"], ["export", "--after", "-3"],
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_no_traceback(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """On 164cc0c0 a port of 99999 was an OverflowError, after the log was opened."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert f"argument {words[1]}: must be from 0 to " in capsys.readouterr().err


def test_a_recording_is_told_in_a_line(tmp_path: Path) -> None:
    """Seen on 5a5a85b: its repr was 30,000 characters."""
    recorded = load(write(tmp_path / "t.jsonl", [a_row(i) for i in range(500)]))
    assert repr(recorded) == "<Recorded t: 500 queries, arms a, b>"


def test_what_was_deleted_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen on 5a5a85b: the status that it had had before."""
    gone = {"id": "e", "status": "draft", "conclusion": "not started"}
    monkeypatch.setattr(experiments, "_call", lambda *_: gone)
    assert cli.main(["experiments", "delete", "e"]) == 0
    assert capsys.readouterr().out == "e: deleted.\n"


def test_without_an_upstream_try_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen on 5a5a85b: "arms: the list is empty"."""
    monkeypatch.setattr(try_, "_sent", lambda *_: ({"data": [{"id": "auto"}]}, {}))
    assert cli.main(["try", "why?"]) == 1
    assert "no arm has an upstream that could answer; --no-answer" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["\ud83d", "stray \udcff"])
def test_half_a_character_is_named_and_blames_no_service(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """Seen on 0e17ee51: "http://127.0.0.1:8080 is no bandit-service"."""
    monkeypatch.setattr(try_, "_sent", lambda *_: ({"data": [{"id": "auto"}, {"id": "a"}]}, {}))
    assert cli.main(["try", word]) == 1
    said = capsys.readouterr().err
    assert f"{word[-1]!r} is half a character, or a stray byte" in said
    assert "no bandit-service" not in said


@pytest.mark.parametrize(
    "words",
    [["export"], ["inspect"], ["replay", "--log"], ["evaluate", "--from-log", "var/empty.sqlite3"]],
    ids=" ".join,
)
@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty"])
def test_what_only_reads_a_log_makes_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    there: bool,
) -> None:
    """Seen on e98ba34: `export` made a log and told of success; an empty file became one."""
    monkeypatch.chdir(tmp_path)
    if there:
        (tmp_path / "var").mkdir()
        for name in ("events.sqlite3", "empty.sqlite3"):
            (tmp_path / "var" / name).touch()
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    assert cli.main(words) == 1
    assert "no log at var/" in capsys.readouterr().err
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before
    assert (tmp_path / "var").exists() == there


def test_the_garbage_collector_rests_only_while_a_command_is_imported() -> None:
    cli_main = importlib.import_module("bandit_service.cli.main")
    assert gc.isenabled()
    imported = cli_main._imported("bandit_service.cli.commands.policies")
    assert imported.__name__ == "bandit_service.cli.commands.policies"
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError):
        cli_main._imported("bandit_service.cli.commands.none")
    assert gc.isenabled()
    gc.unfreeze()


def test_only_the_first_command_of_a_process_has_its_modules_kept() -> None:
    cli_main = importlib.import_module("bandit_service.cli.main")
    gc.unfreeze()
    cli_main._imported("bandit_service.cli.commands.policies")
    first = gc.get_freeze_count()
    later = [[each] for each in range(1_000)]
    cli_main._imported("bandit_service.cli.commands.policies")
    assert 0 < gc.get_freeze_count() <= first
    assert gc.isenabled()
    assert len(later) == 1_000
    gc.unfreeze()
