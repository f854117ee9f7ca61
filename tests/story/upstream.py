"""MU of the cases: a raw-socket fake upstream that records every byte it gets and replays byte scripts.

A script is a list of steps: bytes are sent, numbers are seconds to wait, `CLOSE` cuts the connection, an
`asyncio.Event` is waited for.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

CLOSE = object()
Step = Any


@dataclass
class Seen:
    """One request as it came."""

    head: bytes
    body: bytes
    closed_at: float = 0.0      # loop time at which the firewall hung up during the answer

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]


@dataclass
class Upstream:
    """Answers each request with the next script (the last one repeats)."""

    scripts: list[list[Step]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def will(self, *steps: Step) -> Upstream:
        self.scripts.append(list(steps))
        return self

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.raw += head
                length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                               if line.startswith(b"content-length:")), 0)
                body = await reader.readexactly(length)
                self.raw += body
                seen = Seen(head, body)
                self.seen.append(seen)
                number = min(len(self.seen), len(self.scripts)) - 1
                gone = asyncio.create_task(reader.read(1))
                gone.add_done_callback(lambda task: task.cancelled() or task.exception())   # a reset is an end too
                script = self.scripts[number]
                for place, step in enumerate(script, 1):
                    if place == len(script) and isinstance(step, bytes) and not gone.done():
                        gone.cancel()       # the next request may follow at once: its first byte is not ours to eat
                        await asyncio.wait([gone])
                        writer.write(step)
                        await writer.drain()
                        break
                    if gone.done():
                        seen.closed_at = asyncio.get_running_loop().time()
                        return
                    if step is CLOSE:
                        return
                    if isinstance(step, asyncio.Event):
                        await asyncio.wait([gone, asyncio.create_task(step.wait())],
                                           return_when=asyncio.FIRST_COMPLETED)
                    elif isinstance(step, (int, float)):
                        await asyncio.wait([gone], timeout=step)
                    else:
                        writer.write(step)
                        await writer.drain()
                    if gone.done():
                        seen.closed_at = asyncio.get_running_loop().time()
                        return
                gone.cancel()
                await asyncio.wait([gone])
        except (ConnectionError, asyncio.IncompleteReadError):
            if self.seen and not self.seen[-1].closed_at:
                self.seen[-1].closed_at = asyncio.get_running_loop().time()
        except asyncio.CancelledError:
            pass        # the test is over
        finally:
            writer.close()


def whole(body: Any, status: int = 200, extra: bytes = b"") -> bytes:
    """An unstreamed JSON answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n" %
            (status, extra, len(data))) + data


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chat(text: str, **message: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}


def delta(finish: str | None = None, **fields: Any) -> bytes:
    row = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
           "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}
    return b"data: " + json.dumps(row, separators=(",", ":")).encode() + b"\n\n"


def chat_events(*texts: str) -> list[bytes]:
    return [delta(role="assistant", content=""), *(delta(content=t) for t in texts), delta("stop"),
            b"data: [DONE]\n\n"]


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def message_events(*texts: str) -> list[bytes]:
    return [event("message_start", message={"id": "msg_1", "type": "message", "role": "assistant", "content": [],
                                            "model": "m", "stop_reason": None, "stop_sequence": None,
                                            "usage": {"input_tokens": 1, "output_tokens": 1}}),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": t}) for t in texts),
            event("content_block_stop", index=0),
            event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None},
                  usage={"output_tokens": 1}), event("message_stop")]


def message(text: str) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}],
            "model": "m", "stop_reason": "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1}}


def stream(events: list[bytes], pause: float = 0.0) -> list[Step]:
    """Script of a chunked SSE answer."""
    steps: list[Step] = [HEAD]
    for data in events:
        steps.append(chunk(data))
        if pause:
            steps.append(pause)
    return [*steps, END]
