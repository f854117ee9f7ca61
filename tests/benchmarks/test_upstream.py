"""Upstream and client against each other, and against a strict HTTP reader."""

from __future__ import annotations

import asyncio
import http.client
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load import Broken, Client, deltas, released, told
from benchmarks.upstream import Script, Upstream, chat, chat_stream, lab, message_stream, pieces

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


@given(st.text(max_size=200))
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


async def test_a_whole_answer_and_keep_alive() -> None:
    async with Upstream() as upstream:
        upstream.scripts["m"] = chat("hello")
        client = Client(upstream.port)
        answers = [await client.post("/v1/chat/completions", BODY) for _ in range(3)]
        client.close()
    assert [told(a)[:2] for a in answers] == [("hello", "stop")] * 3
    assert upstream.requests == 3 and all(a.status == 200 and 0 < a.first_ms <= a.ms for a in answers)


@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_a_stream_arrives_as_scripted_for_every_cut(cut: int) -> None:
    words = pieces("one two three — four 🦀")
    made = chat_stream(words)
    async with Upstream() as upstream:
        upstream.scripts["m"] = Script(made.frames, stream=True, cut=cut)
        client = Client(upstream.port)
        answer = await client.post("/v1/chat/completions", BODY)
        client.close()
    assert bytes(answer.body) == b"".join(made.frames)
    assert told(answer)[:2] == ("".join(words), "stop") and released(answer)[-1][1] == len("".join(words))
    assert [t for t, _ in deltas(bytes(answer.body))] == ["", *words, ""]


async def test_cadence_is_kept() -> None:
    async with Upstream() as upstream:
        upstream.scripts["m"] = chat_stream(["a"] * 8, 0.02)
        client = Client(upstream.port)
        answer = await client.post("/v1/chat/completions", BODY)
        client.close()
    seconds = answer.arrivals[-1][0] - answer.arrivals[0][0]
    assert 0.15 <= seconds < 1.0 and len(answer.arrivals) >= 8


async def test_it_sees_when_a_client_leaves() -> None:
    async with Upstream() as upstream:
        upstream.scripts["m"] = chat_stream(["a"] * 500, 0.02)
        client = Client(upstream.port)
        task = asyncio.create_task(client.post("/v1/chat/completions", BODY))
        await asyncio.sleep(0.1)
        client.close()
        left = time.monotonic()
        with pytest.raises(Broken):
            await task
        await asyncio.sleep(0.05)
    assert len(upstream.left) == 1 and abs(upstream.left[0] - left) < 0.2


async def test_a_strict_reader_can_read_it() -> None:
    async with Upstream() as upstream:
        upstream.scripts["m"] = message_stream(["hi"])

        def ask() -> bytes:
            connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
            connection.request("POST", "/v1/messages", json.dumps(BODY))
            body = connection.getresponse().read()
            connection.close()
            return body
        body = await asyncio.get_running_loop().run_in_executor(None, ask)
    assert body.count(b"event: ") == 6 and b'"text": "hi"' in body


def test_lab_models_spell_their_script() -> None:
    stream = lab("lab-stream-40-50")
    assert (len(stream.frames), stream.cadence, stream.stream, stream.timed) == (43, 0.05, True, False)
    assert lab("lab-timed-5-10").timed and not lab("lab-whole-1000").stream
