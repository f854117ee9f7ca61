"""Every path the firewall serves, in one table. Unknown is refused: a path that is not here never reaches upstream.

Matching is on the raw path, byte for byte; the upstream's path is the table's constant plus, for Gemini, a model name
of a safe shape. Unknown query parameters are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from firewall.wire.dialects import WIRES
from firewall.wire.moderation import Moderation
from firewall.wire.wire import Wire

SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@dataclass(frozen=True, slots=True)
class Route:
    """`name` is a constant for records and metrics; `query` lists the parameters that go upstream."""

    name: str
    family: str
    wire: Wire
    target: bytes
    query: tuple[bytes, ...] = ()
    local: Moderation | None = None     # answered by the guard itself


class Match(NamedTuple):
    route: Route
    target: bytes                   # path and query to send upstream
    model: str = ""                 # where the path names the model
    stream: bool | None = None      # where the path decides it


OPENAI, ANTHROPIC, GEMINI = WIRES["openai-chat"], WIRES["anthropic-messages"], WIRES["gemini"]


def _route(path: str, family: str, wire: str, query: tuple[bytes, ...] = ()) -> Route:
    return Route(f"POST {path}", family, WIRES[wire], path.encode(), query)


TABLE: dict[str, Route] = {r.target.decode(): r for r in (
    _route("/v1/chat/completions", "openai", "openai-chat"),
    _route("/v1/completions", "openai", "openai-completions"),
    _route("/v1/responses", "openai", "openai-responses"),
    Route("POST /v1/moderations", "openai", OPENAI, b"/v1/moderations", local=Moderation()),
    _route("/v1/messages", "anthropic", "anthropic-messages", (b"beta",)),
    _route("/api/chat", "ollama", "ollama-chat"),
    _route("/api/generate", "ollama", "ollama-generate"),
)}
MODELS = ("/v1beta/models/", "/v1/models/")
VERBS = {verb: Route(f"POST /v1beta/models/*:{verb}", "gemini", GEMINI, b"", (b"alt",))
         for verb in ("generateContent", "streamGenerateContent")}


def match(method: str, path: str, query: bytes) -> Match | None:
    """The route of a request, or None: refuse it."""
    if method != "POST":
        return None
    if (route := TABLE.get(path)) is not None:
        return Match(route, route.target + _query(query, route.query))
    for prefix in MODELS:
        if path.startswith(prefix):
            model, _, verb = path[len(prefix):].partition(":")
            if (route := VERBS.get(verb)) and model and SAFE.issuperset(model):
                return Match(route, path.encode() + _query(query, route.query), model, verb[0] == "s")
    return None


def dialect(path: str) -> Wire:
    """Whose error shape to answer in, also for paths that are not served."""
    if (route := TABLE.get(path)) is not None:
        return route.wire
    if path.startswith("/v1/messages"):
        return ANTHROPIC
    return GEMINI if path.startswith(MODELS) else OPENAI


def _query(query: bytes, allowed: tuple[bytes, ...]) -> bytes:
    if not query or not allowed:
        return b""
    kept = []
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name in allowed and SAFE.issuperset(value.decode("latin-1")):
            kept.append(part)
    return b"?" + b"&".join(kept) if kept else b""
