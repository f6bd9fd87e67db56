"""The configuration that is changed at run time: its fold, and how a file meets it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import policies
from bandit_service import settings
from bandit_service.core import codec
from bandit_service.core import configuration as core
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.configuration import KEPT, Configuration
from bandit_service.core.routes import MAX_ROUTES
from bandit_service.core.world import World, new_world
from bandit_service.runtime.live_configuration import in_force
from bandit_service.settings import keys
from bandit_service.settings.live import sections_of, shown, with_sections
from bandit_service.settings.live_values import LIVE, RELOADED, at_a_start

A, B, C = ({"id": id, "kind": "exact"} for id in "abc")
HALF = {"id": "a", "kind": "exact", "share": 0.5}


def _world() -> World:
    return new_world({"uniform": policies.load("uniform")}, "uniform", 10)


def _changed(world: World, revision: int, **more: Any) -> Configuration:
    event = ev.ConfigurationChanged(ts=float(revision), revision=revision, **more)
    apply(world, ev.decode(ev.encode(event)))
    assert not world.unapplied, world.why_unapplied
    return world.configuration


def test_a_world_that_was_never_told_is_written_as_before() -> None:
    assert not _world().configuration
    assert b"configuration" not in codec.dump(_world())


def test_revisions_are_kept_from_the_file_on_and_the_oldest_leave() -> None:
    world = _world()
    found = _changed(
        world, 1, sections={"judges": (A,)}, before={"judges": (B,), "budgets": ()}, by="ops"
    )
    assert found.sections == {"judges": [A], "budgets": []}
    assert [(one.number, one.by, one.changed) for one in found.revisions] == [
        (0, "config", []),
        (1, "ops", ["judges"]),
    ]
    assert found.find(0).sections["judges"] == [B]  # type: ignore[union-attr]
    for number in range(2, KEPT + 3):
        _changed(world, number, sections={"judges": (A, B)})
    assert [one.number for one in found.revisions] == list(range(3, KEPT + 3))
    assert found.find(1) is None


def test_what_a_change_takes_from_the_keys_is_revoked_and_what_the_file_takes_is_not() -> None:
    world = _world()
    app = {"id": "app", "hash": "1", "scopes": ["decide"]}
    rotated = app | {"hash": "2", "old_hash": "1", "old_expires": "2030-01-01"}
    before: dict[str, Any] = {"keys": (app, {"id": "file", "hash": "9", "scopes": ["read"]})}
    found = _changed(world, 1, sections={"keys": (rotated,)}, before=before)
    assert found.revoked == ["9"], "the old key of a rotation is still good"
    _changed(world, 2, sections={"keys": (app | {"hash": "3"},)})
    assert found.revoked == ["9", "2", "1"]
    _changed(world, 3, sections={"keys": ()}, source="file")
    assert found.revoked == ["9", "2", "1"]
    assert all("keys" not in one.sections for one in found.revisions), "keys are not rolled back"


@pytest.mark.parametrize(
    ("live", "said", "now", "expected"),
    [
        ([A, B], [A, B], [A, B], [A, B]),
        ([HALF, B], [A, B], [A, B], [HALF, B]),  # changed live, the file is as it was
        ([B, HALF], [A, B], [A, B], [B, HALF]),  # and so is the order
        ([HALF, B], [A, B], [A, B, C], [HALF, B, C]),  # another entry of the file
        ([HALF, B], [A, B], [A | {"share": 0.1}, B], [A | {"share": 0.1}, B]),  # this very one
        ([B], [A, B], [A, B, C], [B, C]),  # removed live, and the file has it as before
        ([A, B, C], [A, B], [B], [B, C]),  # removed from the file; made live
        ([C], [], [C | {"share": 0.1}], [C | {"share": 0.1}]),  # made live, then named in the file
    ],
)
def test_the_file_is_taken_where_it_changed_and_nowhere_else(
    live: list[Any], said: list[Any], now: list[Any], expected: list[Any]
) -> None:
    digests = core.digests({"judges": said})
    assert core.merged({"judges": live}, {"judges": now}, digests)["judges"] == expected


def test_a_file_brings_no_revoked_key_back() -> None:
    app = {"id": "app", "hash": "1", "scopes": ["decide"]}
    said = core.digests({"keys": [app]})
    wider = {"keys": [app | {"scopes": ["decide", "admin"]}]}
    assert core.merged({"keys": []}, wider, said, ["1"])["keys"] == []
    rotated = app | {"hash": "2"}
    assert core.merged({"keys": [rotated]}, wider, said, ["1"])["keys"] == [rotated]
    fresh = {"keys": [app | {"hash": "4"}]}
    assert core.merged({"keys": []}, fresh, said, ["1"])["keys"] == fresh["keys"]
    graced = {"keys": [app | {"hash": "4", "old_hash": "1", "old_expires": "2030-01-01"}]}
    assert core.merged({"keys": []}, graced, said, ["1"])["keys"] == fresh["keys"]
    assert core.merged({"keys": []}, graced, said, [])["keys"] == graced["keys"]


def test_budgets_of_one_name_are_told_apart() -> None:
    one = {"scope": "tenant", "per": "day", "usd": 1.0, "id": "x"}
    assert list(core.named("budgets", [one, one, one])) == [
        "tenant x day",
        "tenant x day #2",
        "tenant x day #3",
    ]


# --- the sections of settings -----------------------------------------------------------------

TOML = """
[[upstreams]]
id = "p"
base_url = "http://127.0.0.1:9/v1"
key_env = "P_KEY"

[[arms]]
id = "m"
usd_per_mtok_in = 1.0
usd_per_mtok_out = 2.0
upstream = "p"

[[budgets]]
scope = "service"
per = "day"
usd = 5.0

[[judges]]
id = "words"
kind = "exact"

[[routes]]
id = "bot"
arms = ["m"]

[[metrics]]
name = "solved"
kind = "boolean"

[[policies]]
name = "eagle"
parameters = {blend = 0.25}

[reward]
ttl_s = 7200
"""
ENV = {"P_KEY": "secret-of-p"}


def _read(tmp_path: Path, text: str = TOML) -> settings.Settings:
    file = tmp_path / "bandit.toml"
    file.write_text(text)
    return settings.read(file, ENV)


def test_sections_are_read_back_as_what_they_were(tmp_path: Path) -> None:
    chosen = _read(tmp_path)
    sections = sections_of(chosen)
    assert sections["upstreams"] == [
        {"id": "p", "base_url": "http://127.0.0.1:9/v1", "key_env": "P_KEY"}
    ]
    assert "secret-of-p" not in repr(sections)
    assert sections["policies"] == [{"name": "eagle", "parameters": {"blend": 0.25}}]
    assert sections["settings"] == [{"name": "reward.ttl_s", "value": 7200.0}]
    assert with_sections(chosen, sections, chosen.arms, ENV) == chosen


def test_a_single_setting_takes_a_value_and_is_as_by_default_where_it_is_left_out(
    tmp_path: Path,
) -> None:
    chosen = _read(tmp_path)
    wanted = [{"name": "log_level", "value": "debug"}, {"name": "duels.share", "value": 1}]
    changed = with_sections(chosen, {"settings": wanted}, chosen.arms, ENV)
    assert (changed.log_level, changed.duels.share) == ("debug", 1.0)
    assert changed.reward.ttl_s == settings.Settings().reward.ttl_s
    assert sections_of(changed)["settings"] == wanted
    assert replace(changed, log_level="info", duels=chosen.duels, reward=chosen.reward) == chosen


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        ({"name": "server.port", "value": 1}, "settings[0].name: 'server.port' takes a restart"),
        ({"name": "reward.tll_s", "value": 1}, "did you mean reward.ttl_s?"),
        ({"name": "reward.ttl_s", "value": "1"}, "settings[0].value: must be a number from 1"),
        ({"name": "reward.ttl_s", "value": True}, "settings[0].value: must be a number from 1"),
        ({"name": "reward.on_expiry", "value": "dorp"}, "did you mean drop?"),
        ({"name": "reward.ttl_s"}, "settings[0].value"),
        ({"name": "duels.judge", "value": "nobody"}, "duels.judge: there is no [[judges]]"),
    ],
)
def test_what_is_wrong_with_a_single_setting_is_told(
    tmp_path: Path, entry: dict[str, Any], mistake: str
) -> None:
    chosen = _read(tmp_path)
    with pytest.raises(settings.BadSettings) as bad:
        with_sections(chosen, {"settings": [entry]}, chosen.arms, ENV)
    assert mistake in "; ".join(bad.value.mistakes)


def test_a_setting_is_there_once_and_a_share_not_beside_a_floor(tmp_path: Path) -> None:
    chosen = _read(tmp_path, TOML + "[exploration]\nfloor = 0.01\n")
    share = {"name": "exploration.share", "value": 0.1}
    with pytest.raises(settings.BadSettings) as bad:
        with_sections(chosen, {"settings": [share, share]}, chosen.arms, ENV)
    told = "; ".join(bad.value.mistakes)
    assert "settings[1].name: duplicate name" in told
    assert "or the floor of each, not both" in told


def test_every_setting_is_live_or_reloaded_or_takes_a_restart() -> None:
    known = settings.rules()
    assert set(LIVE) | set(RELOADED) | set(at_a_start()) == set(known)
    assert len(LIVE) + len(RELOADED) + len(at_a_start()) == len(known)


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    chosen = _read(tmp_path)
    wrong = {
        "upstreams": [{"id": "q", "base_url": "ftp://x", "key_env": "NO_SUCH"}],
        "budgets": [{"scope": "serivce", "per": "day", "usd": -1.0}],
        "judges": [{"id": "j", "kind": "regex"}, {"id": "k", "kind": "exact", "routes": ["bott"]}],
        "routes": [{"id": "bot", "arms": ["n"]}],
        "metrics": [{"name": "solved", "wieght": 1}],
    }
    with pytest.raises(settings.BadSettings) as raised:
        with_sections(chosen, wrong, chosen.arms, ENV)
    places = [each.split(":")[0] for each in raised.value.mistakes]
    assert places == [
        "upstreams[0].base_url",
        "upstreams[0].key_env",
        "budgets[0].scope",
        "budgets[0].usd",
        "judges[0].pattern",
        "metrics[0].wieght",
        "arms.m.upstream",
        "routes[0].arms",
        "judges[0].routes",
    ]


def test_of_too_many_routes_no_more_are_checked_than_there_may_be(tmp_path: Path) -> None:
    chosen = _read(tmp_path)
    wrong = {"routes": [{"id": f"r{i}", "policy": "nope"} for i in range(1000)]}
    with pytest.raises(settings.BadSettings) as raised:
        with_sections(chosen, wrong, chosen.arms, ENV)
    assert raised.value.mistakes[0] == f"routes: must have at most {MAX_ROUTES}, got 1000"
    assert len(raised.value.mistakes) == 1 + MAX_ROUTES


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {"Authorization": "Bearer x"}},
        {"auth_header": "x-mine", "headers": {"X-Mine": "x"}},
        {"query": {"api_key": "x"}},
        {"headers": {"Ocp-Apim-Subscription-Key": "x"}},
        {"query": {"X-Amz-Security-Token": "x"}},
        {"base_url": "https://me:Bearer@h/v1"},
    ],
)
def test_no_secret_comes_into_the_log(tmp_path: Path, more: dict[str, Any]) -> None:
    chosen = _read(tmp_path)
    upstream = sections_of(chosen)["upstreams"][0] | more
    with pytest.raises(settings.BadSettings, match="a secret may not stand"):
        with_sections(chosen, {"upstreams": [upstream]}, chosen.arms, ENV)
    told = shown(sections_of(chosen) | {"upstreams": [upstream]})["upstreams"]
    assert "Bearer" not in repr(told)
    assert "(hidden)" in repr(told)


OTHER = '[[upstreams]]\nid = "o"\nbase_url = "http://h/v1"\nheaders = { X-Team = "a" }\n'


@pytest.mark.parametrize(
    ("literal", "said"),
    [
        (
            'auth_header = "x-api-key"\nheaders = { X-Team = "b", x-api-key = "hush" }',
            'upstreams.p.headers.x-api-key ({}, line 9): .*write key_env = "P_KEY" and '
            'auth_header = "x-api-key" in its place, and restart the service',
        ),
        (
            '[upstreams.headers]\nX-Team = "b"\n"Authorization" = "Bearer hush"',
            'upstreams.p.headers.Authorization ({}, line 10): .*without "Bearer"',
        ),
        ('query = { token = "hush" }', "upstreams.p.query.token ({}, line 8): .*by a header"),
    ],
)
def test_a_secret_in_the_file_is_told_with_its_line_and_what_to_write(
    tmp_path: Path, literal: str, said: str
) -> None:
    """Nothing can be changed while it is there, so the error must say how to get rid of it."""
    chosen = _read(tmp_path, OTHER + TOML.lstrip().replace('key_env = "P_KEY"', literal))
    more = {"budgets": [{"scope": "service", "per": "day", "usd": 9.0}]}
    with pytest.raises(settings.BadSettings) as refused:
        with_sections(chosen, more, chosen.arms, ENV)
    (mistake,) = refused.value.mistakes
    begin, _, end = said.partition(": .*")
    assert mistake.startswith(begin.format(tmp_path / "bandit.toml") + ": ")
    assert end in mistake
    assert "hush" not in mistake


def test_a_start_takes_the_log_where_the_file_has_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P_KEY", "secret-of-p")
    chosen, world = _read(tmp_path), _world()
    assert in_force(chosen, world) is chosen
    before = {name: tuple(each) for name, each in sections_of(chosen).items()}
    more = ({"scope": "service", "per": "day", "usd": 9.0},)
    said = core.digests(before)
    _changed(world, 1, sections={"budgets": more}, before=before, file=said)
    assert [each.usd for each in in_force(chosen, world).budgets] == [9.0]
    changed = _read(tmp_path, TOML.replace("usd = 5.0", "usd = 7.0"))
    assert [each.usd for each in in_force(changed, world).budgets] == [7.0]
    hour = TOML + '[[budgets]]\nscope = "service"\nper = "hour"\nusd = 1.0\n'
    both = in_force(_read(tmp_path, hour), world).budgets
    assert [(each.per, each.usd) for each in both] == [("day", 9.0), ("hour", 1.0)]
    assert in_force(replace(chosen, from_file=True), world).budgets == chosen.budgets


def test_a_start_is_refused_where_the_log_has_what_is_not_there(tmp_path: Path) -> None:
    chosen, world = _read(tmp_path), _world()
    before = {name: tuple(each) for name, each in sections_of(chosen).items()}
    more = (*before["upstreams"], {"id": "q", "base_url": "http://h/v1", "key_env": "NO_SUCH"})
    said = core.digests(before)
    _changed(world, 1, sections={"upstreams": more}, before=before, file=said)
    with pytest.raises(settings.BadSettings, match=r"NO_SUCH.*revision 1.*--from-file"):
        in_force(chosen, world)
    literal = TOML.replace('key_env = "P_KEY"', 'query = { key = "x" }')
    with pytest.raises(settings.BadSettings, match=r"query\.key \(.*, line 5\): .*restart"):
        in_force(replace(_read(tmp_path, literal), from_file=True), world)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"old_hash": "ab"}, "old_hash"),
        ({"old_hash": "ab" * 32}, "old_expires"),
        ({"old_expires": "2030-01-01"}, "old_expires"),
        ({"old_hash": "ab" * 32, "old_expires": "soon"}, "old_expires"),
    ],
)
def test_an_old_key_has_an_end(fields: dict[str, str], place: str) -> None:
    key = msgspec.structs.replace(keys.ApiKey(id="k", hash="cd" * 32, scopes=("read",)), **fields)
    with pytest.raises(ValueError, match=f"^{place}: "):
        keys.check_key(key)


def test_an_old_key_is_good_until_its_end() -> None:
    key = keys.ApiKey(
        id="k", hash="cd" * 32, scopes=("read",), old_hash="ab" * 32, old_expires="1970-01-02"
    )
    assert keys.is_good(key, "cd" * 32, 1e9)
    assert keys.is_good(key, "ab" * 32, 86_399.0)
    assert not keys.is_good(key, "ab" * 32, 86_400.0)


def test_the_page_lists_the_settings_that_can_change() -> None:
    page = Path(__file__).parents[2] / "docs" / "live-configuration.md"
    (told,) = re.findall(r"<!-- live -->(.*)<!-- /live -->", page.read_text("utf-8"), re.DOTALL)
    assert tuple(re.findall(r"`(.+?)`", told)) == LIVE


@pytest.mark.parametrize("section", ["settings", "budgets"])
def test_true_is_not_taken_for_the_1_that_is_there(section: str) -> None:
    there: dict[str, dict[str, Any]] = {
        "settings": {"name": "reward.ttl_s", "value": 1.0},
        "budgets": {"scope": "service", "per": "day", "usd": 1.0},
    }
    entry, field = there[section], "value" if section == "settings" else "usd"
    chosen = settings.Settings()
    chosen = with_sections(chosen, {section: [entry]}, chosen.arms, {})
    assert with_sections(chosen, {section: [entry | {field: 1}]}, chosen.arms, {}) == chosen
    with pytest.raises(settings.BadSettings, match=rf"{section}\[0\]\.{field}: must be a number"):
        with_sections(chosen, {section: [entry | {field: True}]}, chosen.arms, {})
