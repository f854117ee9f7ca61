"""The one place for headers: what goes upstream, what comes back, credentials, and what we add.

Both directions are allow-lists. Client credentials go upstream only where no key of ours is configured; cookies,
forwarding headers and anything that could choose a host, a tenant or a parser never do.
"""

from __future__ import annotations

import hashlib
import time
from email.utils import parsedate_to_datetime

from firewall.errors import FirewallError
from firewall.exchange import Exchange

Pairs = tuple[tuple[bytes, bytes], ...]
CREDENTIALS = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")
FORWARD = frozenset((b"anthropic-version", b"anthropic-beta", b"openai-organization", b"openai-project", b"openai-beta",
                     b"idempotency-key", b"user-agent", b"x-stainless-lang", b"x-stainless-package-version",
                     b"x-stainless-retry-count", b"anthropic-dangerous-direct-browser-access"))
SHOWN = FORWARD.union(CREDENTIALS)      # where no key of ours is configured
RETURN = frozenset((b"retry-after", b"openai-processing-ms", b"openai-version", b"openai-organization",
                    b"openai-model", b"anthropic-organization-id", b"x-should-retry"))
RETURN_PREFIX = (b"x-ratelimit-", b"anthropic-ratelimit-")
FIXED = b"content-type: application/json\r\naccept: application/json, text/event-stream, application/x-ndjson\r\n" \
        b"accept-encoding: identity\r\n"
STREAM = b"\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
MASK = "[redacted]"
KEY_HEADER = {"openai": b"authorization: Bearer ", "anthropic": b"x-api-key: ", "gemini": b"x-goog-api-key: ",
              "ollama": b"authorization: Bearer "}


def credential(pairs: Pairs) -> bytes:
    """The client's key, for naming its tenant; empty when it shows none."""
    for name, value in pairs:
        if name in CREDENTIALS:
            return value
    return b""


def presented(pairs: Pairs) -> bytes:
    """The bare key of a credential header, without its scheme word."""
    value = credential(pairs)
    return value[7:].strip() if value[:7].lower() == b"bearer " else value


def tenant(key: bytes, salt: bytes) -> str:
    """Keyed hash of a credential: the same client has the same name, and the name says nothing about the key."""
    return hashlib.blake2b(key, key=salt, digest_size=8).hexdigest() if key else "anonymous"


def forward(pairs: Pairs, ours: bytes, private: bool = False) -> bytes:
    """Header lines for upstream. `ours` is the configured credential line (with CRLF) or empty.

    `private`: the client's credential is for this firewall and never leaves it.
    """
    passed = FORWARD if ours or private else SHOWN
    out = [FIXED, ours]
    for name, value in pairs:
        if name in passed:
            out += name, b": ", value, b"\r\n"
    return b"".join(out)


def key_line(family: str, key: str) -> bytes:
    """The credential header of a dialect family for our own upstream key."""
    return KEY_HEADER[family] + key.encode("latin-1") + b"\r\n" if key else b""


def encoding(pairs: Pairs) -> str:
    """A content coding that is not identity: judged routes asked for none."""
    for name, value in pairs:
        if name == b"content-encoding" and value.strip().lower() not in (b"identity", b""):
            return value.decode("latin-1")[:20]
    return ""


def media_type(value: bytes | None) -> bytes:
    """The media type of a Content-Type alone, lower case."""
    return (value or b"").partition(b";")[0].strip().lower()


def first(pairs: Pairs, name: bytes) -> bytes:
    """The first value under a name (lower case), or nothing."""
    for key, value in pairs:
        if key == name:
            return value
    return b""


def patience(pairs: Pairs) -> float | None:
    """Seconds that a Retry-After asks for, as a number or a date (RFC 9110 10.2.3); None without one that can be read."""
    said = first(pairs, b"retry-after").strip()
    if len(said) < 10 and said.replace(b".", b"", 1).isdigit():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said.decode("latin-1")).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def answer(kind: bytes, upstream: Pairs, exchange: Exchange) -> bytes:
    """Header lines of an answer that was judged."""
    out = [b"content-type: ", kind, b"\r\n" if kind == b"application/json" else STREAM]
    for name, value in upstream:
        if name in RETURN or name.startswith(RETURN_PREFIX):
            out += name, b": ", value, b"\r\n"
    out.append(ours(exchange))
    return b"".join(out)


def refusal(exchange: Exchange, error: FirewallError | None = None) -> bytes:
    """Header lines of an answer of ours: a block, or an error."""
    out = b"content-type: application/json\r\n" + ours(exchange, error)
    if error is None:
        out += b"x-should-retry: false\r\n"
    elif error.retry_after is not None:
        out += b"retry-after: %d\r\n" % max(1, round(error.retry_after))
    return out


def ours(exchange: Exchange, error: FirewallError | None = None) -> bytes:
    """x-request-id (Anthropic's SDKs read request-id) and x-firewall-*: rule ids and digests only, no reasons."""
    outcome = exchange.outcome
    action = "error" if error is not None and outcome.action != "block" else outcome.action
    policy = f"x-firewall-policy: {','.join(outcome.rules)}\r\n" if outcome.rules else ""
    name = f"request-id: {exchange.id}\r\n" if exchange.wire.startswith("anthropic") else ""
    return (f"x-request-id: {exchange.id}\r\n{name}x-firewall-decision: {action}\r\n{policy}"
            f"x-firewall-policy-digest: {exchange.digest}\r\n").encode("ascii", "replace")
