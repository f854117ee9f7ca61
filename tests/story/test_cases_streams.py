"""E and G over sockets: hostile upstream streams, and what a client sees around a verdict.

Small scaled times; every story ends with the audit oracle.
"""

from __future__ import annotations

import asyncio
import json

import anthropic
import openai
import pytest

from firewall.guards.scripted import ScriptedGuard
from tests.story.oracles import CHAT, MESSAGES, Line, asks, audited, body_of, leaks, post, raw, settled, status
from tests.story.upstream import (
    CLOSE,
    END,
    HEAD,
    chat,
    chat_events,
    chunk,
    delta,
    event,
    message_events,
    stream,
    whole,
)

DONE = b"data: [DONE]\n\n"
EOF_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
STREAM = asks(stream=True)


def text_of(answer: bytes) -> str:
    """Words of a chat stream."""
    out = ""
    for line in answer.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:]).get("choices", ()):
                out += choice.get("delta", {}).get("content") or ""
    return out


# E. what upstreams do

@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_e01_e03_e05_any_line_end_any_segment(story, end, size):
    """Byte for byte the same, with comments, lone fields and a byte order mark of silence between."""
    events = chat_events("ünï ", "\u2028code")
    data = b"".join([b": ping\n\n", events[0], b"id: 7\nretry: 10\n\n", *events[1:]])
    data = data.replace(b"\n", end)
    parts = [data[i:i + size] for i in range(0, len(data), size)]
    async with story([HEAD, *map(chunk, parts), END]) as s:
        got = await raw(s, post(STREAM))
        assert status(got) == 200 and body_of(got) == data
        audited(s, "passed")


async def test_e07_one_document_over_several_data_lines(story, canary):
    """The pieces are joined by a line end, as the standard says, and judged joined."""
    row = json.dumps(json.loads(delta(content=canary)[6:]), indent=1)
    lines = "".join(f"data: {part}\n" for part in row.split("\n")).encode() + b"\n"
    async with story([HEAD, chunk(chat_events("a")[0]), chunk(lines), chunk(delta("stop")), chunk(DONE), END]) as s:
        got = await raw(s, post(STREAM))
        assert not leaks(got, canary) and b"content_filter" in got
        audited(s, "blocked")


CUTS = {
    "eof between events": [EOF_HEAD, *chat_events("said ", "held")[:3], CLOSE],
    "eof in an event": [EOF_HEAD, *chat_events("said ")[:2], delta(content="held")[:40], CLOSE],
    "chunks cut": [HEAD, *map(chunk, chat_events("said ")[:2]), b"ff\r\ndata: {", CLOSE],
    "length cut": [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n",
                   *chat_events("said ")[:2], CLOSE],
    "framing whole, no end": [HEAD, *map(chunk, chat_events("said ")[:2]), END],
    "framing whole, half an event": [
        HEAD, *map(chunk, chat_events("said ")[:2]), chunk(delta(content="held")[:40]), END],
}


@pytest.mark.parametrize("name", sorted(CUTS))
@pytest.mark.parametrize("release", ["rolling", "whole"])
async def test_e10_streams_cut_short(story, name, release):
    """An error terminator, held text withheld, `upstream_truncated`; the official SDK raises and does not crash."""
    async with story(CUTS[name], stream={"release": release}) as s:
        with pytest.raises(openai.APIError):
            answer = await s.openai().chat.completions.create(**STREAM)
            async for _ in answer:
                pass
        [row] = audited(s, "failed")
        assert row["fault"] == "upstream" and row["code"] in ("upstream_truncated", "upstream_protocol"), row["code"]


@pytest.mark.parametrize("keep", [1, 3, 4, 5])
async def test_e10_anthropic_cut_short(story, keep):
    events = message_events("one ", "two")[:keep]
    async with story([HEAD, *map(chunk, events), END]) as s:
        with pytest.raises(anthropic.APIError):
            async with s.anthropic().messages.stream(**asks()) as answer:
                async for _ in answer:
                    pass
        [row] = audited(s, "failed")
        assert row["code"] == "upstream_truncated"


async def test_e12_an_event_without_end(story):
    """A line of one MiB and more: aborted, and what is held meanwhile stays bounded."""
    piece = b"x" * 65_536
    script = [HEAD, chunk(chat_events("a")[0]), chunk(b"data: {\"a\":\""), *[chunk(piece)] * 64, 5.0, CLOSE]
    async with story(script) as s:
        got = await raw(s, post(STREAM))
        assert len(got) < 4096 and s.upstream.seen[0].closed_at
        [row] = audited(s, "failed")
        assert row["fault"] == "upstream" and row["code"] != "upstream_timeout"


@pytest.mark.parametrize("bad", [b"data: {\"choices\": [\n\n", b"data: nonsense\n\n", b"data: [1]\n\n",
                                 b"data: {} {}\n\n",
                                 b"data: {\"a\":NaN}\n\n", b"data: {\"a\":1,\"a\":2}\n\n", b"data: \xff\xfe\n\n",
                                 b"data: {\"a\":\"\\ud800\"}\n\n", b"data: " + b"[" * 70 + b"]" * 70 + b"\n\n"])
async def test_e14_an_unreadable_event_is_neither_skipped_nor_piped(story, bad):
    script = [HEAD, *map(chunk, chat_events("said ")[:2]), chunk(bad), chunk(delta(content="after")), chunk(DONE), END]
    async with story(script) as s:
        got = await raw(s, post(STREAM))
        assert b"after" not in got and bad.strip() not in got
        audited(s, "failed")


async def test_e16_errors_inside_a_stream(story, canary):
    """OpenAI's and Anthropic's in-band errors reach the SDK as errors; their words are judged like all others."""
    quiet, loud = {"error": {"message": "overloaded, retry", "type": "server_error", "code": "x"}}, {
        "error": {"message": f"see {canary}", "type": "server_error", "code": "x"}}
    for body, ending in ((quiet, ("passed", "failed")), (loud, ("blocked", "failed"))):
        line = b"data: " + json.dumps(body).encode() + b"\n\n"
        async with story([HEAD, *map(chunk, chat_events("a")[:2]), chunk(line), chunk(DONE), END]) as s:
            client = s.openai()
            try:
                async for _ in await client.chat.completions.create(**STREAM):
                    pass
            except openai.APIError as e:
                assert canary not in str(e) and canary not in str(e.body)
            else:
                assert body is loud, "an in-band error must not look like an answer"
            await settled(s, 1)
            rows = s.records()
            assert len(rows) == 1 and rows[0]["ending"] in ending
            s.log.unlink()
    lines = [*message_events("a")[:3], event("error", error={"type": "overloaded_error", "message": f"no {canary}"})]
    async with story([HEAD, *map(chunk, lines), END]) as s:
        got = await raw(s, post(STREAM, MESSAGES))
        assert not leaks(got, canary)
        await settled(s, 1)


async def test_e20_azure_first_and_usage_last(story):
    """Empty `choices` with prompt filter results, and the usage chunk, come through unchanged."""
    first = b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{' \
            b'"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}\n\n'
    usage = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":' \
            b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
    events = [first, *chat_events("hi")[:-1], usage, DONE]
    async with story(stream(events)) as s:
        parts = [p async for p in await s.openai().chat.completions.create(**STREAM)]
        assert parts[0].choices == [] and parts[-1].usage.total_tokens == 3
        assert body_of(await raw(s, post(STREAM))) == b"".join(events)
        audited(s, "passed", "passed")


async def test_e27_tool_deltas_with_odd_indexes(story, canary):
    """Index starting at 1, id and name only once; whole calls leave, the bad one does not."""
    def tool(index: int, **more: object) -> bytes:
        return delta(tool_calls=[{"index": index, **more}])
    good = [tool(1, id="a", type="function", function={"name": "f", "arguments": ""}),
            tool(1, function={"arguments": '{"x":'}), tool(1, function={"arguments": "1}"}), delta("tool_calls"), DONE]
    bad = [*good[:3], tool(2, id="b", type="function", function={"name": "g", "arguments": '{"y":"' + canary[:6]}),
           tool(2, function={"arguments": canary[6:] + '"}'}), delta("tool_calls"), DONE]
    first = delta(role="assistant", content=None)
    async with story(stream([first, *good]), stream([first, *bad])) as s:
        calls = ""
        async for part in await s.openai().chat.completions.create(**STREAM):
            for call in (part.choices[0].delta.tool_calls or ()) if part.choices else ():
                calls += call.function.arguments or ""
        assert calls == '{"x":1}'
        got = await raw(s, post(STREAM))
        assert not leaks(got, canary) and canary[:6].encode() not in got and b"content_filter" in got
        audited(s, "passed", "blocked")


# G. around the verdict

@pytest.mark.parametrize("width", [1, 3, 14, 40])
async def test_g01_g03_nothing_from_the_first_withheld_character_on(story, canary, width):
    """The canary at every offset around the cuts, rolling and whole: the client holds a clean prefix, never more."""
    for release in ("rolling", "whole"):
        async with story([], stream={"release": release}) as s, Line(s) as line:
            for before in range(0, 2 * width + 2, max(1, width // 7)):
                text = "ab" * before
                text = text[:before] + canary + "tail" * 3
                parts = [text[i:i + width] for i in range(0, len(text), width)]
                s.upstream.scripts = [stream(chat_events(*parts))]
                code, answer = await line.ask(STREAM)
                got = text_of(answer)
                assert code == 200 and text[:before].startswith(got), (before, got)
                assert not leaks(answer, canary) and b'"stop"' not in answer and b"content_filter" in answer
            audited(s, *["blocked"] * len(s.records()))
            s.log.unlink()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_g05_the_verdict_precedes_the_end(story, canary, path):
    """A guard that thinks while the last events wait: no finish reason of the model's leaves before its verdict."""
    events = chat_events("so ", canary) if path == CHAT else message_events("so ", canary)
    async with story(stream(events), guard=ScriptedGuard({canary: "canary/1"}, delay=0.15)) as s:
        got = await raw(s, post(STREAM, path))
        assert not leaks(got, canary)
        assert b'"end_turn"' not in got and b'"stop"' not in got
        assert (b"content_filter" if path == CHAT else b"refusal") in got
        audited(s, "blocked")


async def test_g13_two_hundred_streams_keep_their_own_words(story):
    """Unique words in each request and answer; no foreign one ever appears."""
    async with story([]) as s:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            word = json.loads(await reader.readexactly(size))["messages"][0]["content"]
            writer.write(HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            for data in chat_events("mine: ", word[:9], word[9:]):
                writer.write(chunk(data))
                await asyncio.sleep(0.01)
            writer.write(END)
            await writer.drain()
            writer.close()
        server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=512)
        pool = s.firewall.house.upstreams["openai"].pool
        object.__setattr__(pool.origin, "port", server.sockets[0].getsockname()[1])
        words = [f"word-{i:03}-{i * 7919:08x}" for i in range(200)]
        got = await asyncio.gather(*(raw(s, post(asks(w, stream=True)), 30) for w in words))
        for word, answer in zip(words, got, strict=True):
            assert text_of(body_of(answer)) == f"mine: {word}", answer[:600]
            assert sum(text_of(body_of(answer)).count(w) for w in words) == 1
        audited(s, *["passed"] * 200)
        server.close()


async def test_g16_ten_thousand_empty_deltas_cost_no_questions(story):
    events = [*chat_events("hi")[:2], *[delta(content="")] * 10_000, *chat_events("")[-2:]]
    blob = b"".join(events)
    parts = [blob[i:i + 60_000] for i in range(0, len(blob), 60_000)]
    async with story([HEAD, *map(chunk, parts), END]) as s:
        got = await raw(s, post(STREAM), 30)
        assert body_of(got) == blob
        [row] = audited(s, "passed")
        assert row["asks"] <= 6, row["asks"]


@pytest.mark.parametrize("sized", [True, False])
async def test_g18_a_hanging_guard_releases_nothing(story, sized):
    """The deadline turns silence into a failure: 503 before the first byte, a legal error after it."""
    go = asyncio.Event()
    events = chat_events("seen ", "unseen")
    script = stream(events) if not sized else [HEAD, *map(chunk, events[:2]), go, *map(chunk, events[2:]), END]
    async with story(script, limited={"deadline": 0.3}) as s:
        if not sized:
            s.guard.mode = "hang"
            got = await raw(s, post(STREAM))
            assert status(got) == 503 and s.upstream.seen == []
            [row] = audited(s, "failed")
            assert row["code"] == "guard_timeout" and row["decision"] == "error"
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
        writer.write(post(STREAM))
        got = await reader.readuntil(b"seen ")
        s.guard.mode = "hang"
        go.set()
        got += await asyncio.wait_for(reader.read(), 5)
        assert b"unseen" not in got and b'"error"' in got and got.endswith(b"0\r\n\r\n")
        writer.close()
        [row] = audited(s, "failed")
        assert row["code"] == "guard_timeout" and row["cleared"] < row["came"]


@pytest.mark.parametrize("action", ["flag", "block"])
async def test_g22_monitoring_changes_no_byte(story, canary, action):
    """`watch` and `action: flag`: the bytes of the direct answer, the violation in the record, never called a block."""
    events = chat_events("bad ", canary, " end")
    more = {"stream": {"release": "watch"}} if action == "block" else {}
    async with story(stream(events), action=action, **more) as s:
        got = await raw(s, post(asks("clean", stream=True)))
        assert body_of(got) == b"".join(events)
        [row] = audited(s, "passed")
        assert (row["output"], row["rules"], row["decision"]) == ("flag", ["canary/1"], "flag")


async def test_watch_is_about_prompts_too(story, canary):
    """Who switches it on to watch production for a week blocks nothing, whatever becomes of the guard. `/v1/moderations`
    is an answer about words: none without a verdict."""
    async with story([whole(chat("fine"))], stream={"release": "watch"}) as s:
        got = await raw(s, post(asks(f"say {canary}")))
        assert status(got) == 200 and b"x-firewall-decision: flag" in got and b"x-firewall-policy: canary/1" in got
        s.guard.mode = "dead"
        got = await raw(s, post(asks("clean")))
        assert status(got) == 200 and b"x-firewall-decision: flag" in got
        assert status(await raw(s, post({"input": "clean"}, "/v1/moderations"))) == 503
        first, second, _ = audited(s, "passed", "passed", "failed")
        assert (first["input"], first["rules"], first["release"]) == ("flag", ["canary/1"], "watch")
        assert second["input"] == "flag" and second["errors"]


@pytest.mark.parametrize(("stream_release", "own", "release"), [
    ("watch", "rolling", "rolling"), ("watch", "whole", "whole"), ("whole", "rolling", "rolling"),
    ("rolling", "whole", "whole"), ("rolling", "watch", "watch"), ("whole", "watch", "watch")])
async def test_a_policys_own_release_wins(story, canary, stream_release, own, release):
    policy = f"---\nrelease: {own}\n---\n## Violates\n- `canary/1` Says the word.\n"
    async with story(stream(chat_events("bad ", canary)), policy=policy, stream={"release": stream_release}) as s:
        got, asked = await raw(s, post(STREAM)), await raw(s, post(asks(f"say {canary}")))
        assert (canary.encode() in got, status(asked)) == ((True, 200) if own == "watch" else (False, 400))
        row = s.records()[0]
        assert row["release"] == release and row["decision"] == ("flag" if own == "watch" else "block")


async def test_an_answer_leaves_as_the_strictest_of_its_policies_says(story, canary):
    policy = "---\nrelease: watch\n---\n## Violates\n- `canary/1` Says the word.\n"
    async with story(stream(chat_events("bad ", canary)), policy=policy, stream={"release": "whole"}) as s:
        (s.firewall.house.source.folder / "b.md").write_text("- another rule\n")
        s.firewall.house.source.refresh(force=True)
        got = await raw(s, post(STREAM))
        row = s.record()
        assert canary.encode() in got and (row["release"], row["decision"]) == ("whole", "flag")


@pytest.mark.parametrize("mode", ["dead", "hang", "crash", "lie"])
async def test_watch_survives_its_guard_and_says_what_it_did_not_see(story, mode):
    """A monitoring firewall never stops traffic, never hangs on its guard, never says allow for the unseen."""
    go = asyncio.Event()
    events = chat_events("a", "b", "c")
    async with story([HEAD, *map(chunk, events[:2]), go, *map(chunk, events[2:]), END],
                     stream={"release": "watch"}, limited={"deadline": 0.2}) as s:
        task = asyncio.create_task(raw(s, post(STREAM)))
        while not s.upstream.seen:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        s.guard.mode = mode
        go.set()
        assert body_of(await task) == b"".join(events)
        await settled(s, 1)
        [row] = audited(s, "passed")
        assert row["output"] == "flag" and row["errors"] and row["unjudged"] > 0
        assert not s.firewall.app.relays


OPEN = "---\nid: canary\naction: block\non-guard-error: open\n---\n## Violates\n- `canary/1` Says the word.\n"


async def test_fail_open_passes_both_ways_and_is_written_everywhere(story, canary):
    """R12, N17: asked for explicitly; in every record, in /readyz, in a metric; never recorded as an allow."""
    import aiohttp
    go = asyncio.Event()
    events = chat_events("a", "b")
    async with story([whole(chat("fine"))], [HEAD, *map(chunk, events[:2]), go, *map(chunk, events[2:]), END],
                     policy=OPEN) as s, aiohttp.ClientSession() as http:
        s.guard.mode = "dead"
        got = await raw(s, post(asks()))
        assert status(got) == 200 and b"fine" in got and b"x-firewall-decision: flag" in got
        s.guard.mode = "ok"
        task = asyncio.create_task(raw(s, post(STREAM)))
        while len(s.upstream.seen) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        s.guard.mode = "crash"
        go.set()
        assert body_of(await task) == b"".join(events)
        for row in audited(s, "passed", "passed"):
            assert row["output"] == "flag" and row["errors"] and row["decision"] == "flag" and row["unjudged"] > 0
        admin = f"http://127.0.0.1:{s.firewall.admin_port}"
        async with http.get(f"{admin}/readyz") as r:
            assert (await r.json())["fails"]["open"] == ["canary"]
        async with http.get(f"{admin}/metrics") as r:
            page = await r.text()
            assert float(page.split("\nfirewall_fail_open_total ")[1].split("\n")[0]) >= 2


async def test_i08_the_guard_dies_under_a_hundred_streams(story):
    """None releases a word that nobody judged; all end legally and are recorded."""
    go = asyncio.Event()
    events = chat_events("seen ", "unseen")
    async with story([HEAD, *map(chunk, events[:2]), go, *map(chunk, events[2:]), END]) as s:
        tasks = [asyncio.create_task(raw(s, post(STREAM), 20)) for _ in range(100)]
        while len(s.upstream.seen) < 100:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        s.guard.mode = "dead"
        go.set()
        for answer in await asyncio.gather(*tasks):
            assert b"unseen" not in answer and answer.endswith(b"0\r\n\r\n") and b'"error"' in answer
        rows = audited(s, *["failed"] * 100)
        assert {r["fault"] for r in rows} == {"guard"} and not s.firewall.app.in_flight


async def test_j04_policies_change_under_two_hundred_streams(story):
    """None is dropped; each keeps the set it was admitted with; new requests are judged by the new one."""
    go = asyncio.Event()
    events = chat_events("a", "b")
    async with story([HEAD, *map(chunk, events[:2]), go, *map(chunk, events[2:]), END]) as s:
        old = s.firewall.house.policies.digest
        tasks = [asyncio.create_task(raw(s, post(STREAM), 30)) for _ in range(200)]
        while len(s.upstream.seen) < 200:
            await asyncio.sleep(0.02)
        path = s.firewall.house.source.folder / "canary.md"
        path.write_text(path.read_text() + "- `canary/2` Says another word.\n")
        assert s.firewall.house.source.refresh(force=True)
        new = s.firewall.house.policies.digest
        go.set()
        for answer in await asyncio.gather(*tasks):
            assert b"[DONE]" in answer and old.encode() in answer
        assert new.encode() in await raw(s, post(STREAM))
        rows = audited(s, *["passed"] * 201)
        assert [r["policies"] for r in rows].count(old) == 200 and new != old
