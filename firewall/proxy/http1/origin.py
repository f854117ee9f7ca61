"""Where a pool sends to: one origin, fixed at start. Nothing a client sends can change it (cases.md M03)."""

from __future__ import annotations

from dataclasses import dataclass
from ssl import SSLContext
from urllib.parse import urlsplit

from ...errors import FirewallError
from . import tls


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of an upstream. `prefix` is the path of the configured URL without its last slash;
    putting it before a target is the caller's affair. `ssl` None: plain TCP."""

    scheme: str
    host: str
    port: int
    ssl: SSLContext | None = None
    sni: str | None = None
    prefix: str = ""

    @staticmethod
    def parse(url: str, *, ca: str | None = None, insecure: bool = False, sni: str | None = None) -> Origin:
        """`http(s)://host[:port][/prefix]`. Raises FirewallError (ours) for anything else: credentials, query,
        fragment, other schemes, ports out of range; and for an unreadable CA file."""
        if any(not "!" <= c <= "~" for c in url):  # urlsplit silently drops some of them
            raise _wrong("has characters that do not belong there")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _wrong("is not a URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise _wrong("must be http://host[:port][/prefix] or https://...")
        if parts.username is not None or parts.password is not None:
            raise _wrong("must not carry credentials; configure the key instead")
        if parts.query or parts.fragment:
            raise _wrong("must not have a query or a fragment")
        host = parts.hostname
        if any(c in "/\\@%" for c in host + parts.path.replace("/", "")):
            raise _wrong("has characters that do not belong there")
        secure = parts.scheme == "https"
        context = tls.client(ca=ca, insecure=insecure) if secure else None
        return Origin(parts.scheme, host, port or (443 if secure else 80), context,
                      (sni or host) if secure else None, parts.path.rstrip("/"))

    @property
    def authority(self) -> bytes:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return (host if self.port == default else f"{host}:{self.port}").encode()


def _wrong(why: str) -> FirewallError:
    return FirewallError("bad_upstream_url", "The upstream is misconfigured.", fault="ours", status=500,
                         detail=f"the upstream URL {why}")
