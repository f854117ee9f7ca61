"""TLS in and out with an authority made for the test: cases.md M11, L16."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import subprocess
from pathlib import Path

import pytest
from conftest import OPENSSL, Papers, answers
from test_client import ask

from firewall.errors import FirewallError
from firewall.proxy.http1 import Origin, UpstreamLimits, tls

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="needs the openssl binary")
POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


def origin(papers: Papers, host: str = "127.0.0.1", **kw):
    return lambda port: Origin.parse(f"https://{host}:{port}", **kw)


async def test_in_and_out(house, papers: Papers) -> None:
    context = tls.server(papers.cert, papers.key)
    h = await house(ssl=context, upstream_ssl=tls.server(papers.cert, papers.key), origin=origin(papers, ca=papers.ca))
    client = tls.client(ca=papers.ca)
    reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port, ssl=client, server_hostname="localhost")
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    for _ in range(2):
        writer.write(POST)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
        assert head.startswith(b"HTTP/1.1 200 ") and await reader.readexactly(5) == b"/v1/x"
    assert h.fake.opened == 1
    writer.write(b"GET / HTTP/9.9\r\n\r\n")
    # `linger` ends it: there is no half-close in TLS
    assert (await asyncio.wait_for(reader.read(), 3)).startswith(b"HTTP/1.1 505 ")
    writer.close()


async def test_a_large_answer_through_tls_is_held_back(house, papers: Papers) -> None:
    async def flood(fake, reader, writer) -> None:
        await reader.readuntil(b"abc")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        await reader.read()

    h = await house(flood, ssl=tls.server(papers.cert, papers.key), upstream_ssl=tls.server(papers.cert, papers.key),
                    origin=origin(papers, ca=papers.ca))
    reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port, ssl=tls.client(ca=papers.ca))
    writer.write(POST)
    await reader.readuntil(b"\r\n\r\n")
    assert len(await asyncio.wait_for(reader.readexactly(8_000_000), 10)) == 8_000_000
    writer.close()


@pytest.mark.parametrize("how", ["close_notify", "fin", "reset"])
async def test_e10_an_answer_to_the_end_of_the_connection_needs_close_notify(house, papers: Papers, how: str) -> None:
    """The end of the TCP stream can be forged by anybody on the path; the end of the TLS stream cannot."""
    async def play(fake, reader, writer) -> None:
        await reader.readuntil(b"abc")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf of it")
        await writer.drain()
        await asyncio.sleep(0.05)
        if how == "close_notify":
            return
        raw = writer.get_extra_info("socket")
        if how == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            with socket.socket(fileno=os.dup(raw.fileno())) as bare:
                bare.shutdown(socket.SHUT_WR)
            await reader.read()

    h = await house(play, upstream_ssl=tls.server(papers.cert, papers.key), origin=origin(papers, ca=papers.ca))
    ear, call = await ask(h.pool)
    assert ear.body == b"half of it" and ear.events == [("head", 200), ("end", how == "close_notify")]
    assert call.eof_delimited


async def test_m11_strangers_are_refused(house, papers: Papers) -> None:
    server = tls.server(papers.cert, papers.key)
    cases = [origin(papers), origin(papers, "localhost", ca=papers.ca, sni="other.example")]
    if Path(papers.expired).exists():
        cases.append(origin(papers, ca=papers.ca))
    for n, where in enumerate(cases):
        context = tls.server(papers.expired, papers.key) if n == 2 else server
        h = await house(upstream_ssl=context, origin=where)
        ear, call = await ask(h.pool)
        assert ear.events == [("fail", "upstream_tls")] and ear.error.status == 502 and call.attempt == 0
        assert h.fake.got == []
    h = await house(upstream_ssl=server, origin=origin(papers, insecure=True))
    assert (await ask(h.pool))[0].body == b"/v1/x"


async def test_plain_text_on_the_tls_port_and_tls_to_a_plain_port(house, papers: Papers) -> None:
    h = await house(ssl=tls.server(papers.cert, papers.key))
    reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port)
    writer.write(POST)
    assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), 2)
    writer.close()
    h = await house(answers, origin=origin(papers, ca=papers.ca), upstream=UpstreamLimits(connect_timeout=0.3))
    ear, _ = await ask(h.pool)  # it waits for a line that never comes
    assert ear.events[0][0] == "fail" and ear.error.status in (502, 504)


def test_contexts(papers: Papers) -> None:
    for context in (tls.server(papers.cert, papers.key), tls.client(), tls.client(ca=papers.ca)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls.client().verify_mode == ssl.CERT_REQUIRED and tls.client().check_hostname
    assert tls.client(insecure=True).verify_mode == ssl.CERT_NONE
    assert tls.server(papers.cert, papers.key, client_ca=papers.ca).verify_mode == ssl.CERT_REQUIRED


def test_l16_clear_words_about_bad_files(papers: Papers, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for make in (lambda: tls.server("/nope.pem", papers.key), lambda: tls.server(papers.cert, "/nope.pem"),
                 lambda: tls.server(str(junk), papers.key), lambda: tls.server(papers.cert, papers.ca),
                 lambda: tls.client(ca="/nope.pem"), lambda: tls.client(ca=str(junk))):
        with pytest.raises(FirewallError) as caught:
            make()
        assert caught.value.code == "bad_tls" and ".pem" in caught.value.detail and "\n" not in caught.value.detail


def test_a_key_that_does_not_load_says_why(papers: Papers, tmp_path) -> None:
    locked, garbage = tmp_path / "locked.pem", tmp_path / "garbage.pem"
    subprocess.run([str(OPENSSL), "pkcs8", "-topk8", "-in", papers.key, "-out", locked, "-passout", "pass:x"], check=True)
    garbage.write_text("no key\n")
    for key, why in ((locked, "the key is encrypted"), (garbage, "one of them is not in PEM form")):
        with pytest.raises(FirewallError, match=why):
            tls.server(papers.cert, str(key))
