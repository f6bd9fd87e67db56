"""Settings: all mistakes at once, each with its key and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bandit_service import cli, settings
from bandit_service.cli.file_modes import open_to_others
from bandit_service.parsing.validation import Mistakes
from bandit_service.settings.tables import arms_of


def _read(tmp_path: Path, text: str, **environ: str) -> settings.Settings:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return settings.read(path, environ)


def test_a_variable_of_thousands_of_digits_is_a_mistake() -> None:
    digits = "9" * 5000
    with pytest.raises(settings.BadSettings) as bad:
        settings.read(None, {"BANDIT_REWARD_TTL_S": digits, "BANDIT_BUDGETS": f"[{digits}]"})
    told = [each.partition(":")[0] for each in bad.value.mistakes]
    assert told == ["reward.ttl_s", "BANDIT_BUDGETS"]


def test_metrics_are_checked_field_by_field() -> None:
    tables = [
        {"name": "resolved", "kind": "bolean", "wieght": 3},
        {"name": "quality"},
        {"name": "stars", "low": 5, "high": 1},
        {"name": "stars", "weight": -1},
        {"name": "b", "kind": "boolean", "high": 2},
        {"name": "vote", "kind": "boolean", "scope": "session"},
        {"name": "fine"},
        {"name": "fine", "weight": 0.0},
        {"name": "csat", "scope": "session", "feedback": True},
    ]
    with pytest.raises(settings.BadSettings) as bad:
        settings.read(None, {"BANDIT_METRICS": json.dumps(tables)})
    assert bad.value.mistakes == [
        "metrics[0].wieght: unknown field; did you mean weight?; allowed are name, kind, low, "
        "high, lower_is_better, scope, weight, feedback",
        "metrics[0].kind: must be one of boolean, number, got 'bolean'",
        "metrics[1].name: must be letters, digits and _, with no digit first, and none of "
        "quality, cost_usd, latency_s, reward, got 'quality'",
        "metrics[2].low: must be below high, got 5 and 1",
        "metrics[3].weight: must be from 0 to 1000000, got -1",
        "metrics[4].low: is of the kind number; a boolean is true or false",
        "metrics[5].kind: the metric vote has users' votes, so it must be a boolean of a decision",
        "metrics[8].feedback: a token belongs to one decision, but this metric to a session",
        "metrics[3].name: duplicate name 'stars'",
        "metrics[7].name: duplicate name 'fine'",
    ]


def test_no_file_is_needed() -> None:
    chosen = settings.read(None, {})
    assert (chosen.server.host, chosen.server.port) == ("127.0.0.1", 8080)
    assert chosen.policy.name == "nested"
    assert set(chosen.origins.values()) == {"default"}


def test_the_environment_overrides_the_file_which_overrides_the_default(tmp_path: Path) -> None:
    text = (
        "[server]\nport = 1000\nmax_items = 7\n[policy]\nname = 'eagle'\nparameters = {blend = 0.2}"
    )
    chosen = _read(tmp_path, text, BANDIT_SERVER_PORT="2000", PATH="/bin")
    assert (chosen.server.port, chosen.server.max_items) == (2000, 7)
    assert chosen.origins["server.port"] == "BANDIT_SERVER_PORT"
    assert chosen.origins["server.max_items"] == str(tmp_path / "config.toml")
    assert chosen.policy.parameters == {"blend": 0.2}


def test_what_kubernetes_sets_in_a_pod_is_no_setting(tmp_path: Path) -> None:
    links = {
        "SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8080", "SERVICE_PORT_HTTP": "8080",
        "PORT": "tcp://10.0.0.1:8080", "PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "PORT_8080_TCP_PROTO": "tcp", "PORT_8080_TCP_PORT": "8080",
        "PORT_8080_TCP_ADDR": "10.0.0.1",
    }  # fmt: skip
    environ = {f"BANDIT_SERVICE_{name}": value for name, value in links.items()}
    assert _read(tmp_path, "", **environ).server.host == "127.0.0.1"
    with pytest.raises(settings.BadSettings, match="BANDIT_SERVICE_HOST: no such setting"):
        _read(tmp_path, "", BANDIT_SERVICE_HOST="0.0.0.0")


@pytest.mark.parametrize("text", ["[[key]]\nid = 'a'", "[keys_file]", "id = 'a'"])
def test_a_keys_file_has_keys_only(tmp_path: Path, text: str) -> None:
    """A table that is misspelt would be no key, and without keys everybody may do everything."""
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(settings.BadSettings, match=r"keys\.toml: \w+: no such name"):
        _read(tmp_path, "[security]\nkeys_file = 'keys.toml'")


@pytest.mark.parametrize(
    ("text", "host", "refused"),
    [
        ("", "0.0.0.0", True),
        ("keys = []", "0.0.0.0", False),
        ("", "127.0.0.1", False),
    ],
)
def test_a_keys_file_without_a_key_is_refused_where_others_reach(
    tmp_path: Path, text: str, host: str, refused: bool
) -> None:
    (tmp_path / "keys.toml").write_text("# none yet")
    chosen = _read(
        tmp_path,
        f"{text}\n[security]\nkeys_file = 'keys.toml'\n",
        BANDIT_SERVER_HOST=host,
        BANDIT_SERVER_INSECURE="true",
    )
    assert ("keys.toml has no [[keys]]" in settings.exposure(chosen)) == refused


def test_a_file_that_others_can_read_is_told_of_where_it_has_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text("# none yet")
    file.chmod(0o644)
    text = "[security]\nkeys_file = 'keys.toml'"
    config = tmp_path / "config.toml"
    assert open_to_others(_read(tmp_path, text), config) == []
    file.write_text(f"[[keys]]\nid = 'a'\nhash = '{'0' * 64}'\nscopes = ['read']")
    config.chmod(0o600)
    assert open_to_others(_read(tmp_path, text), config) == [file]


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = """
    log_level = "loud"
    colour = "red"
    [server]
    port = 70000
    host = 7
    [embedding]
    backend = "gpu"
    [exploration]
    floor = "much"
    [policy]
    name = "metallm"
    parameters = {alpha = -1}
    [[arms]]
    id = "a"
    usd_per_mtok_in = -1
    usd_per_mtok_out = 1
    [[arms]]
    id = "b"
    """
    with pytest.raises(settings.BadSettings) as caught:
        _read(tmp_path, text, BANDIT_SERVER_PROT="1")
    mistakes = "\n".join(caught.value.mistakes)
    for expected in (
        "log_level: must be one of debug, info, warning, error, got 'loud'",
        "colour: no such setting",
        "server.port: must be a whole number from 0 to 65535, got 70000",
        "server.host: must be a string, got 7",
        "embedding.backend: must be one of onnx, torch, static, got 'gpu'",
        "exploration.floor: must be a number from 0 to 0.5, got 'much'",
        "policy.parameters.alpha: must be a number >= 0 and <= 1e+12, got -1",
        "arms[0].usd_per_mtok_in: must be from 0 to 100000, got -1",
        "arms[1].usd_per_mtok_in: is required",
        "BANDIT_SERVER_PROT: no such setting",
    ):
        assert expected in mistakes, mistakes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server", "not TOML"),
        ("server = 3", "server: must be a table"),
        ("arms = 3", "arms: must be a list of tables"),
        ("[policy]\nname = 'best'", "policy.name: no policy named 'best'"),
        (
            "[policy]\nname = 'river:Best'",
            "no policy named 'river:Best'; did you mean river:BayesUCB?",
        ),
        (
            "[policy]\nname = 'river:UCB'\nparameters = {delta = -1}",
            "policy.parameters.delta: must be a number >= 0",
        ),
        ("[policy]\nparameters = {gamma = 1}", "gamma: nested has no such parameter"),
        (
            "[policy]\nparameters = {alarm = 1e300}",
            "policy.parameters.alarm: must be a number >= 0 and <= 1e+12, got 1e+300",
        ),
        (
            "[[policies]]\nname = 'metallm'\nparameters = {ridge = 1e-300}",
            "policies[0].parameters.ridge: must be a number >= 1e-12 and <= 1e+12, got 1e-300",
        ),
        ("[[arms]]\nid = 'a'\nusd_per_mtok_in = 1\nusd_per_mtok_out = 1\nprize = 2", "prize"),
        ("[reward]\nttl_s = true", "reward.ttl_s: must be a number from 1, got True"),
        ("[reward]\nttl_s = nan", "reward.ttl_s: must be a number from 1, got nan"),
        (f"[reward]\nttl_s = {10**400}", "reward.ttl_s: integers must fit in 64 bits"),
        (f"[server]\nmax_arms = {2**64}", "server.max_arms: integers must fit in 64 bits"),
        (f"[policy.parameters]\nx = {2**64}", "policy.parameters.x: integers must fit in 64"),
        (
            f"[[arms]]\nid = 'a'\ncontext_window = {2**64}",
            "arms[0].context_window: integers must fit in 64 bits",
        ),
    ],
)
def test_a_mistake_names_its_key(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(settings.BadSettings, match=r".") as caught:
        _read(tmp_path, text)
    assert expected in "\n".join(caught.value.mistakes)
    assert "policy.parameters.policy" not in "\n".join(caught.value.mistakes)


def test_two_arms_of_one_name_are_refused(tmp_path: Path) -> None:
    arm = "[[arms]]\nid = 'a'\nusd_per_mtok_in = 1\nusd_per_mtok_out = 1\n"
    with pytest.raises(settings.BadSettings, match="duplicate id 'a'"):
        _read(tmp_path, arm + arm)


def test_the_command_line_tells_mistakes_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[server]\nport = -1\n", encoding="utf-8")
    assert cli.main(["config", "check", "--config", str(path)]) == cli.USAGE_ERROR
    assert "config: server.port: must be" in capsys.readouterr().err
    assert cli.main(["config", "check", "--config", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_the_configuration_is_shown_with_origins(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    keys = [row["key"] for row in shown["settings"]]
    assert keys == list(settings.rules())
    assert all(row["help"] for row in shown["settings"])


def test_every_setting_is_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for key, (default, rule) in settings.rules().items():
        assert f"| `{key}` | `{json.dumps(default)}` | {rule.help}" in page, key


def test_policies_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policies"]) == 0
    out = capsys.readouterr().out
    assert "nested: A Bayesian tree of the arms" in out
    assert "ridge=12.94" in out
    assert cli.main(["policies", "none"]) == cli.USAGE_ERROR


def test_a_missing_model_ends_the_start_with_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANDIT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BANDIT_EMBEDDING_MODEL", "no-such-model")
    assert cli.main(["serve", "--port", "0"]) == 1
    error = capsys.readouterr().err
    assert "embedding.model: 'no-such-model' is neither" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tags", ["x"] * 65), ("tags", ["x" * 257]), ("capabilities", ["json"] * 1000),
        ("capabilities", ["x" * 100_000]), ("model", "x" * 257), ("upstream", "x" * 257),
        ("max_output_tokens", 0), ("usd_per_mtok_cache_write_1h", -1.0),
    ],
)  # fmt: skip
def test_what_an_arm_says_of_itself_has_a_bound(field: str, value: Any) -> None:
    """On 5a5a85b an arm took any number of tags: a thousand arms made `GET /v1/arms` 103 MB."""
    arm = {"id": "a", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}
    with pytest.raises(ValueError, match=f"^{field}: "):
        settings.arm_spec(arm | {field: value})
    assert settings.arm_spec(arm | {"tags": ["x" * 256] * 64}).tags


@pytest.mark.parametrize("id", ["auto", "auto:nested", "auto?max_cost_usd=1", "what?"])
def test_an_arm_has_a_name_by_which_it_can_be_called(id: str) -> None:
    """An arm `auto` took the place of the router in `GET /v1/models`."""
    mistakes: list[str] = []
    arms_of([{"id": id, "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}], mistakes)
    assert [each.partition(": must not be")[0] for each in mistakes] == ["arms[0].id"]


_SHARED = {"BANDIT_LOG_ENGINE": "postgres", "BANDIT_LOG_DSN_ENV": "THE_DSN"}
_JETSTREAM = {"BANDIT_LOG_ENGINE": "jetstream", "THE_DSN": "nats://bandit:topsecret@h:4222"}


def test_a_shared_log_has_its_address_from_the_environment_and_shows_it_nowhere() -> None:
    dsn = "postgresql://bandit:topsecret@db/bandit"
    found = settings.read(None, _SHARED | {"THE_DSN": f" {dsn}\n"})
    assert found.dsn == dsn
    assert "topsecret" not in repr(found)
    assert settings.digest_of(found) == settings.digest_of(
        settings.read(None, _SHARED | {"THE_DSN": "postgresql://other"})
    )


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"THE_DSN": ""}, "log.dsn_env: THE_DSN is empty in the environment"),
        ({"BANDIT_LOG_DSN_ENV": "ELSE"}, "log.dsn_env: there is no ELSE in the environment"),
        ({"THE_DSN": "topsecret"}, "log.dsn_env: must be postgresql://USER:PASSWORD@HOST:PORT/"),
        ({"THE_DSN": "postgresql://u:p[topsecret]x@h/d"}, "log.dsn_env: must be postgresql://USER"),
        (
            {"BANDIT_LOG_DSN_ENV": ""},
            'log.dsn_env: log.engine = "postgres" needs this or log.dsn_file',
        ),
        (
            {"BANDIT_LOG_DSN_ENV": "", "BANDIT_LOG_DSN_FILE": "no-such-file"},
            "log.dsn_file: no-such-file cannot be read",
        ),
        (
            {"BANDIT_LOG_ENGINE": "sqlite"},
            'log.dsn_env: is only for log.engine = "postgres" or "jetstream"',
        ),
        (
            {"BANDIT_RETENTION_MAX_AGE_S": "60", "BANDIT_LOG_SHARE_SNAPSHOTS": "false"},
            'retention.max_age_s: needs log.share_snapshots with log.engine = "postgres"',
        ),
        (
            {"BANDIT_LOG_INSECURE_SINGLE": "true"},
            'log.insecure_single: is only for log.engine = "jetstream"',
        ),
        (
            _JETSTREAM | {"THE_DSN": "postgresql://topsecret@h/d"},
            "log.dsn_env: must be nats://USER",
        ),
        (_JETSTREAM | {"BANDIT_LOG_MAX_BATCH": "1001"}, "log.max_batch: must be at most 1000"),
    ],
)
def test_what_a_shared_log_needs_or_cannot_is_refused(environ: dict[str, str], why: str) -> None:
    with pytest.raises(settings.BadSettings) as refused:
        settings.read(None, _SHARED | {"THE_DSN": "postgresql://bandit@db/bandit"} | environ)
    assert any(each.startswith(why) for each in refused.value.mistakes), refused.value.mistakes
    assert "topsecret" not in str(refused.value)


def test_of_very_many_unknown_fields_some_are_told() -> None:
    """On 164cc0c0 the word that was meant by each of 10,000 was looked for: 18 s."""
    fields = {f"usd_per_mtok_x{i}": 1 for i in range(10_000)} | {"y" * 100_000: 1}
    with pytest.raises(Mistakes) as told:
        settings.arm_spec({"id": "a", "usd_per_mtok_in": 1, "usd_per_mtok_out": 1, **fields})
    assert len(told.value.each) == 51
    assert "did you mean usd_per_mtok_in?" in told.value.each[0]
    assert "unknown field, as 10001 in all" in told.value.each[-1]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            '[[upstreams]]\nid = "p"\nbase_url = "http://h/v1"\nkey_env = "BLANK"',
            "upstreams[0].key_env: BLANK is empty in the environment",
        ),
        ('[[upstreams]]\nid = "p"\nbase_url = "http://h/v1"\nkey_file = "blank"', "blank is empty"),
        (
            '[log]\nengine = "postgres"\ndsn_env = "BLANK"',
            "log.dsn_env: BLANK is empty in the environment",
        ),
        ('[log]\nengine = "postgres"\ndsn_file = "blank"', "blank is empty"),
        (
            '[texts]\nkeep = "both"\nkey_env = "BLANK"',
            "texts.key_env: BLANK is empty in the environment",
        ),
        ('[texts]\nkeep = "both"\nkey_file = "blank"', "blank is empty"),
        (
            '[feedback]\nsecret_env = "BLANK"',
            "feedback.secret_env: BLANK is empty in the environment",
        ),
    ],
)
def test_a_secret_of_white_space_alone_is_none(tmp_path: Path, toml: str, said: str) -> None:
    file = tmp_path / "bandit.toml"
    file.write_text(toml)
    (tmp_path / "blank").write_text(" \n")
    with pytest.raises(settings.BadSettings) as refused:
        settings.read(file, {"BLANK": " \n"})
    (mistake,) = refused.value.mistakes
    assert said in mistake
