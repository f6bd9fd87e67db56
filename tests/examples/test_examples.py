"""Each example of docs/examples.md, run as it stands there."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bandit_client import Client
from tests.examples.conftest import EXAMPLES, ROOT, Ran, environ
from tests.service.provider import ARMS, COST, Provider, a_gateway
from tests.tools import needed

PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


def test_every_example_is_on_the_page_and_every_link_of_it_is_there() -> None:
    shown = {
        path.relative_to(ROOT).as_posix()
        for path in EXAMPLES.iterdir()
        if path.suffix in (".py", ".ipynb") or (path / "pyproject.toml").is_file()
    }
    linked = {each.rstrip("/") for each in re.findall(r"\]\(\.\./(examples/[^)#]+)\)", PAGE)}
    assert shown <= linked
    assert all((ROOT / each).exists() for each in linked)


@contextmanager
def _thumbs(directory: Path, url: str) -> Iterator[str]:
    """The FastAPI application on a port that is free; its address once it listens."""
    command = [sys.executable, "fastapi_thumbs.py"]
    env = environ(BANDIT_URL=url, PORT="0", PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        command, cwd=directory, env=env, stderr=subprocess.PIPE, text=True
    ) as app:
        assert app.stderr is not None
        try:
            for line in app.stderr:
                if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                    yield found[1]
                    return
            raise AssertionError("it ended before it listened")
        finally:
            app.terminate()
            app.communicate(timeout=60)


def _posted(url: str, body: Any) -> tuple[int, Any]:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def test_thumbs_in_fastapi_teach_the_router(
    copied: Path, models: Path, tmp_path: Path, service: str
) -> None:
    needed("fastapi")
    async with a_gateway(tmp_path, models) as (client, provider):
        await asyncio.to_thread(_press_thumbs, copied, client.url, provider)
    await asyncio.to_thread(_ask_in_vain, copied, service)


def _press_thumbs(copied: Path, url: str, provider: Provider) -> None:
    with Client(url) as client, _thumbs(copied, url) as app:
        with urllib.request.urlopen(app, timeout=60) as page:
            html = page.read().decode()
        assert "<form>" in html
        assert not re.search(r"(?:src|href)=", html)  # nothing of elsewhere
        status, answer = _posted(f"{app}/ask", {"text": "What is 17 * 23?"})
        assert status == 200, answer
        assert answer["text"] == f"I am {answer['model']}"
        assert provider.seen[-1]["messages"] == [{"role": "user", "content": "What is 17 * 23?"}]
        newest = client.decisions(limit=1).decisions[0]
        assert newest.arm == answer["model"]
        assert (newest.signals or {})["cost_usd"] == pytest.approx(COST)
        for vote, quality in (("up", 1.0), ("down", 0.0)):
            assert _posted(f"{app}/vote", {"token": answer["token"], "vote": vote})[0] == 200
            signals = client.decision(newest.decision_id).signals or {}
            assert signals["quality"] == quality
        assert _posted(f"{app}/vote", {"token": answer["token"], "vote": "neutral"})[0] == 200
        assert "quality" not in (client.decision(newest.decision_id).signals or {})
        status, refused = _posted(f"{app}/vote", {"token": "AAAA", "vote": "up"})
        assert status in (400, 403)
        assert refused["error"]
        assert _posted(f"{app}/vote", {"token": answer["token"], "vote": "maybe"})[0] == 422
        assert _posted(f"{app}/ask", {"text": ""})[0] == 422
        for arm in ARMS:
            provider.behaviour[arm] = "rejected"
        status, refused = _posted(f"{app}/ask", {"text": "What now?"})
        assert (status, refused) == (400, {"error": "bad tool"})


def _ask_in_vain(copied: Path, service: str) -> None:
    with _thumbs(copied, service) as app:  # which has no model to ask
        status, refused = _posted(f"{app}/ask", {"text": "Anybody there?"})
        assert (status, refused["error"].partition(":")[0]) == (
            503,
            "no callable arm has an upstream",
        )
    with _thumbs(copied, "http://127.0.0.1:9") as app:
        assert _posted(f"{app}/ask", {"text": "Anybody there?"})[0] == 503


def test_scores_of_langfuse_become_rewards(copied: Path, service: str, run: Ran) -> None:
    with Client(service) as client:
        by_trace, by_name, twice, other = (client.decide(f"Question {i}") for i in range(4))

        def score(trace: str, value: Any, name: str = "helpful", **more: Any) -> dict[str, Any]:
            return {"id": str(uuid.uuid4()), "traceId": trace, "name": name, "value": value} | more

        traces = [{"id": "old-trace", "metadata": {"decision_id": by_name.decision_id}}]
        scores = [
            score(by_trace.decision_id.replace("-", ""), 5, dataType="NUMERIC"),
            score("old-trace", 2),
            score(twice.decision_id.replace("-", ""), 1, updatedAt="2026-01-01T00:00:00Z"),
            score(twice.decision_id.replace("-", ""), 4, updatedAt="2026-01-02T00:00:00Z"),
            score(other.decision_id.replace("-", ""), 5, name="tone"),
            score("of-nobody", 3),
            score(other.decision_id.replace("-", ""), 9),
            score(uuid.uuid4().hex, 3),
        ]
        (copied / "scores.jsonl").write_text("\n".join(map(json.dumps, scores)))
        (copied / "traces.json").write_text(json.dumps({"data": traces, "meta": {"page": 1}}))
        words = ["scores.jsonl", "traces.json", "--name", "helpful", "--scale", "1", "5"]
        done = run("langfuse_rewards.py", *words, BANDIT_URL=service)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "accepted: 3",
            "unknown: 1",
            "left out, another score than helpful: 1",
            "left out, its trace is of no decision: 1",
            "left out, no number from 1 to 5: 1",
        ]
        for decision, quality in ((by_trace, 1.0), (by_name, 0.25), (twice, 0.75)):
            assert client.decision(decision.decision_id).signals == {"quality": quality}
        assert client.decision(other.decision_id).signals == {}
        again = run("langfuse_rewards.py", *words, BANDIT_URL=service)
        assert again.stdout.startswith("duplicate: 3\n"), again.stdout
        scores[0]["value"] = 3
        (copied / "scores.jsonl").write_text("\n".join(map(json.dumps, scores)))
        changed = run("langfuse_rewards.py", *words, BANDIT_URL=service)
        assert changed.stdout.startswith("accepted: 1\nduplicate: 2\n"), changed.stdout
        assert client.decision(by_trace.decision_id).signals == {"quality": 0.5}
    (copied / "scores.jsonl").write_text("[1, 2]")
    wrong = run("langfuse_rewards.py", *words, BANDIT_URL=service)
    assert wrong.returncode == 2
    assert "scores.jsonl: must have JSON objects, got 1" in wrong.stderr
    away = run("langfuse_rewards.py", "traces.json", "--name", "x", BANDIT_URL="nowhere")
    assert away.returncode != 0


@pytest.mark.long
def test_an_ab_test_begins_and_ends_and_can_be_run_again(run: Ran, service: str) -> None:
    needed("pareto_bandit")
    done = run("ab_test.py", BANDIT_URL=service, USERS="320")
    assert done.returncode == 0, done.stderr
    early, late = done.stdout.split("after 320 users:")
    assert "Not enough data" in early
    assert re.search(r"today: \d+ users, reward 0\.\d+", late)
    assert re.search(r"difference [+-]0\.\d+ \([+-]\d\.\d+ to [+-]\d\.\d+\)", late)
    assert "stopped: " in late
    again = run("ab_test.py", BANDIT_URL=service, USERS="20")
    assert again.returncode == 0, again.stderr


@pytest.mark.long
def test_the_proof_says_what_its_interval_says(run: Ran, few: str) -> None:
    done = run("my_policy_wins.py", SEEDS="2", DATA=few)
    assert done.returncode == 0, done.stderr
    kept, head, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"slopes keeps \d+ laws", kept)
    assert int(kept.split()[2]) > 20
    assert head.startswith(f"{few}, 2 orders: mean reward of slopes 0.")
    assert [line.split()[0] for line in lines] == ["nested", "epsilon_greedy"]
    mine = float(head.split()[-1])
    for line in lines:
        found = re.fullmatch(r"  \w+ (\S+), difference (\S+) ± (\S+): (.+)", line)
        assert found is not None, line
        theirs, mean, half = map(float, found.groups()[:3])
        assert mine - theirs == pytest.approx(mean, abs=2e-4)
        says = "better" if mean > half else "worse" if -mean > half else "no difference shown"
        assert found[4] == says


def test_the_proof_refuses_a_policy_that_breaks_a_law(copied: Path, run: Ran) -> None:
    path = copied / "mine" / "slopes.py"
    honest = path.read_text(encoding="utf-8")
    broken = honest.replace("(state.length or len(x))", "len(x)")  # any length will do
    assert broken != honest
    path.write_text(broken, encoding="utf-8")
    done = run("my_policy_wins.py", SEEDS="2", DATA="specialists")
    assert done.returncode != 0
    assert "AssertionError" in done.stderr
    assert done.stdout == ""
    one = run("my_policy_wins.py", SEEDS="1")
    told = "SEEDS: must be a number from 2 up, got '1': one order has no interval\n"
    assert one.stderr == told


def test_what_the_reproduction_cannot_use_is_one_line(run: Ran) -> None:
    assert run("reproduce_eagle.py", SEEDS="x").stderr == (
        "SEEDS: must be a number from 1 up, got 'x'\n"
    )
    misspelt = run("reproduce_eagle.py", DATA="specialist").stderr
    assert misspelt.startswith("DATA: specialist: ")
    assert misspelt.endswith("did you mean specialists?\n")


@pytest.mark.long
def test_eagle_is_measured_beside_the_papers_baselines(run: Ran, few: str) -> None:
    done = run("reproduce_eagle.py", SEEDS="1", DATA=few)
    assert done.returncode == 0, done.stderr
    assert f"{few}, split 1 of 1: Eagle" in done.stderr
    name, head, *rows = done.stdout.strip().splitlines()
    assert name == few
    assert " ".join(head.split()) == "router log-WTP AUC AUC s at 70% s at 85% s at 100%"
    assert [row.split()[0] for row in rows[:4]] == ["Eagle", "kNN", "MLP", "SVM"]
    areas = {row.split()[0]: float(row.split()[1]) for row in rows[:4]}
    gains = re.findall(r"(kNN|MLP|SVM) ([+-]\d+\.\d)%", rows[4].partition("(paper")[0])
    assert len(gains) == 3
    for other, gain in gains:
        assert float(gain) == pytest.approx(100 * (areas["Eagle"] / areas[other] - 1), abs=0.1)
