"""The client: a raw asyncio.Protocol with httptools, cheap enough to measure others, exact about when bytes came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httptools
import orjson


class Broken(Exception):
    """The connection ended before the answer did."""


@dataclass(slots=True)
class Answer:
    """One answer. Times are monotonic seconds.

    Attributes:
        arrivals: (time, bytes of body so far) after each read.
    """

    sent: float
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    done: float = 0.0

    @property
    def ms(self) -> float:
        """Milliseconds from sending to the last byte."""
        return (self.done - self.sent) * 1e3

    @property
    def first_ms(self) -> float:
        """Milliseconds to the first byte of the body."""
        return ((self.arrivals[0][0] if self.arrivals else self.done) - self.sent) * 1e3

    def json(self) -> Any:
        return orjson.loads(bytes(self.body))


def request(path: str, body: Any, port: int, extra: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = "".join(f"{k}: {v}\r\n" for k, v in (extra or {}).items())
    return (f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer lab\r\n"
            f"content-type: application/json\r\n{lines}content-length: {len(data)}\r\n\r\n").encode() + data


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.answer: Answer | None = None
        self.waiting: asyncio.Future[Answer] | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.open = transport, True     # type: ignore[assignment]

    def send(self, data: bytes) -> asyncio.Future[Answer]:
        self.waiting = asyncio.get_running_loop().create_future()
        self.answer, self.parser = Answer(time.monotonic()), httptools.HttpResponseParser(self)
        self.transport.write(data)
        return self.waiting

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            return
        before, now = len(answer.body), time.monotonic()
        self.parser.feed_data(data)
        if len(answer.body) > before:
            answer.arrivals.append((now, len(answer.body)))
        if answer.done and self.waiting is not None and not self.waiting.done():
            self.answer = None
            self.waiting.set_result(answer)

    def on_header(self, key: bytes, value: bytes) -> None:
        assert self.answer is not None
        self.answer.headers[key.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self.answer is not None
        self.answer.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        assert self.answer is not None
        self.answer.body += body

    def on_message_complete(self) -> None:
        assert self.answer is not None
        self.answer.done = time.monotonic()
        if not self.parser.should_keep_alive():
            self.open = False
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(Broken("the connection closed before the answer ended"))


class Client:
    """`await client.post("/v1/...", {...})` on pooled connections."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[Connection] = []
        self._all: list[Connection] = []

    async def connect(self) -> Connection:
        while self._idle:
            if (one := self._idle.pop()).open:
                return one
        _, one = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port)
        self._all.append(one)
        return one

    async def post(self, path: str, body: Any, extra: Mapping[str, str] | None = None) -> Answer:
        """Raises `Broken` or OSError."""
        one = await self.connect()
        try:
            answer = await one.send(request(path, body, self.port, extra))
        except BaseException:
            if one.open:
                one.transport.close()
            raise
        if one.open:
            self._idle.append(one)
        return answer

    def close(self) -> None:
        for one in self._all:
            if one.open:
                one.transport.close()
        self._all, self._idle = [], []


def told(answer: Answer) -> tuple[str, str, str]:
    """(text, ending, decision) the client was told, OpenAI chat, streamed or not, or an error body.

    `ending` is the finish reason or error code.
    """
    decision = answer.headers.get("x-firewall-decision", "")
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        text, ending = "", ""
        for part, end in deltas(bytes(answer.body)):
            text, ending = text + part, end or ending
        return text, ending, decision or ("block" if ending == "content_filter" else "")
    try:
        body = answer.json()
    except ValueError:
        return "", "unreadable", "error"
    if "error" in body:
        return "", str(body["error"].get("code")), decision
    choice = (body.get("choices") or [{}])[0]
    ending = str(choice.get("finish_reason") or "")
    return str((choice.get("message") or {}).get("content") or ""), ending, decision


def deltas(body: bytes) -> list[tuple[str, str]]:
    """(text, finish reason or error code) of each `data:` event, whole events only; OpenAI chat."""
    out = []
    for block in body.split(b"\n\n")[:-1]:
        for line in block.split(b"\n"):
            if not line.startswith(b"data:") or line.strip() == b"data: [DONE]":
                continue
            row = orjson.loads(line[5:])
            if "error" in row:
                out.append(("", str(row["error"].get("code") or "error")))
            for choice in row.get("choices") or ():
                out.append((choice.get("delta", {}).get("content") or "", choice.get("finish_reason") or ""))
    return out


def released(answer: Answer) -> list[tuple[float, int]]:
    """(time, characters of text the client could read by then) after each read of a streamed answer."""
    body, out, seen, chars = bytes(answer.body), [], 0, 0
    for when, size in answer.arrivals:
        whole = body.rfind(b"\n\n", 0, size) + 2
        if whole > seen + 1:
            chars += sum(len(text) for text, _ in deltas(body[seen:whole]))
            seen = whole
            out.append((when, chars))
    return out
