"""The oracles of the cases, reusable: what must hold in every story, whatever else it tells.

O-leak `leaks`, O-upstream `untouched`, O-cover `covered`, O-audit `audited`, O-secret `secrets_in`, O-clean `clean`;
O-legal is told with the vendors' SDKs in the stories themselves. The raw client of the cases lives here, too.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

CHAT, MESSAGES, RESPONSES, COMPLETIONS = "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"


# O-leak

def forms(word: str) -> dict[str, bytes]:
    """Every spelling in which a word could reach somebody."""
    raw = word.encode()
    out = {"raw": raw, "json": json.dumps(word)[1:-1].encode(), "quote": quote(word).encode(),
           "\\u": "".join(f"\\u{ord(c):04x}" for c in word).encode(),
           "percent": "".join(f"%{b:02x}" for b in raw).encode(), "hex": raw.hex().encode(),
           "bytes": ",".join(map(str, raw)).encode(), "bytes spaced": ", ".join(map(str, raw)).encode()}
    for shift in range(3):      # base64 of the word inside a longer text, at its three alignments
        inner = base64.b64encode(b"\0" * shift + raw)
        out[f"base64+{shift}"] = inner[4 if shift else 0:-4]
    return out


def leaks(data: bytes, word: str) -> list[str]:
    """The forms in which `word` stands in `data`: in the bytes, in one leaf, or joined over the leaves of frames."""
    lower = data.lower()
    found = [name for name, form in forms(word).items() if form and (form in data or form.lower() in lower)]
    joined: dict[str, str] = {}
    for document in documents(data):
        for path, text in leaves_of(document):
            joined[path] = joined.get(path, "") + text
    found += [f"joined {path}" for path, text in joined.items() if word in text]
    if word in "".join(joined.values()):
        found.append("joined over channels")
    return found


def documents(data: bytes) -> Iterator[Any]:
    """Every JSON document of an answer, streamed or not."""
    body = unchunked(data)
    for line in (body, *body.replace(b"\r", b"\n").split(b"\n")):
        with contextlib.suppress(ValueError):
            yield json.loads(line.removeprefix(b"data:"))


def leaves_of(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every string, keys included; indexes are kept apart."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}#", key
            yield from leaves_of(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves_of(inner, f"{path}.{i}")


# O-upstream, O-cover, O-audit, O-secret

def untouched(story: Any) -> bool:
    """The upstream saw not one byte."""
    return not story.upstream.raw and not story.upstream.seen


def covered(story: Any, word: str) -> bool:
    """The guard was shown `word`, whatever it said about it."""
    return any(word in text for case in story.guard.seen for _, text in case.trial())


def audited(story: Any, *endings: str) -> list[dict[str, Any]]:
    """Exactly one record an exchange, in any order, and a chain that holds."""
    rows = [row for row in story.records() if row["event"] == "exchange"]
    assert sorted(row["ending"] for row in rows) == sorted(endings), [(r["ending"], r.get("code")) for r in rows]
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:        # O-truth
        assert row["ending"] != "unfinished"
        assert not (row["output"] == "allow" and row["unjudged"]), row
    return rows


def secrets_in(words: Iterable[str], *places: str | bytes | Path) -> list[tuple[str, int]]:
    """(word, number of the place) for every secret that stands in a text, bytes, file or folder."""
    out = []
    for number, place in enumerate(places):
        if isinstance(place, Path):
            files = [f for f in place.rglob("*") if f.is_file()] if place.is_dir() else [place]
            data = b"\n".join(f.read_bytes() for f in files)
        else:
            data = place.encode() if isinstance(place, str) else place
        out += [(word, number) for word in words if leaks(data, word)]
    return out


# O-clean

@contextlib.asynccontextmanager
async def clean(story: Any, patience: float = 3.0) -> AsyncIterator[None]:
    """File descriptors, tasks and threads come back to where they were; idle upstream connections that are kept for
    reuse are not counted (each has two ends in this process, and a task of the fake upstream)."""
    process = psutil.Process()

    def state() -> tuple[int, int, int]:
        kept = sum(upstream.pool.idle for upstream in story.firewall.house.upstreams.values())
        return process.num_fds() - 2 * kept, len(asyncio.all_tasks()) - kept, threading.active_count()
    gc.collect()
    before = state()
    yield
    now = before
    for _ in range(int(patience / 0.05)):
        now = state()
        if all(a <= b for a, b in zip(now, before, strict=True)):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"(fds, tasks, threads) were {before} and are {now}")


# a raw client

def post(body: bytes | dict[str, Any], path: str = CHAT, extra: str = "", *, close: bool = True,
         method: str = "POST") -> bytes:
    """One request as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    end = "Connection: close\r\n" if close else ""
    return (f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{extra}{end}"
            f"Content-Length: {len(data)}\r\n\r\n").encode() + data


async def raw(story: Any, data: bytes, timeout: float = 10.0, port: int = 0) -> bytes:
    """Everything that comes back until the firewall closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port or story.firewall.server.port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), timeout)
    finally:
        writer.close()


class Line:
    """A keep-alive connection: one request, one whole answer, again and again."""

    def __init__(self, story: Any) -> None:
        self.port = story.firewall.server.port

    async def __aenter__(self) -> Line:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, body: bytes | dict[str, Any], path: str = CHAT, extra: str = "") -> tuple[int, bytes]:
        self.writer.write(post(body, path, extra, close=False))
        return await asyncio.wait_for(self.answer(), 10)

    async def answer(self) -> tuple[int, bytes]:
        """(status, body) of the next answer, its framing taken off."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        code, low = int(head.split(b" ", 2)[1]), head.lower()
        if b"transfer-encoding: chunked" not in low:
            size = int(low.partition(b"content-length:")[2].split(b"\r\n")[0])
            return code, await self.reader.readexactly(size)
        out = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            out += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return code, out


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def head_of(answer: bytes) -> str:
    return answer.split(b"\r\n\r\n", 1)[0].decode("latin-1").lower()


def body_of(answer: bytes) -> bytes:
    """The body of one whole answer, its framing taken off."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    return unchunked(rest) if b"transfer-encoding: chunked" in head.lower() else rest


def unchunked(data: bytes) -> bytes:
    """Chunked coding taken off where there is one (an answer cut short gives what came)."""
    head, sep, rest = data.partition(b"\r\n\r\n")
    if sep and head.startswith(b"HTTP/1."):
        if b"transfer-encoding: chunked" not in head.lower():
            return rest
        data = rest
    out, at = b"", data
    while True:
        size, sep, at = at.partition(b"\r\n")
        try:
            length = int(size, 16)
        except ValueError:
            return out or data
        if not sep or not length:
            return out
        out, at = out + at[:length], at[length + 2:]


def asks(text: str = "hi", **more: Any) -> dict[str, Any]:
    """A small request that every message dialect of OpenAI and Anthropic reads."""
    return {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **more}


async def settled(story: Any, count: int, patience: float = 3.0) -> None:
    """Waits until so many records were written."""
    for _ in range(int(patience / 0.02)):
        if len(story.log.read_bytes().splitlines()) >= count:
            return
        await asyncio.sleep(0.02)
