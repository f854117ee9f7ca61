"""TLS contexts, in and out: TLS 1.2 or newer, ALPN http/1.1 only, verification on unless told in so many words."""

from __future__ import annotations

import ssl
from pathlib import Path

from ...errors import FirewallError

ALPN = ["http/1.1"]


def _wrong(detail: str) -> FirewallError:
    return FirewallError("bad_tls", "TLS is misconfigured.", fault="ours", status=500, detail=detail)


def server(cert: str, key: str | None = None, *, client_ca: str | None = None) -> ssl.SSLContext:
    """A context to listen with. `cert`: PEM chain, `key`: PEM key (None: in the same file); `client_ca` asks
    clients for certificates. Raises FirewallError `bad_tls` naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(ALPN)
    for name, path in (("certificate", cert), ("key", key)):
        if path is not None:
            _readable(name, path)
    try:
        # an encrypted key must fail, not ask on the terminal
        context.load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as error:
        locked = b"ENCRYPTED" in Path(key or cert).read_bytes()
        reason = "the key is encrypted; write it without a passphrase" if locked else (
            getattr(error, "reason", None) or "one of them is not in PEM form")
        raise _wrong(f"certificate {cert} and key {key or cert} do not load: {reason}") from None
    if client_ca is not None:
        _authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client(*, ca: str | None = None, insecure: bool = False) -> ssl.SSLContext:
    """A context to connect with. `ca`: PEM file that replaces the system's authorities; `insecure`: no
    verification at all, for tests, and the caller must say so in its records (M11)."""
    context = ssl.create_default_context() if ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    if ca is not None:
        _authorities(context, ca)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _readable(name: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise _wrong(f"the {name} file {path} cannot be read: {error.strerror}") from None


def _authorities(context: ssl.SSLContext, path: str) -> None:
    _readable("CA", path)
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise _wrong(f"the CA file {path} does not load: {reason}") from None
