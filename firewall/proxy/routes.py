"""Every path the firewall serves, in one table. Unknown is refused: a path that is not here never reaches upstream.

Matching is on the raw path, byte for byte; the upstream's path is the table's constant plus, for Gemini, a model name
of a safe shape. Unknown query parameters are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from firewall.wire.anthropic import Anthropic
from firewall.wire.openai_chat import OpenAIChat
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
    local: bool = False             # answered by the guard itself


class Match(NamedTuple):
    route: Route
    target: bytes                   # path and query to send upstream
    model: str = ""                 # where the path names the model
    stream: bool | None = None      # where the path decides it


_CHAT, _ANTHROPIC = OpenAIChat(), Anthropic(); _GEMINI=_CHAT
OPENAI = _CHAT


def _route(path: str, family: str, wire: Wire, query: tuple[bytes, ...] = (), local: bool = False) -> Route:
    return Route(f"POST {path}", family, wire, path.encode(), query, local)


TABLE: dict[str, Route] = {r.target.decode(): r for r in (
    _route("/v1/chat/completions", "openai", _CHAT),
    _route("/v1/messages", "anthropic", _ANTHROPIC, (b"beta",)),
)}
GEMINI = {
    b":generateContent": Route("POST /v1beta/models/*:generateContent", "gemini", _GEMINI, b"", (b"alt",)),
    b":streamGenerateContent": Route("POST /v1beta/models/*:streamGenerateContent", "gemini", _GEMINI, b"", (b"alt",)),
}


def match(method: str, path: str, query: bytes) -> Match | None:
    """The route of a request, or None: refuse it."""
    if method != "POST":
        return None
    if (route := TABLE.get(path)) is not None:
        return Match(route, route.target + _query(query, route.query))
    for prefix in ("/v1beta/models/", "/v1/models/"):
        if path.startswith(prefix):
            model, colon, verb = path[len(prefix):].partition(":")
            route = GEMINI.get(f":{verb}".encode())
            if route and model and colon and SAFE.issuperset(model):
                return Match(route, path.encode() + _query(query, route.query), model,
                             verb == "streamGenerateContent")
    return None


def dialect(path: str) -> Wire:
    """Whose error shape to answer in, also for paths that are not served."""
    if (route := TABLE.get(path)) is not None:
        return route.wire
    if path.startswith("/v1/messages"):
        return _ANTHROPIC
    return _GEMINI if path.startswith("/v1beta/") else OPENAI


def _query(query: bytes, allowed: tuple[bytes, ...]) -> bytes:
    if not query or not allowed:
        return b""
    kept = []
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name in allowed and SAFE.issuperset(value.decode("latin-1")):
            kept.append(part)
    return b"?" + b"&".join(kept) if kept else b""
