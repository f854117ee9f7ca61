"""An answer given whole is the answer that start, write and end give, byte for byte, and leaves the same behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.proxy.http1 import Limits, Reply, Server
from firewall.proxy.http1.connection import Connection


class Wire:
    """A transport that keeps what it is told."""

    def __init__(self, leaving: bool = False) -> None:
        self.said: list[Any] = []
        self.leaving = leaving

    def write(self, data: bytes) -> None:
        self.said.append(data)

    def close(self) -> None:
        self.said.append("close")

    def write_eof(self) -> None:
        self.said.append("eof")

    def is_closing(self) -> bool:
        return self.leaving

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def asked(head: bytes, keep: bool, draining: bool, leaving: bool) -> tuple[Server, Connection, Wire, Reply]:
    got: list[Reply] = []
    app = SimpleNamespace(head=lambda request: None, request=lambda request, reply: got.append(reply))
    server = Server(app, Limits(max_connections=8))  # type: ignore[arg-type]
    server.loop = SimpleNamespace(call_soon=lambda call: None)  # type: ignore[assignment]
    server.date = b"date: today\r\n"
    connection, wire = Connection(server), Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection.data_received(head)
    server.keep_alive, server.draining, wire.leaving = keep, draining, leaving
    (reply,) = got
    return server, connection, wire, reply


def left(server: Server, connection: Connection, wire: Wire, reply: Reply) -> tuple[Any, ...]:
    joined = b"".join(said for said in wire.said if isinstance(said, bytes))
    return (joined, [said for said in wire.said if isinstance(said, str)], connection.state, connection.keep,
            connection.reply, connection.deadline, connection._out, server.in_flight, reply.started, reply.ended, reply.gone)


HEADS = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", b"GET / HTTP/1.0\r\n\r\n",
         b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
         b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET"]


@given(st.sampled_from(HEADS), st.sampled_from([200, 204, 304, 400, 599]), st.sampled_from([b"", b"{}", b"x" * 70000]),
       st.booleans(), st.booleans(), st.booleans())
def test_law_whole_or_in_parts(head: bytes, status: int, body: bytes, keep: bool, draining: bool, leaving: bool) -> None:
    whole, parts = (asked(head, keep, draining, leaving) for _ in range(2))
    whole[3].answer(status, b"a: b\r\n", body)
    parts[3].start(status, b"a: b\r\n", len(body))
    parts[3].write(body)
    parts[3].end()
    assert left(*whole) == left(*parts)
    assert len([said for said in whole[2].said if isinstance(said, bytes)]) == (not leaving)


def test_an_answer_behind_a_start_is_a_bug() -> None:
    reply = asked(HEADS[0], True, False, False)[3]
    reply.start(200, b"", 1)
    with pytest.raises(RuntimeError):
        reply.answer(200, b"", b"x")


def test_nobody_hears_an_answer_that_comes_too_late() -> None:
    _, connection, wire, reply = asked(HEADS[0], True, False, False)
    connection.connection_lost(None)
    reply.answer(200, b"", b"x")
    assert wire.said == [] and reply.gone and not reply.started
