"""M, N and O over sockets: hostile upstreams and clients, credentials, the record, what metrics and logs may say."""

from __future__ import annotations

import asyncio
import base64
import json
import re

import aiohttp
import openai
import pytest

from firewall.errors import Mistakes
from firewall.guards.scripted import ScriptedGuard
from firewall.proxy import metrics
from firewall.proxy.records import verify
from tests.story.oracles import (
    CHAT,
    MESSAGES,
    Line,
    asks,
    audited,
    body_of,
    clean,
    head_of,
    leaks,
    post,
    raw,
    secrets_in,
    settled,
    status,
    untouched,
)
from tests.story.upstream import CLOSE, END, HEAD, Upstream, chat, chat_events, chunk, delta, stream, whole

STREAM = asks(stream=True)


# M. credentials and hosts

@pytest.mark.parametrize("code", [300, 301, 302, 303, 307, 308])
async def test_m01_redirects_are_not_followed(story, canary, code):
    """Neither key nor body reaches the other origin; 502."""
    async with Upstream([[whole(chat("elsewhere"))]]) as evil:
        head = f"HTTP/1.1 {code} X\r\nlocation: {evil.url}/v1/chat/completions\r\ncontent-length: 0\r\n\r\n".encode()
        async with story([head]) as s:
            got = await raw(s, post(asks(), extra=f"X-Api-Key: {canary}\r\n"))
            assert status(got) == 502 and b"location" not in got.lower() and evil.url.encode() not in got
            assert not evil.raw
            assert audited(s, "failed")[0]["code"] == "upstream_redirect"


async def test_m03_m07_nothing_of_a_request_chooses_a_host_a_tenant_or_a_trace(story):
    """Fourteen headers that gateways have obeyed; here none of them has an effect, and none travels."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in {
        "X-Upstream": "http://127.0.0.1:1", "X-Portkey-Custom-Host": "http://127.0.0.1:1", "X-Forwarded-Host": "evil",
        "Forwarded": "host=evil;for=6.6.6.6", "X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6",
        "X-Tenant-Id": "evil", "Traceparent": "evil", "X-Request-Id": "evil", "X-Original-URL": "/evil",
        "X-Rewrite-URL": "/evil", "X-HTTP-Method-Override": "GET", "Range": "bytes=0-1",
        "Accept-Encoding": "br"}.items())
    async with story([whole(chat("x"))]) as s:
        plain, odd = await raw(s, post(asks())), await raw(s, post(asks(), extra=extra))
        assert status(plain) == status(odd) == 200 and "evil" not in odd.decode()
        one, two = s.upstream.seen
        assert one.head == two.head
        assert len({r["tenant"] for r in audited(s, "passed", "passed")}) == 1
        assert "evil" not in s.log.read_text() and "6.6.6.6" not in s.log.read_text()


async def test_m05_only_the_configured_key_travels(story, monkeypatch, canary):
    """Whatever header, query or scheme a client puts a key into."""
    monkeypatch.setenv("OUR_KEY", "sk-ours-1")
    async with story([whole(chat("x"))], upstream={"key": "env:OUR_KEY"}) as s:
        for name in ("Authorization: Bearer {}", "Authorization: Basic {}", "X-Api-Key: {}", "Api-Key: {}",
                     "X-Goog-Api-Key: {}", "Proxy-Authorization: {}", "Cookie: k={}", "X-Amz-Security-Token: {}"):
            await raw(s, post(asks(), extra=name.format(canary) + "\r\n"))
        await raw(s, post(asks(), f"{CHAT}?key={canary}&api_key={canary}"))
        assert not leaks(bytes(s.upstream.raw), canary) and s.upstream.raw.count(b"sk-ours-1") == 9
        assert not secrets_in([canary, "sk-ours-1"], s.log)


async def test_m05_keys_of_clients_are_for_the_firewall_alone(story, monkeypatch):
    """client-keys: without one 401 before the body is read; with one it stays here, though no upstream key is set."""
    monkeypatch.setenv("TEAM_KEY", "team-key-4711")
    async with story([whole(chat("x"))], server={"client_keys": ("TEAM_KEY",)}) as s:
        for extra in ("", "Authorization: Bearer team-key-471\r\n", "X-Api-Key: team-key-47111\r\n",
                      "Authorization: \r\n"):
            got = await raw(s, post(asks(), extra=extra))
            assert status(got) == 401 and b"team-key" not in got and untouched(s)
        got = await raw(s, post(asks(), extra="Authorization: Bearer team-key-4711\r\n"))
        assert status(got) == 200 and b"team-key" not in bytes(s.upstream.raw)
        assert not secrets_in(["team-key-4711"], s.log)
        audited(s, *["refused"] * 4, "passed")


async def test_m09_cookies_of_the_upstream_are_neither_kept_nor_passed_on(story):
    async with story([whole(chat("x"), extra=b"set-cookie: s=1; Domain=x\r\nset-cookie2: t=2\r\n")]) as s:
        for _ in range(2):
            assert "cookie" not in head_of(await raw(s, post(asks())))
        assert b"cookie" not in bytes(s.upstream.raw).lower()


async def test_m11_switching_certificate_checks_off_is_recorded(story):
    """The comment in firewall.toml promises it; tests/proxy/http1/test_tls.py shows that checks are on."""
    async with story([whole(chat("x"))], upstream={"url": "https://127.0.0.1:1", "verify": False}) as s:
        assert status(await raw(s, post(asks()))) == 502
        assert s.record()["unverified"] is True
    s.log.unlink()
    async with story([whole(chat("x"))]) as s:
        await raw(s, post(asks()))
        assert s.record()["unverified"] is False


async def test_m13_ids_are_ours(story):
    async with story([whole(chat("x"))]) as s:
        ids = [head_of(await raw(s, post(asks(), extra="X-Request-Id: mine\r\n"))) for _ in range(2)]
        found = {re.search(r"x-request-id: (req_[0-9a-f]{24})", head).group(1) for head in ids}     # type: ignore[union-attr]
        assert len(found) == 2 and found == {r["id"] for r in s.records()}


async def test_m15_the_admin_plane_reads_only_and_leaks_nothing(story, canary, capfd):
    """Loopback by default; no method changes anything; a malformed credential is echoed nowhere."""
    from firewall.config import Config
    assert Config().server.admin.startswith("127.0.0.1:") and Config().server.listen.startswith("127.0.0.1:")
    async with story([whole(chat("x"))]) as s, aiohttp.ClientSession() as http:
        port = s.firewall.admin_port
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for path in ("/livez", "/readyz", "/metrics", "/policies", "/config", "/reload"):
                async with http.request(method, f"http://127.0.0.1:{port}{path}", data=b"{}") as r:
                    assert r.status in (404, 405)
        for bad in (f"GET /readyz HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {canary}\x01\r\n\r\n",
                    f"GET /{canary} HTTP/1.1\r\nHost: a\r\n\r\n", f"{canary}\r\n\r\n"):
            got = await raw(s, bad.replace("Host: a", "Host: a\r\nConnection: close").encode(), 5.0, port)
            assert 400 <= status(got) < 500 and canary.encode() not in got, got
        async with http.get(f"http://127.0.0.1:{port}/metrics") as r:
            assert canary not in await r.text()
        await asyncio.sleep(0.05)
        out = capfd.readouterr()
        assert canary not in out.out + out.err


# N. the record

async def test_n01_each_ending_has_exactly_one_record(story, canary):
    """allow, block in, block out, redact, refused, malformed, failed upstream, failed guard, gone: one line each."""
    held = asyncio.Event()
    async with story([whole(chat("x"))], [whole(chat(f"say {canary}"))], [whole(b"{", 200)], [whole(chat("x"), 500)],
                     [HEAD, *map(chunk, chat_events("a")[:2]), held, CLOSE]) as s:
        async with clean(s):
            assert status(await raw(s, post(asks()))) == 200                                # passed
            assert b"content_filter" in await raw(s, post(asks()))                          # blocked on output
            assert status(await raw(s, post(asks()))) == 502                                # unreadable upstream
            assert status(await raw(s, post(asks()))) == 500                                # its own error, judged
            assert status(await raw(s, post(asks(canary)))) == 400                          # blocked on input
            assert status(await raw(s, post(b"{"))) == 400                                  # malformed JSON
            assert status(await raw(s, b"GARBAGE\r\n\r\n")) == 400                          # malformed HTTP
            assert status(await raw(s, post(asks(), "/v1/files"))) == 404                   # refused at the head
            assert status(await raw(s, post(asks(), method="GET"))) == 404
            assert status(await raw(s, post(asks(), method="HEAD"))) == 404
            reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
            writer.write(post(STREAM))
            await reader.readuntil(b'"a"')
            writer.close()                                                                  # gone mid-stream
            await settled(s, 11)
            s.guard.mode = "hang"
            _, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
            writer.write(post(asks()))
            while not s.firewall.app.tasks:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            writer.close()                                                                  # gone while judged
            await settled(s, 12)
            s.guard.mode = "dead"
            assert status(await raw(s, post(asks()))) == 503                                # guard down
            held.set()
        rows = audited(s, "passed", "passed", "blocked", "blocked", *["failed"] * 2, *["refused"] * 5, "gone", "gone")
        assert {r["decision"] for r in rows if r["ending"] == "gone" and r["input"] == "unjudged"} == {"unjudged"}
        assert not leaks(s.log.read_bytes(), canary)


@pytest.mark.parametrize("after", [0, 1, 5, 60, 200])
async def test_n01_a_client_that_leaves_at_once(story, after):
    """Whatever moment a client picks, also before its task began: one record per whole request, none lost."""
    guard = ScriptedGuard(delay=0.02)
    async with story([HEAD, *map(chunk, chat_events(*"abcdef")), 0.05, END], guard=guard) as s, clean(s):
        for _ in range(10):
            _, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
            writer.write(post(STREAM))
            await writer.drain()
            await asyncio.sleep(after / 1000)
            writer.transport.abort() if after % 2 else writer.close()
        await settled(s, 10)
        rows = s.records()
        assert len(rows) == (10 if after else len(rows))
        assert {r["ending"] for r in rows} <= {"gone", "passed"}, [(r.get("code"), r.get("detail")) for r in rows]


async def test_n01_pipelined_and_then_gone(story, canary):
    """Five requests in one write, the client leaves in the middle of the second answer: no answer without a record."""
    go = asyncio.Event()
    async with story([whole(chat("one"))], [HEAD, *map(chunk, chat_events("two")[:2]), go, CLOSE]) as s, clean(s):
        reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
        writer.write(b"".join(post(body, close=False) for body in (asks(), STREAM, asks(canary), asks(), asks())))
        await reader.readuntil(b'"two"')
        writer.close()
        await settled(s, 2)
        await asyncio.sleep(0.1)
        audited(s, "passed", "gone")
        assert len(s.upstream.seen) == 2 and s.upstream.seen[1].closed_at
        go.set()


async def test_a_connection_goes_on_after_a_block_and_the_upstream_one_does_not(story, canary):
    """Keep-alive: a blocked request, a blocked stream, then clean ones; no byte of a stopped answer comes later."""
    late = [HEAD, *map(chunk, chat_events("fine ", canary)[:3]), 0.2, chunk(delta(content="late words")), 5.0, END]
    async with story(late, [whole(chat("clean"))]) as s, Line(s) as line:
        assert (await line.ask(asks(canary)))[0] == 400
        code, got = await line.ask(STREAM)
        assert code == 200 and b"content_filter" in got and b"late" not in got
        for _ in range(3):
            code, got = await line.ask(asks())
            assert code == 200 and json.loads(got)["choices"][0]["message"]["content"] == "clean"
        await asyncio.sleep(0.1)
        assert s.upstream.seen[0].closed_at
        audited(s, "blocked", "blocked", "passed", "passed", "passed")


async def test_n03_any_tampering_is_found_and_named(story):
    """A flipped byte, a deleted, swapped, inserted and repeated line; verify names the first wrong one."""
    async with story([whole(chat("x"))]) as s:
        for _ in range(6):
            await raw(s, post(asks()))
        lines = s.log.read_bytes().splitlines(keepends=True)
        assert verify(s.log) == 6
        broken = s.log.with_name("broken")
        for edit, number in ((lambda r: [*r[:2], r[2].replace(b'"passed"', b'"failed"'), *r[3:]], 3),
                             (lambda r: [*r[:2], *r[3:]], 3), (lambda r: [r[0], r[2], r[1], *r[3:]], 2),
                             (lambda r: [*r[:4], r[1], *r[4:]], 5), (lambda r: r[1:], 1),
                             (lambda r: [*r[:5], r[5][:-20]], 6), (lambda r: [*r, b"{}\n"], 7)):
            broken.write_bytes(b"".join(edit(lines)))
            with pytest.raises(Mistakes, match=f"broken:{number}:"):
                verify(broken)


async def test_n05_n07_n19_no_content_and_no_key_anywhere(story, canary, tmp_path, capfd):
    """Twelve carriers of secrets and words of both directions: no file, stream, metric or error body holds them."""
    secrets = {name: f"{name}{canary}" for name in (
        "bearer", "xapi", "api", "goog", "query", "cookie", "proxy", "sig", "token", "body", "azure", "basic", "prompt",
        "answer", "upstream")}
    extra = (f"Authorization: Bearer {secrets['bearer']}\r\nX-Api-Key: {secrets['xapi']}\r\n"
             f"Api-Key: {secrets['api']}\r\n"
             f"X-Goog-Api-Key: {secrets['goog']}\r\nCookie: s={secrets['cookie']}\r\n"
             f"Proxy-Authorization: Basic {base64.b64encode(secrets['proxy'].encode()).decode()}\r\n"
             f"X-Amz-Security-Token: {secrets['token']}\r\n"
             f"X-Amz-Authorization: AWS4-HMAC-SHA256 Signature={secrets['sig']}\r\n")
    bodies = [asks(secrets["prompt"]), asks(api_key=secrets["body"]), asks(user=secrets["basic"]),
              asks(data_sources=[{"parameters": {"authentication": {"key": secrets["azure"]}}}]),
              b'{"messages": [{"role":"user","content":"' + secrets["prompt"].encode() + b'"}], "x": NaN}',
              b'{"' + secrets["body"].encode() + b'": 1, "' + secrets["body"].encode() + b'": 2}']
    guard = ScriptedGuard({secrets["answer"]: "canary/1"})
    async with story([whole({"error": {"message": f"Incorrect API key provided: {secrets['upstream']}"}}, 401)],
                     [whole(chat(f"words {secrets['answer']}"))], [whole(b'{"x":"' + secrets["answer"].encode(), 200)],
                     guard=guard) as s:
        answers = [await raw(s, post(body, f"{CHAT}?key={secrets['query']}", extra)) for body in bodies * 3]
        page = metrics.page()
        out = capfd.readouterr()
        errors = b"".join(a for a in answers if status(a) != 200) + b"".join(body_of(a) for a in answers[3:])
        everything = [name for name in secrets.values()]
        assert secrets_in(everything, s.log, page, out.out, out.err, errors, tmp_path) == []
        assert not re.search(r"canary|Says the word", body_of(answers[0]).decode())     # N19: no policy text either
        assert len(s.records()) == len(answers)


@pytest.mark.parametrize("name", ["m\n{\"event\":\"exchange\"}", "\x1b[31mred", "a\u2028b\u2029c", "m" * 200, "x y", "",
                                  "\u0000"])
async def test_n11_a_model_name_cannot_write_into_the_record(story, name):
    async with story([whole(chat("x"))]) as s:
        got = await raw(s, post(asks() | {"model": name}, extra="User-Agent: a\tb\r\n"))
        assert status(got) in (200, 400)
        text = s.log.read_text()
        assert len(text.splitlines()) == 1 and "\x1b" not in text and len(s.records()) == 1
        assert s.records()[0]["model"] in ("?", "")


def series() -> set[str]:
    """Names and labels of everything that is counted."""
    return {line.rpartition(" ")[0] for line in metrics.page().decode().splitlines() if not line.startswith("#")}


@pytest.mark.parametrize("count", [40, pytest.param(3400, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
async def test_n15_labels_are_bounded(story, count):
    """Random models, paths, tenants and types make no new label values."""
    async with story([whole(chat("x"))]) as s, Line(s) as line:
        await line.ask(asks())
        await raw(s, post(asks(), "/v1/a"))
        s.firewall.house.gauge()        # its labels appear with the first scrape
        before = series()
        for i in range(count):
            await line.ask(asks() | {"model": f"m{i}"}, extra=f"Authorization: Bearer k{i}\r\nUser-Agent: u{i}\r\n")
            await raw(s, post(asks(), f"/v1/{i}"))
        assert series() == before
        assert len({r["tenant"] for r in s.records()}) == count + 1


async def test_n24_everything_adds_up(story, canary):
    """Requests = records = sum of verdicts = what the upstream saw + what was answered here."""
    def counted() -> float:
        return sum(float(line.rsplit(b" ", 1)[1]) for line in metrics.page().splitlines()
                   if line.startswith(b"firewall_exchanges_total{"))
    async with story([whole(chat("x"))]) as s, clean(s):
        before = counted()
        async with Line(s) as line:
            for i in range(60):
                await line.ask(asks(canary if i % 3 == 0 else "hi") if i % 5 else b"[]")
        rows = s.records()
        local = sum(r["ending"] in ("blocked", "refused") for r in rows)
        assert len(rows) == 60 == counted() - before == len(s.upstream.seen) + local


async def test_sdk_retries_where_it_should_and_not_on_a_block(story, canary):
    """A block is final (x-should-retry: false); a guard that comes back is worth the retry that 503 asks for."""
    async with story([whole(chat("x"))]) as s:
        client = s.openai(max_retries=3)
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(**asks(canary))
        assert len(s.records()) == 1
        s.guard.mode = "dead"
        task = asyncio.create_task(client.chat.completions.create(**asks()))
        await settled(s, 2)
        s.guard.mode = "ok"
        assert (await task).choices[0].message.content == "x"
        audited(s, "blocked", "failed", "passed")


async def test_o04_two_clients_are_two_tenants_and_neither_name_says_its_key(story):
    async with story([whole(chat("x"))]) as s:
        for key in ("sk-a", "sk-b", "sk-a"):
            await raw(s, post(asks(), extra=f"Authorization: Bearer {key}\r\n"))
        one, two, three = (r["tenant"] for r in s.records())
        assert one == three != two and re.fullmatch("[0-9a-f]{16}", one)
        assert {case.tenant for case in s.guard.seen} == {one, two}
        assert len({case.boundary for case in s.guard.seen}) == 3       # I01: fences differ in each exchange


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/responses", "/api/chat",
                                  "/v1beta/models/m:generateContent", "/x"])
async def test_errors_speak_the_clients_dialect(story, path):
    """C24: the envelope of the path's API for a body that is none, and never a word of it."""
    async with story([whole(chat("x"))]) as s:
        got = await raw(s, post(b'{"secretword": ', path))
        body = json.loads(body_of(got))
        assert status(got) in (400, 404) and "error" in body and b"secretword" not in got
        if path == MESSAGES:
            assert body["type"] == "error" and body["error"]["type"] == "invalid_request_error"
        if path.startswith("/v1beta"):
            assert body["error"]["code"] == 400 and body["error"]["status"] == "INVALID_ARGUMENT"


async def test_g_streams_after_a_drain_of_one_connection(story):
    """A stream on a connection that also pipelines the next request: both whole, in order."""
    async with story(stream(chat_events("first")), [whole(chat("second"))]) as s:
        got = await raw(s, post(STREAM, close=False) + post(asks()))
        assert got.index(b"first") < got.index(b"[DONE]") < got.index(b"second")
        audited(s, "passed", "passed")
