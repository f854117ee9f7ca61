"""The lines of a request's head, one at a time: what each may look like, and what it says. request.py puts them together.

What was checked is remembered by its bytes, as long as there is room: names, request lines and hosts repeat.
"""

from __future__ import annotations

import re

from ...errors import FirewallError

Header = tuple[bytes, bytes]

LINE = re.compile(rb"([A-Z]++) (/[\x21\x22\x24-\x7e]*+) HTTP/1\.([01])")
OTHER_VERSION = re.compile(rb"[A-Z]+ [\x21-\x7e]+ HTTP/[0-9]+(?:\.[0-9]+)?")
FIELD = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+")
NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]++")
HOST = re.compile(rb"(?:[0-9A-Za-z._~-]++|\[[0-9A-Fa-f:.]++\])(?::([0-9]{1,5}+))?")
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
FORBIDDEN = frozenset((b"CONNECT", b"TRACE", b"TRACK"))
SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding", b"expect",
                    b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"upgrade"))
EMPTY = (204, 304)                    # statuses whose answers have no body, in both directions

NAMES: dict[bytes, bytes] = {}        # header name as sent -> checked and lower-case
LINES: dict[bytes, tuple[str, bytes, str, bytes, str]] = {}  # request line without query -> what it says
HOSTS: set[bytes] = set()
_CACHE = 512                          # entries; a full cache is simply no longer added to


def refusal(code: str, public: str, status: int = 400) -> FirewallError:
    """A client's fault with one of our constant sentences."""
    return FirewallError(code, public, status=status)


def checked_name(name: bytes) -> bytes | None:
    """The name in lower case; None when it is none."""
    if NAME.fullmatch(name) is None:
        return None
    lower = name.lower()
    if len(NAMES) < _CACHE and len(name) <= 64:
        NAMES[name] = lower
    return lower


def request_line(line: bytes) -> tuple[str, bytes, str, bytes, str]:
    """Method, target, path, query, version. Raises FirewallError."""
    match = LINE.fullmatch(line)
    if match is None:
        if OTHER_VERSION.fullmatch(line) and not line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
            raise refusal("bad_version", "Only HTTP/1.1 and HTTP/1.0 are spoken here.", 505)
        if line.partition(b" ")[0] in FORBIDDEN:
            raise refusal("method_not_allowed", "The method is not allowed.", 405)
        raise refusal("bad_request_line", "The request line is malformed.")
    verb, target, minor = match.groups()
    if verb not in METHODS:
        known = verb in FORBIDDEN
        raise refusal("method_not_allowed" if known else "method_unknown", "The method is not allowed.",
                      405 if known else 501)
    path, _, query = target.partition(b"?")
    said = (verb.decode(), target, path.decode("ascii"), query, "1.1" if minor == b"1" else "1.0")
    if not query and len(LINES) < _CACHE and len(line) <= 256:
        LINES[line] = said
    return said


def check_host(host: bytes) -> None:
    """Raises FirewallError unless it is host or host:port."""
    match = HOST.fullmatch(host)
    if match is None or int(match[1] or 0) > 65535:
        raise refusal("bad_host", "The Host header must be host or host:port.")
    if len(HOSTS) < _CACHE:
        HOSTS.add(host)


def joined(headers: list[Header]) -> dict[bytes, bytes]:
    """The values by name, repeated ones joined. Raises FirewallError where only one can be meant."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in fields:
            if name in SINGLE:
                raise refusal("duplicate_header", "A header that may stand only once was repeated.")
            value = fields[name] + b", " + value
        fields[name] = value
    return fields
