"""A call on a pooled connection is what aiohttp's session would send, and is bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from bandit_service.gateway.allowance import Allowance
from bandit_service.gateway.calls import Calls, Connector, Deadline, Sent
from bandit_service.gateway.failures import Failed
from bandit_service.gateway.upstreams import Upstreams
from bandit_service.gateway.watch import Watch
from bandit_service.settings import GatewaySettings
from bandit_service.settings.upstreams import Upstream, UpstreamSpec

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: here=1; Path=/\r\n\r\n{}"
_BODY = b'{"model": "m"}'


@asynccontextmanager
async def _a_provider(seen: list[bytes], answer: bytes = _ANSWER) -> AsyncIterator[str]:
    """It ends when all who called it have hung up."""
    ended: list[asyncio.Future[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(end := asyncio.get_running_loop().create_future())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                seen.append(head + await reader.readexactly(int(length)))
                writer.write(answer)
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()
            end.set_result(None)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat?a=b"
        await asyncio.gather(*ended)


def _lines(request: bytes) -> tuple[bytes, list[bytes], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    return first, sorted(header.lower() for header in headers), body


async def test_it_is_the_request_that_a_session_sends() -> None:
    seen: list[bytes] = []
    spec = UpstreamSpec(id="p", base_url="http://x/v1", query={"api-version": "2"})
    headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}
    more = {"traceparent": "00-1"}
    async with _a_provider(seen) as url, aiohttp.ClientSession(connector=Connector()) as session:
        calls = Calls(session, 8190)
        head = calls.head(spec, url, headers)
        assert head is not None
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(connector=Connector(), cookie_jar=jar) as other:
            for sender in (session, other):
                sent = Sent()
                for again in (False, True):
                    if sender is session:
                        answer = await calls.post(head, more, _BODY, spec, sent)
                        assert sent.reused is again
                        assert (answer.status, await answer.content.read()) == (200, b"{}")
                    else:
                        given = await sender.post(
                            url, data=_BODY, headers=headers | more, params=spec.query
                        )
                        assert await given.read() == b"{}"
                    jar.clear()  # a session of the service keeps none of an address by number
    assert _lines(seen[0]) == _lines(seen[1]) == _lines(seen[2]) == _lines(seen[3])
    assert seen[0].startswith(b"POST /v1/chat?a=b&api-version=2 HTTP/1.1\r\n")


async def test_a_cookie_goes_back_to_who_gave_it() -> None:
    seen: list[bytes] = []
    spec = UpstreamSpec(id="p", base_url="http://x/v1")
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        _a_provider(seen) as url,
        aiohttp.ClientSession(connector=Connector(), cookie_jar=jar) as session,
    ):
        calls = Calls(session, 8190)
        head = calls.head(spec, url, {})
        assert head is not None
        for _ in range(2):
            answer = await calls.post(head, {}, _BODY, spec, Sent())
            await answer.content.read()
    assert [b"Cookie: here=1" in request for request in seen] == [False, True]


@pytest.mark.parametrize("name", ["X-Trace", "Authorization"])
async def test_a_line_break_in_a_header_is_refused(name: str) -> None:
    async with aiohttp.ClientSession(connector=Connector()) as session:
        calls, spec = Calls(session, 8190), UpstreamSpec(id="p", base_url="http://x/v1")
        with pytest.raises(ValueError, match="line break"):
            calls.head(spec, "http://127.0.0.1:1/v1", {name: "a\r\nHost: elsewhere"})


async def test_a_header_that_cannot_be_said_costs_no_connection() -> None:
    seen: list[bytes] = []
    async with _a_provider(seen) as url, aiohttp.ClientSession(connector=Connector()) as session:
        calls, spec = Calls(session, 8190), UpstreamSpec(id="p", base_url="http://x/v1")
        head = calls.head(spec, url, {})
        assert head is not None
        await (await calls.post(head, {}, _BODY, spec, Sent())).content.read()
        with pytest.raises(UnicodeEncodeError):
            await calls.post(head, {"traceparent": "\udce9"}, _BODY, spec, Sent())
        sent = Sent()
        await (await calls.post(head, {}, _BODY, spec, sent)).content.read()
    assert sent.reused


async def test_what_says_how_it_is_sent_is_left_to_the_session() -> None:
    async with aiohttp.ClientSession(connector=Connector()) as session:
        calls, spec = Calls(session, 8190), UpstreamSpec(id="p", base_url="http://x/v1")
        for url, headers in (
            ("http://user:word@127.0.0.1:1/v1", {}),
            ("http://127.0.0.1:1/v1", {"Transfer-Encoding": "chunked"}),
        ):
            assert calls.head(spec, url, headers) is None


async def test_a_head_that_takes_too_long_is_a_timeout_and_an_upstream_names_it() -> None:
    async with _a_provider([], answer=b"") as url:
        spec = UpstreamSpec(id="p", base_url=url.partition("?")[0], first_byte_s=0.05)
        upstreams = Upstreams({"p": Upstream(spec)})
        with pytest.raises(Failed, match=r"no answer within 0.05 s") as failed:
            await upstreams.begin("p", "/chat/completions", {}, {}, Allowance(GatewaySettings()))
        assert failed.value.timeout
        await upstreams.close()


async def test_a_call_takes_no_longer_than_its_request_may_and_the_error_says_so() -> None:
    async with _a_provider([], answer=b"") as url:
        upstreams = Upstreams({"p": Upstream(UpstreamSpec(id="p", base_url=url.partition("?")[0]))})
        for body in ({}, {"large": "x" * (1 << 20)}):  # one is sent by our head, one by aiohttp's
            allowance = Allowance(GatewaySettings(request_s=0.05))
            allowance.call()
            with pytest.raises(Failed, match=r"has taken 0.05 s \(gateway.request_s\)") as failed:
                await upstreams.begin("p", "/chat/completions", body, {}, allowance)
            assert (failed.value.timeout, failed.value.cut_short) == (True, False)
            allowance.call()
            with pytest.raises(Failed) as failed:  # no time is left at all
                await upstreams.begin("p", "/chat/completions", body, {}, allowance)
            assert failed.value.cut_short
        await upstreams.close()


async def test_each_wait_has_its_own_time_and_all_of_them_one() -> None:
    loop = asyncio.get_running_loop()
    watch = Watch(loop)
    deadline = Deadline(watch, wait_s=60.0, total_s=120.0)
    with deadline:
        await asyncio.sleep(0)
    deadline.wait_s = 0.01  # shorter than what the timer was set for
    with pytest.raises(TimeoutError), deadline:
        await loop.create_future()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    ended = Deadline(watch, wait_s=60.0, total_s=0.0)
    with pytest.raises(TimeoutError), ended:
        await asyncio.sleep(0)


async def test_waits_that_one_timer_watches_end_each_at_its_own_time() -> None:
    loop = asyncio.get_running_loop()
    watch, ended = Watch(loop), list[str]()

    async def waits(name: str, wait_s: float) -> None:
        with pytest.raises(TimeoutError), Deadline(watch, wait_s, total_s=60.0):
            await loop.create_future()
        ended.append(name)

    async def over(wait_s: float) -> None:
        with Deadline(watch, wait_s, total_s=60.0):
            await asyncio.sleep(0)

    each = {"third": 0.03, "first": 0.01, "second": 0.02}
    await asyncio.gather(*(waits(*one) for one in each.items()), over(0.001), over(60.0))
    assert ended == ["first", "second", "third"]
    await waits("later", 0.01)  # the timer had nothing to watch any more


async def test_who_else_cancels_is_heard() -> None:
    loop = asyncio.get_running_loop()

    async def waits(deadline: Deadline) -> None:
        with deadline:
            await loop.create_future()

    task = asyncio.create_task(waits(Deadline(Watch(loop), wait_s=60.0, total_s=60.0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
