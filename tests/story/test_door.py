"""At the door, over raw sockets: routes, bodies, credentials, redirects, drain. Areas B, C, K, L, M."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import time

import pytest

from firewall.guards.scripted import ScriptedGuard
from tests.story.upstream import HEAD, chat, chat_events, chunk, stream, whole

OK = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()


async def raw(s, data: bytes, timeout: float = 5.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), timeout)
    finally:
        writer.close()


def post(body: bytes, path: str = "/v1/chat/completions", extra: str = "", kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n{extra}Connection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def error(answer: bytes) -> dict:
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]


@pytest.mark.parametrize(("path", "code"), [
    ("/v1/foo", 404), ("/v1//chat/completions", 404), ("/v1/chat/completions/", 404), ("/v1/chat/%63ompletions", 404),
    ("/v1/messages/batches", 404), ("/v1/responses/input_tokens", 404), ("/v1/files", 404), ("/", 404),
    ("/v1/embeddings", 404), ("/openai/deployments/d/chat/completions?api-version=1", 404), ("/v1/realtime", 404)])
async def test_unknown_paths_are_refused_here(story, path, code):
    async with story([whole(chat("x"))]) as s:
        got = await raw(s, post(OK, path))
        assert status(got) == code and not s.upstream.seen
        assert b"endpoint_not_allowed" in got or b"not_found" in got
        assert s.record()["ending"] == "refused"


async def test_the_upstream_path_is_ours_and_unknown_queries_are_dropped(story):
    async with story([whole(chat("x"))]) as s:
        assert status(await raw(s, post(OK, "/v1/chat/completions?api_base=http://evil&x=1"))) == 200
        assert s.upstream.seen[0].line == b"POST /v1/chat/completions HTTP/1.1"


@pytest.mark.parametrize("kind", ["text/plain", "", "multipart/form-data"])
async def test_other_media_types(story, kind):
    async with story([whole(chat("x"))]) as s:
        assert status(await raw(s, post(OK, kind=kind))) == 415 and not s.upstream.seen


@pytest.mark.parametrize("body", [
    b'{"messages":[{"role":"user","content":"x"}],"messages":[]}', b'{"mess\\u0061ges":1,"messages":[]}',
    b'{"messages":[],"a":NaN}', b'{"messages":[],"a":Infinity}', b'{"messages":[],"a":1e400}', b'{"messages":[],"a":01}',
    b'{"messages":[],"a":99999999999999999999}', b'{"messages":[{"role":"user","content":"\\ud800"}]}',
    b'\xef\xbb\xbf{"messages":[]}', '{"messages":[]}'.encode("utf-16"), b'{"messages":[{"content":"\xff"}]}',
    b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", b"[" * 100_000, b'{"messages":[]} {}', b'{"messages":[],}', b"[]", b"1", b"",
    b'{"messages":[]}//', b'{"Messages":[],"messages":[]}', b"{\"" + b"k" * 300 + b"\":1}"])
async def test_strict_bodies(story, body):
    async with story([whole(chat("x"))]) as s:
        got = await raw(s, post(body))
        assert status(got) in (400, 413) and error(got)["type"] == "invalid_request_error" and not s.upstream.seen
        assert s.record()["ending"] == "refused"


async def test_big_arrays_and_bombs_are_cheap(story):
    async with story([whole(chat("x"))]) as s:
        began = time.perf_counter()
        assert status(await raw(s, post(b'{"a":[' + b"[]," * 2_000_000 + b"[]]}"))) in (400, 413)
        bomb = gzip.compress(b'{"a":"' + bytes(200_000_000) + b'"}', 9)
        assert status(await raw(s, post(bomb, extra="Content-Encoding: gzip\r\n"))) == 413
        assert time.perf_counter() - began < 30 and not s.upstream.seen     # seconds are for benchmarks; not minutes


async def test_gzip_is_decoded_and_judged_and_others_refused(story):
    async with story([whole(chat("x"))]) as s:
        bad = json.dumps({"model": "m", "messages": [{"role": "user", "content": s.canary}]}).encode()
        assert status(await raw(s, post(gzip.compress(bad), extra="Content-Encoding: gzip\r\n"))) == 400
        for coding in ("br", "gzip, gzip", "x-gzip", "deflate"):
            assert status(await raw(s, post(OK, extra=f"Content-Encoding: {coding}\r\n"))) == 415
        assert not s.upstream.seen


async def test_too_large_by_length_is_refused_without_reading(story):
    async with story([whole(chat("x"))], limits={"body": 1000}) as s:
        got = await raw(s, b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                           b"Content-Length: 100000\r\n\r\n" + b"x" * 100)
        assert status(got) == 413 and s.record()["code"]


async def test_our_key_replaces_the_clients_and_no_cookie_or_forwarding_header_travels(story, monkeypatch):
    monkeypatch.setenv("TEST_UPSTREAM_KEY", "sk-ours-5931")
    async with story([whole(chat("x"), extra=b"set-cookie: a=b\r\nx-evil: 1\r\n")],
                     upstream={"key": "env:TEST_UPSTREAM_KEY"}) as s:
        got = await raw(s, post(OK, extra="Authorization: Bearer sk-client-77\r\nX-Api-Key: sk-other-88\r\nCookie: c=1\r\n"
                                "X-Forwarded-For: 1.2.3.4\r\nX-Upstream: http://evil\r\nTraceparent: junk\r\n"))
        sent = bytes(s.upstream.raw).lower()
        assert b"authorization: bearer sk-ours-5931" in sent and b"accept-encoding: identity" in sent
        for word in (b"sk-client-77", b"sk-other-88", b"cookie", b"1.2.3.4", b"evil", b"junk"):
            assert word not in sent, word
        assert b"set-cookie" not in got.lower() and b"x-evil" not in got.lower()
        assert b"sk-ours" not in got and "sk-" not in s.log.read_text()         # O-secret
        assert status(await raw(s, post(OK))) == 200 and b"c=1" not in bytes(s.upstream.raw)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(story, code):
    async with story([b"HTTP/1.1 %d X\r\nlocation: http://127.0.0.1:1/steal\r\ncontent-length: 0\r\n\r\n" % code]) as s:
        got = await raw(s, post(OK))
        assert status(got) == 502 and b"steal" not in got and len(s.upstream.seen) == 1
        assert s.record()["fault"] == "upstream"


async def test_client_keys(story, monkeypatch):
    monkeypatch.setenv("TEAM_KEY", "team-1")
    async with story([whole(chat("x"))], server={"client_keys": ("TEAM_KEY",)}) as s:
        assert status(await raw(s, post(OK))) == 401
        assert status(await raw(s, post(OK, extra="Authorization: Bearer team-2\r\n"))) == 401
        assert status(await raw(s, post(OK, extra="Authorization: Bearer team-1\r\n"))) == 200
        assert b"team-1" not in bytes(s.upstream.raw) and "team-1" not in s.log.read_text()


@pytest.mark.parametrize("extra", [{"n": 128}, {"best_of": 99}, {"top_logprobs": 21}])
async def test_amplification_is_capped(story, extra):
    async with story([whole(chat("x"))]) as s:
        assert status(await raw(s, post(json.dumps(json.loads(OK) | extra).encode()))) == 400 and not s.upstream.seen


GEMINI, SAY = "/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}
OLLAMA = {"model": "m", "stream": False, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(("path", "body", "param"), [
    ("/v1/messages", {**OLLAMA, "max_tokens": 101}, "max_tokens"),
    ("/v1/responses", {"model": "m", "input": "hi", "max_output_tokens": 101}, "max_output_tokens"),
    ("/v1/chat/completions", {**OLLAMA, "min_tokens": 101}, "min_tokens"),
    (GEMINI, {**SAY, "generationConfig": {"maxOutputTokens": 101}}, "generationConfig.maxOutputTokens"),
    (GEMINI, {**SAY, "generation_config": {"max_output_tokens": 101}}, "generation_config.max_output_tokens"),
    (GEMINI, {**SAY, "generationConfig": {"candidateCount": 3}}, "generationConfig.candidateCount"),
    ("/api/chat", {**OLLAMA, "options": {"num_predict": 101}}, "options.num_predict"),
    ("/api/chat", {**OLLAMA, "Options": {"num_predict": -1}}, "options.num_predict"),
    ("/api/generate", {"model": "m", "prompt": "hi", "options": {"num_predict": -2}}, "options.num_predict"),
    ("/v1/completions", {"model": "m", "prompt": ["a"] * 2, "best_of": 3}, "best_of"),
])
async def test_every_dialect_is_capped_where_it_says_what_it_asks_for(story, path, body, param):
    async with story([whole({})], limits={"candidates": 2, "output_tokens": 100}) as s:
        got = await raw(s, post(json.dumps(body).encode(), path))
        assert status(got) == 400 and f"`{param}`".encode() in got and not s.upstream.seen
        assert s.record()["code"] == "limit_exceeded"


@pytest.mark.parametrize(("path", "body"), [
    (GEMINI, {**SAY, "generationConfig": {"maxOutputTokens": 100, "candidateCount": 2}}),
    ("/api/chat", {**OLLAMA, "options": {"num_predict": 100, "temperature": 0}}),
    ("/v1/completions", {"model": "m", "prompt": ["a"] * 9, "n": 2, "max_tokens": 100, "logprobs": 1}),
    ("/v1/chat/completions", {**OLLAMA, "n": 2, "max_completion_tokens": None, "logprobs": True}),
])
async def test_what_the_caps_allow_goes_on(story, path, body):
    async with story([whole({"error": {}}, 400)], limits={"candidates": 2, "output_tokens": 100}) as s:
        await raw(s, post(json.dumps(body).encode(), path))
        assert s.record()["upstream_status"] == 400


async def test_a_cap_may_be_raised_and_lifted(story):
    for most in (0, 64):
        async with story([whole(chat("x"))], limits={"candidates": most}) as s:
            assert status(await raw(s, post(json.dumps(json.loads(OK) | {"n": 64}).encode()))) != 400 and s.upstream.seen


async def test_fifty_pipelined_requests_the_25th_blocked(story):
    """A23."""
    async with story([whole(chat("x"))]) as s:
        bad = OK.replace(b"hi", s.canary.encode())
        one = [post(bad if i == 24 else OK).replace(b"Connection: close\r\n", b"" if i < 49 else b"Connection: close\r\n")
               for i in range(50)]
        got = await raw(s, b"".join(one), 20)
        codes = [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]
        assert codes == [200] * 24 + [400] + [200] * 25
        assert sorted(r["ending"] for r in s.records()) == ["blocked"] + ["passed"] * 49


async def test_malformed_authorization_is_not_echoed_anywhere(story, capfd):
    async with story([whole(chat("x"))]) as s:
        got = await raw(s, post(OK, extra=f"Authorization: Bearer {s.canary}\x01\r\n"))
        assert status(got) == 400 and s.canary.encode() not in got and not s.upstream.seen
        out = capfd.readouterr()
        assert s.canary not in out.out + out.err + s.log.read_text()
        assert s.record()["ending"] == "refused"


async def test_upstream_errors_are_judged_and_denials_are_generic(story):
    async with story([whole({"error": {"message": "rate limited, wait", "type": "rate", "code": "r"}}, 429,
                            b"retry-after: 7\r\n")],
                     [whole({"error": {"message": "Incorrect API key provided: sk-abc***xyz"}}, 401)]) as s:
        got = await raw(s, post(OK))
        assert status(got) == 429 and b"rate limited" in got and b"retry-after: 7" in got.lower()
        got = await raw(s, post(OK))
        assert status(got) == 401 and b"sk-abc" not in got


async def test_upstream_down_is_502_or_504_and_recorded(story):
    async with story([whole(chat("x"))], upstream={"url": "http://127.0.0.1:1"}) as s:
        got = await raw(s, post(OK))
        assert status(got) in (502, 504) and s.record()["fault"] == "upstream"


async def test_silent_upstream_times_out(story):
    async with story([HEAD, chunk(chat_events("a")[0]), 30.0], stream={"content_idle": 0.3}) as s:
        body = json.dumps(json.loads(OK) | {"stream": True}).encode()
        got = await raw(s, post(body))
        assert status(got) == 504 and s.record()["code"] == "upstream_timeout"


async def test_comments_do_not_reset_the_content_clock(story):
    script = [HEAD, *[x for _ in range(40) for x in (chunk(b": ping\n\n"), 0.05)]]
    async with story(script, stream={"content_idle": 0.4}) as s:
        body = json.dumps(json.loads(OK) | {"stream": True}).encode()
        assert status(await raw(s, post(body))) == 504


async def test_byte_equality_of_a_cleared_answer(story):
    events = chat_events("a", " b", " ünïcode", "\u2028 c")
    async with story(stream(events)) as s:
        body = json.dumps(json.loads(OK) | {"stream": True}).encode()
        got = await raw(s, post(body))
        payload, rest = b"", got.split(b"\r\n\r\n", 1)[1]
        while rest:
            size, rest = rest.split(b"\r\n", 1)
            payload, rest = payload + rest[:int(size, 16)], rest[int(size, 16) + 2:]
        assert payload == b"".join(events)


async def test_json_answer_to_a_stream_request_and_the_other_way_round(story, canary):
    """E18: by actual type."""
    async with story([whole(chat(canary))], stream(chat_events(canary))) as s:
        body = json.dumps(json.loads(OK) | {"stream": True}).encode()
        for request in (body, OK):
            got = await raw(s, post(request))
            assert s.canary.encode() not in got and b"content_filter" in got


async def test_unasked_encoding_and_unknown_types_fail_closed(story):
    zipped = gzip.compress(json.dumps(chat("x")).encode())
    async with story([b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: %d"
                      b"\r\n\r\n" % len(zipped) + zipped],
                     [b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"],
                     [b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-16\r\ncontent-length: 2\r\n\r\n{}"]
                     ) as s:
        for _ in range(3):
            assert status(await raw(s, post(OK))) == 502


async def test_policies_reload_and_a_broken_edit_keeps_the_last_good_set(story):
    import aiohttp
    async with story([whole(chat("x"))]) as s, aiohttp.ClientSession() as http:
        admin = f"http://127.0.0.1:{s.firewall.admin_port}"
        path = s.firewall.house.source.folder / "canary.md"
        before = s.firewall.house.policies.digest
        path.write_text("---\naction: blok\n---\n- rule\n")
        await asyncio.sleep(0.3)
        async with http.get(f"{admin}/readyz") as r:
            body = await r.json()
            assert r.status == 200 and body["policies"]["stale"] and "blok" not in str(body["policies"]["digest"])
            assert body["policies"]["digest"] == before and "canary.md:2" in body["policies"]["mistakes"][0]
        async with http.get(f"{admin}/metrics") as r:
            assert "firewall_policy_stale 1.0" in await r.text()
        path.write_text("---\nid: canary\n---\n- another rule\n")
        await asyncio.sleep(0.3)
        async with http.get(f"{admin}/readyz") as r:
            body = await r.json()
            assert not body["policies"]["stale"] and body["policies"]["digest"] != before
        async with http.get(f"{admin}/livez") as r:
            assert r.status == 200


async def test_drain_lets_streams_finish(story):
    async with story(stream(chat_events(*"abcdef"), 0.05)) as s:
        body = json.dumps(json.loads(OK) | {"stream": True}).encode()
        running = [asyncio.create_task(raw(s, post(body), 10)) for _ in range(20)]
        await asyncio.sleep(0.1)
        port = s.firewall.server.port
        await s.firewall.drain(0.0, 5.0)
        for got in await asyncio.gather(*running):
            assert b"[DONE]" in got
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        assert [r["ending"] for r in s.records()] == ["passed"] * 20


async def test_drain_out_of_time_ends_legally(story):
    async with story([HEAD, *(chunk(e) for e in chat_events("a")[:2]), 30.0]) as s:
        body = json.dumps(json.loads(OK) | {"stream": True}).encode()
        running = asyncio.create_task(raw(s, post(body), 10))
        await asyncio.sleep(0.2)
        await s.firewall.drain(0.0, 0.2)
        assert b'"error"' in await running and s.record()["code"] == "shutting_down"


async def test_unwritable_records_refuse_new_requests(story):
    """L13."""
    async with story([whole(chat("x"))]) as s:
        good, s.firewall.house.records.file = s.firewall.house.records.file, open("/dev/full", "wb", buffering=0)
        assert status(await raw(s, post(OK))) == 200        # its record cannot be written ...
        got = await raw(s, post(OK))                        # ... so the next is refused
        assert status(got) == 503 and error(got)["code"] == "audit_unavailable" and len(s.upstream.seen) == 1
        s.firewall.house.records.file.close()
        s.firewall.house.records.file = good
        assert status(await raw(s, post(OK))) == 200


async def test_overload_of_the_guard_is_503_at_once(story):
    """I12."""
    async with story([whole(chat("x"))], guard=ScriptedGuard(delay=0.5), limited={"slots": 1, "queue": 1}) as s:
        began = time.perf_counter()
        answers = [asyncio.create_task(raw(s, post(OK))) for _ in range(5)]
        done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert time.perf_counter() - began < 0.45
        first = next(iter(done)).result()
        assert status(first) == 503 and b"retry-after" in first.lower()
        assert sorted(status(a) for a in await asyncio.gather(*answers)).count(200) >= 1


def test_signals_reach_a_real_process(tmp_path):
    """L01, L03: SIGTERM drains and exits 0; port busy is one clear line."""
    import socket
    import subprocess
    import sys
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.md").write_text("- a rule\n")
    (tmp_path / "firewall.toml").write_text(
        f'[server]\nlisten="127.0.0.1:{port}"\nadmin="127.0.0.1:0"\ndrain-wait=0.1\n'
        '[upstream]\nurl="http://127.0.0.1:1"\n[policies]\nfolder="p"\n[guard]\nkind="scripted"\n')
    command = [sys.executable, "-m", "firewall", "--config", str(tmp_path / "firewall.toml")]
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stderr is not None
    assert '"serving"' in process.stderr.readline()
    second = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=30)
    assert second.returncode == 2 and "cannot listen" in second.stderr and "Traceback" not in second.stderr
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0 and "draining" in err, err
