"""Every path the firewall serves, in one table. Unknown is refused: a path that is not here never reaches upstream.

Matching is on the raw path, byte for byte; the upstream's path is the table's constant plus, for Gemini and for one
model's description, a model name of a safe shape. Unknown query parameters are dropped. `match` knows what is asked
with words (POST), `listing` the lists of models that SDKs and user interfaces GET (docs/decisions/0005).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from firewall.wire.count import Count
from firewall.wire.dialects import WIRES
from firewall.wire.models import Models
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
    Route("POST /v1/messages/count_tokens", "anthropic", Count(), b"/v1/messages/count_tokens", (b"beta",)),
    _route("/api/chat", "ollama", "ollama-chat"),
    _route("/api/generate", "ollama", "ollama-generate"),
)}
MODELS = ("/v1beta/models/", "/v1/models/")
CHAT = "/chat/completions"
VERBS = {verb: Route(f"POST /v1beta/models/*:{verb}", "gemini", GEMINI, b"", (b"alt",))
         for verb in ("generateContent", "streamGenerateContent")}
_PAGES = (b"limit", b"after_id", b"before_id")


def _lists(path: str, family: str, wire: Wire, query: tuple[bytes, ...] = ()) -> Route:
    return Route(f"GET {path}", family, Models(family, wire), path.encode(), query)


LISTS: dict[tuple[str, bool], Route] = {(r.target.decode(), r.family == "anthropic"): r for r in (
    _lists("/v1/models", "openai", OPENAI),
    _lists("/v1/models", "anthropic", ANTHROPIC, _PAGES),
    _lists("/v1beta/models", "gemini", GEMINI, (b"pageSize", b"pageToken")),
    _lists("/api/tags", "ollama", WIRES["ollama-chat"]),
)}


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


def listing(path: str, query: bytes, anthropic: bool) -> Match | None:
    """The route of a GET, or None. OpenAI and Anthropic share `/v1/models`; only Anthropic's clients send a version."""
    if (route := LISTS.get((path, anthropic)) or LISTS.get((path, False))) is not None:
        return Match(route, route.target + _query(query, route.query))
    folder, _, model = path.rpartition("/")
    route = LISTS.get((folder, anthropic)) or LISTS.get((folder, False))
    model = model.replace("%2F", "/").replace("%2f", "/")       # as SDKs write the name of its maker before a model's
    if route is None or route.family == "ollama" or len(model) > 128 or not all(map(_named, model.split("/"))):
        return None
    return Match(route, path.encode(), model)


def _named(part: str) -> bool:
    """A first letter, so that no name is a dot segment; colons are in the names of fine-tuned models."""
    return part[:1].isalnum() and SAFE.issuperset(part.replace(":", ""))


_VERSION = re.compile(r"/v\d+(?:\.\d+)?(?:(?:alpha|beta)\d*)?(?![^/])")


class Base(NamedTuple):
    """Where an API's paths begin upstream: what stands before a target, and how much of the target it stands for."""

    prefix: bytes
    replaced: int = 0

    def target(self, target: bytes) -> bytes:
        """The path to send."""
        return self.prefix + target[self.replaced:]


def base(path: str, family: str) -> Base:
    """The base that the path of a configured URL says, without its last slash.

    `/v1` at its end is ours (and Gemini's `/v1beta`): targets have it. What OpenAI's clients take as their base URL names
    its version anywhere (`/api/paas/v4`, `/v1beta/openai`) and then stands in place of `/v1`; where it names none
    (`/inference`), its whole address does, up to `/chat/completions`. Anything else is put before the target.
    """
    if path.endswith("/v1") or (family == "gemini" and path.endswith("/v1beta")):
        return Base(path.rpartition("/")[0].encode())
    if family == "openai" and path.endswith(CHAT):
        return Base(path.removesuffix(CHAT).encode(), len("/v1"))
    if family == "openai" and _VERSION.search(path):
        return Base(path.encode(), len("/v1"))
    return Base(path.encode())


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
