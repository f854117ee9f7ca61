"""Recorded vendor streams, re-framed in every legal way, and requests to go with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from firewall.errors import FirewallError
from firewall.wire.dialects import WIRES
from firewall.wire.frame import Frame
from firewall.wire.wire import Asked, Reader, StreamLimits, Wire

SHARED = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "streams"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="recorded streams are not here")

REQUESTS: dict[str, dict[str, Any]] = {
    "openai-chat": {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]},
    "openai-completions": {"model": "m", "stream": True, "prompt": "hello"},
    "openai-responses": {"model": "m", "stream": True, "input": "hello"},
    "anthropic-messages": {
        "model": "m",
        "stream": True,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hello"}],
    },
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]},
    "ollama-chat": {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    "ollama-generate": {"model": "m", "prompt": "hello"},
}
# Not one of the dialects (Cohere, Bedrock, Gemini's live and interactions APIs, OpenAI's realtime), or not whole.
OTHERS = ("cohere", "amazon", "google__interactions", "google__speech", "openai__speech")
BROKEN = ("parallel-tool-call-wrapper",)


class Stream(NamedTuple):
    """A recording: the dialect and its events, in order."""

    name: str
    wire: str
    events: tuple[bytes, ...]

    def framed(self, end: bytes = b"\n") -> bytes:
        """The events as server-sent events with one of the three line ends."""
        out = []
        for event in self.events:
            name = b""
            if self.wire in ("anthropic-messages", "openai-responses"):
                name = b"event: " + orjson.loads(event)["type"].encode() + end
            out.append(name + b"data: " + event + end + end)
        if self.wire.startswith("openai") and self.wire != "openai-responses":
            out.append(b"data: [DONE]" + end + end)
        return b"".join(out)


def dialect(name: str) -> str:
    vendor = name.split("__")[0]
    if vendor.startswith("anthropic"):
        return "anthropic-messages"
    if vendor == "google":
        return "gemini"
    if "completion__" in name:
        return "openai-completions"
    if "responses__" in name or name.startswith(("azure__openai", "azure__azure-tool", "azure__azure-reasoning")):
        return "openai-responses"
    return "openai-chat"


def recorded() -> list[Stream]:
    """Every recording in a dialect we speak."""
    out = []
    for path in sorted(SHARED.glob("*.txt")) if SHARED.is_dir() else ():
        name = path.name.removesuffix(".txt").removesuffix(".chunks")
        if name.startswith(OTHERS) or any(part in name for part in BROKEN):
            continue
        lines = [line.strip().removeprefix(b"data:").strip() for line in path.read_bytes().split(b"\n")]
        events = tuple(line for line in lines if line.startswith(b"{"))
        out.append(Stream(name, dialect(name), events))
    return out


STREAMS = recorded()


def ask(wire: str, **more: Any) -> tuple[Wire, Asked]:
    """A wire and a request that goes with it."""
    speaker = WIRES[wire]
    return speaker, speaker.ask({**REQUESTS[wire], **more})


def listen(wire: str, kind: bytes = b"text/event-stream", limits: StreamLimits | None = None, **more: Any) -> Reader:
    speaker, asked = ask(wire, **more)
    return speaker.reader(asked, kind, limits or StreamLimits())


def heard(reader: Reader, *parts: bytes) -> list[Frame]:
    """All frames of an answer that comes in parts and then ends."""
    frames = [frame for part in parts for frame in reader.feed(part)]
    return frames + reader.close()


def said(frames: list[Frame]) -> dict[str, str]:
    """Channel -> all its words."""
    out: dict[str, str] = {}
    for frame in frames:
        for channel, text in frame.pieces:
            out[channel] = out.get(channel, "") + text
    return out


def shape(frames: list[Frame]) -> list[tuple[Any, ...]]:
    return [(f.raw, f.pieces, f.after, f.pending, f.last) for f in frames]


def events(*documents: dict[str, Any], done: bool = False) -> bytes:
    """Documents as server-sent events, named where their dialect names them."""
    out = []
    for document in documents:
        name = f"event: {document['type']}\n" if "type" in document and "choices" not in document else ""
        out.append(name.encode() + b"data: " + orjson.dumps(document) + b"\n\n")
    return b"".join(out) + (b"data: [DONE]\n\n" if done else b"")


def code(error: pytest.ExceptionInfo[FirewallError]) -> str:
    return error.value.code
