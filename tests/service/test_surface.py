"""The surface features of a query's text: where they are kept, and where they are not."""

from __future__ import annotations

from pathlib import Path

from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core import events as ev
from bandit_service.embedding import surface
from tests.service.running import Client, a_vector, serving

ARMS = ("mistral-large-2512", "gemini-2.5-pro")


def _kept(data: Path) -> list[ev.AnyEvent]:
    log = assembly.open_log(settings.read(None, {"BANDIT_DATA_DIR": str(data)}))
    try:
        return [ev.decode(body) for _, body in log.replay() if body]
    finally:
        log.close()


async def _sent(client: Client, path: str, **body: object) -> None:
    status, answer = await client.post(path, body)
    assert (status, answer["results"][0]["status"]) == (200, "accepted")


def _holders(data: Path, marked: bytes) -> list[Path]:
    files = (path for path in data.rglob("*") if path.is_file())
    return [path for path in files if marked in path.read_bytes()]


async def test_what_is_sent_as_text_is_kept_with_its_surface(tmp_path: Path, models: Path) -> None:
    data = tmp_path / "var"
    async with serving(data, models) as client:
        asked = await client.decide(query="Which is larger, 9.11 or 9.9?", explain=True)
        again = await client.decide(query="Which is larger, 9.11 or 9.9?")
        turns = [{"role": "system", "content": "x_y"}, {"role": "user", "content": "Sort [3, 1]"}]
        await client.decide(messages=turns)
        await client.decide(embedding=a_vector(1))
        await _sent(client, "/v1/rewards", query="Why?", arm=ARMS[0], quality=1.0)
        await _sent(client, "/v1/rewards", embedding=a_vector(2), arm=ARMS[0], quality=1.0)
        await _sent(client, "/v1/comparisons", query="How?", winner=ARMS[0], loser=ARMS[1])
        _, told = await client.get(f"/v1/decisions/{again['decision_id']}")
        assert "surface" not in str(asked) + str(told)
    kept = _kept(data)
    question = surface("Which is larger, 9.11 or 9.9?")
    decided = [event.surface for event in kept if isinstance(event, ev.Decided)]
    assert decided == [question, question, surface("Sort [3, 1]"), b""]
    subjects = [event.subject for event in kept if isinstance(event, ev.Rewarded | ev.Compared)]
    assert [of.surface for of in subjects if of] == [surface("Why?"), b"", surface("How?")]


async def test_the_surface_of_an_erased_query_is_nowhere_any_more(
    tmp_path: Path, models: Path
) -> None:
    text, data = "Erase_me: A) 12, 13; (b. 14) or not?", tmp_path / "var"
    async with serving(data, models) as client:
        await client.decide(query=text, unit="someone")
        await client.decide(query="Another text.", unit="other")
        await _sent(client, "/v1/rewards", query=text, arm=ARMS[0], quality=1.0, unit="someone")
        await client.post("/v1/snapshots", {})
        assert _holders(data, surface(text))
        assert (await client.call("DELETE", "/v1/units/someone"))[1] == {"erased": 2}
        assert _holders(data, surface(text)) == []
        assert _holders(data, surface("Another text."))
