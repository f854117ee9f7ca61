"""The scripted upstream: replays an answer in a dialect at a cadence. A raw asyncio.Protocol, so that it costs little.

A script is found by the request's model name: in `scripts`, or, for load runs, spelled in the name itself:

    lab-whole-CHARS          one JSON answer of so many characters
    lab-stream-FRAMES-MS     a stream of so many one-word frames, one every MS milliseconds
    lab-timed-FRAMES-MS      the same, with the monotonic clock in ns before each word, to measure transit

Frames of one stream are scheduled on absolute times, so that a late one does not delay the rest. `python -m
benchmarks.upstream [--core N]` serves alone, in its own process, and prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

MODEL = re.compile(rb'"model"\s*:\s*"([^"]+)"|^POST /v1(?:beta)?/models/([^:]+):')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.I)
PIECE = re.compile(r"\s*\S{1,8}|\s+$")
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
WORDS = (" Our", " harbour", " café", " opens", " at", " eight", ",", " and", " the", " first", " guests", " are",
         " fishermen", " who", " like", " their", " coffee", " black", ".", " After", " nine", " come", " walkers",
         " and", " families", ".", " A", " table", " by", " the", " window", " costs", " nothing", " extra", ".")


@dataclass(frozen=True, slots=True)
class Script:
    """Args:
        frames: stream events, or one JSON document.
        cadence: seconds between frames; 0 sends all at once, one chunk each.
        stream: chunked text/event-stream instead of application/json.
        timed: write the clock into each frame (load runs).
        cut: split the body into chunks of so many bytes instead of one a frame (transparency).
    """

    frames: tuple[bytes, ...]
    cadence: float = 0.0
    stream: bool = False
    timed: bool = False
    cut: int = 0


def pieces(text: str) -> list[str]:
    """Text -> token-sized pieces that join to it: a word, or 8 characters of a long one, with the space before."""
    found = PIECE.findall(text)
    return found if "".join(found) == text else [text[k:k + 6] for k in range(0, len(text), 6)]


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    row = {"id": "chatcmpl-lab", "object": "chat.completion.chunk", "created": 1, "model": "lab",
           "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(row, separators=(",", ":")).encode() + b"\n\n"


def chat(text: str) -> Script:
    """An unstreamed OpenAI chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Script((json.dumps({"id": "chatcmpl-lab", "object": "chat.completion", "created": 1, "model": "lab",
                               "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1,
                                                              "total_tokens": 2}}).encode(),))


def chat_stream(words: Sequence[str], cadence: float = 0.0) -> Script:
    """An OpenAI chat completion stream, one frame a piece."""
    return Script((_chunk({"role": "assistant", "content": ""}), *(_chunk({"content": w}) for w in words),
                   _chunk({}, "stop"), b"data: [DONE]\n\n"), cadence, True)


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def message(text: str) -> Script:
    """An unstreamed Anthropic message."""
    return Script((json.dumps(_message([{"type": "text", "text": text}], "end_turn")).encode(),))


def message_stream(words: Iterable[str], cadence: float = 0.0) -> Script:
    """An Anthropic message stream, one delta a piece."""
    return Script((_event("message_start", message=_message([], None)),
                   _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
                   *(_event("content_block_delta", index=0, delta={"type": "text_delta", "text": w}) for w in words),
                   _event("content_block_stop", index=0),
                   _event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None},
                          usage={"output_tokens": 1}), _event("message_stop")), cadence, True)


def _message(content: list[Any], stop: str | None) -> dict[str, Any]:
    return {"id": "msg_lab", "type": "message", "role": "assistant", "model": "lab", "content": content,
            "stop_reason": stop, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}


def lab(model: str) -> Script:
    """The script that a load run's model name spells."""
    _, kind, *numbers = model.split("-")
    n, ms = int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0
    if kind == "whole":
        return chat("word " * (n // 5))
    made = chat_stream([WORDS[k % len(WORDS)] for k in range(n)], ms / 1e3)
    return Script(made.frames, made.cadence, True, kind == "timed")


class Upstream:
    """`async with Upstream() as u: u.url`; `u.scripts[model] = chat("...")`. Counts what it saw.

    Attributes:
        requests: so many requests came whole.
        left: monotonic times at which a peer hung up in the middle of an answer.
    """

    def __init__(self, port: int = 0) -> None:
        self.scripts: dict[str, Script] = {}
        self.port, self.requests, self.left = port, 0, list[float]()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Upstream:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Peer(self), "127.0.0.1", self.port, backlog=8192)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    def script(self, model: str) -> Script:
        found = self.scripts.get(model)
        if found is None:
            found = lab(model) if model.startswith("lab-") else chat("Nothing was scripted for this.")
            self.scripts[model] = found
        return found


class _Peer(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self.upstream, self.buffer, self.need = upstream, b"", -1
        self.loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport      # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        if self.need < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            match = LENGTH.search(self.buffer, 0, end + 2)
            if match is None:           # this upstream takes no chunked bodies
                self.transport.write(b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\n\r\n")
                self.buffer = b""
                return
            self.need = end + 4 + int(match[1])
        if len(self.buffer) >= self.need:
            request, self.buffer, self.need = self.buffer[:self.need], self.buffer[self.need:], -1
            self.upstream.requests += 1
            match = MODEL.search(request)
            self.answer(self.upstream.script((match[1] or match[2]).decode() if match else ""))

    def answer(self, script: Script) -> None:
        if not script.stream:
            self.transport.write(JSON_HEAD % len(script.frames[0]) + script.frames[0])
        elif script.cut:
            body = b"".join(script.frames)
            self.transport.write(SSE_HEAD)
            for k in range(0, len(body), script.cut):
                part = body[k:k + script.cut]
                self.transport.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.transport.write(LAST)
        elif not script.cadence:
            self.transport.write(SSE_HEAD + b"".join(b"%x\r\n%b\r\n" % (len(f), f) for f in script.frames) + LAST)
        else:
            self.transport.write(SSE_HEAD)
            self._send(script, 0, self.loop.time())

    def _send(self, script: Script, number: int, began: float) -> None:
        frame = script.frames[number]
        if script.timed:
            frame = frame.replace(b'"content":"', b'"content":"@%d ' % time.monotonic_ns(), 1)  # only words change
        number += 1
        done = number == len(script.frames)
        self.transport.write(b"%x\r\n%b\r\n%b" % (len(frame), frame, LAST if done else b""))
        self.timer = None if done else self.loop.call_at(began + number * script.cadence, self._send, script, number,
                                                         began)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.upstream.left.append(time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--core", type=int, default=-1)
    args = parser.parse_args()
    if args.core >= 0:
        os.sched_setaffinity(0, {args.core})

    async def serve() -> None:
        async with Upstream(args.port) as upstream:
            print(upstream.port, flush=True)
            while os.getppid() != 1:        # ends with the run that started it
                await asyncio.sleep(1)
    uvloop.run(serve())


if __name__ == "__main__":
    main()
