"""One client connection: the reader on one side, one reply at a time on the other.

    wait --first byte--> head --complete--> body --complete--> busy --reply ended--> wait
      busy, and too much pipelined behind it --> last (input dropped) --reply ended--> linger
      any fault, any refusal --> linger (answer sent, input dropped for a moment) --> closed

Choices. End of file from the client counts as "gone" even when only its sending half was closed: the two
look the same until we write, and a client that left must not keep an upstream busy (as in nginx).
Deadlines are plain numbers compared by the server's sweep; no timer, no task and no future per connection.
While answer bytes wait for the client the rules of delivery.py hold in every state. The clocks of idling, lingering and
closing begin when it has taken all.
While a request is in progress at most `read_ahead` bytes (and one segment) of what follows it are kept, and reading
pauses. But a client that left is seen only by reading (K07): after `AHEAD` seconds the request becomes the connection's
last, and what is pipelined behind it is read and dropped (RFC 9112 9.3.2: the client sends it again elsewhere).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, cast

from ...errors import FirewallError
from . import delivery
from .delivery import NEVER
from .reply import CLOSE, KEEP, Reply, status_line
from .request import Reader, Request, incomplete

if TYPE_CHECKING:
    from .server import Server

FLUSH = 65536  # queued bytes that are written at once
SMALL = 16384  # bodies up to this size that come whole are not counted: the connection cap bounds them
AHEAD = 0.5  # seconds that reading may pause while a request is in progress
DEAF = frozenset(("linger", "closing", "last"))
PATIENCE = {"wait": "idle_timeout", "head": "header_timeout", "linger": "linger", "closing": "linger"}
TURN = 0.002  # seconds of pipelined requests answered in one go before other connections get their turn


class Connection(asyncio.Protocol):
    """Glue between a transport, `request.Reader`, the app and `Reply`."""

    __slots__ = ("_advancing", "_dropped", "_fresh", "_out", "_queued", "_request", "_since", "deadline", "held", "keep",
                 "owed", "owed_since", "paused", "reader", "reading", "reply", "server", "stall", "state", "taken",
                 "transport", "untaken")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.state = "wait"
        self.deadline = NEVER
        self.keep = True                  # the connection may serve another request
        self.paused = False               # the transport is above its high-water mark
        self.reading = True
        self.reply: Reply | None = None
        self.untaken: Callable[[bool], object] = bool  # told whether the client took what an ended reply left here
        self._request: Request | None = None
        self._out: list[bytes] = []
        self._queued = 0                  # bytes in _out
        self._advancing = False
        self._fresh = True                # no request was answered yet
        self.held = 0                     # bytes of the body counted in the server's budget
        self._since = 0.0                 # when the body began
        self._dropped = 0                 # bytes read in state `last`
        self.stall, self.taken = NEVER, -NEVER  # until when a byte must be taken (NEVER: none waits); taken before
        self.owed, self.owed_since = 0, (0.0, 0.0)  # counted for what an ended reply left here; when, and taken before

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        server = self.server
        limits = server.limits
        self.transport.set_write_buffer_limits(high=limits.high_water, low=limits.low_water)
        peer = transport.get_extra_info("peername")
        self.reader = Reader(limits, peer[0] if isinstance(peer, tuple) else "")
        self.deadline = server.now + (min(1.0, limits.first_byte_timeout) if server.draining
                                      else limits.first_byte_timeout)
        server.joined(self)

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state in DEAF:
            if state == "last":
                if (dropped := self._dropped + len(data)) > self.server.limits.max_body:
                    self.transport.abort()
                self._dropped = dropped
            return
        reader = self.reader
        reader.feed(data)
        if state != "busy":
            if state == "wait":
                self.state = "head"
                self.deadline = self.server.now + self.server.limits.header_timeout
            self._advance()
        if len(reader.buf) > self.server.limits.read_ahead:
            if self.state == "busy" and self.reading:
                self.deadline = self.server.now + AHEAD
            self._reading(False)

    def eof_received(self) -> None:
        if self.state == "body" and self._request is not None:
            self._refuse(incomplete())
        self._lost()
        if self.state != "linger":  # the transport flushes what waits and closes; not for ever
            self._rest("closing")

    def connection_lost(self, exc: Exception | None) -> None:
        self.state, self.deadline = "closed", NEVER
        delivery.paid(self)
        self.untaken(False)
        self._lost()
        self.server.left(self)

    def pause_writing(self) -> None:
        self.paused = True
        self.stall, self.taken = 0.0, -NEVER  # the window begins with the next sweep

    def resume_writing(self) -> None:
        self.paused = False
        delivery.paid(self)
        self.untaken(True)
        reply = self.reply
        if reply is None:  # the next request waited for its turn to be answered
            if self.state == "head":
                self.deadline = self.server.now + self.server.limits.header_timeout
                self._advance()
            return
        self.stall = NEVER
        if not reply.gone and reply.on_writable is not None:
            reply.on_writable()

    # -- requests

    def _advance(self) -> None:
        """Serve what the reader holds, one request after the other, until it needs more or one is in progress."""
        if self._advancing:
            return
        self._advancing = True
        try:
            began = perf_counter()
            while self._step():
                if perf_counter() - began > TURN:
                    self.server.loop.call_soon(self._advance)
                    return
        except FirewallError as error:
            self._refuse(error)
        except Exception as error:  # the app broke: closed, and no text of the exception anywhere
            self._refuse(FirewallError("internal", "The firewall failed.", fault="ours", status=500,
                                       detail=type(error).__name__))
        finally:
            self._advancing = False

    def _step(self) -> bool:
        """One request from head to dispatch; False when there is nothing more to do now."""
        if self.state not in ("head", "body"):
            return False
        server, request, reader = self.server, self._request, self.reader
        new = request is None
        if request is None:
            if self.paused:  # answers wait for a client that does not read: no more of them
                return False
            request = reader.head()
            if request is None:
                self._reading(True)
                return False
            self._request = request
            self.state = "body"
            self.stall = NEVER
            if server.shedding:
                raise FirewallError("overloaded", "The firewall is short of memory.", fault="ours", status=503,
                                    retry_after=1.0)
            refusal = server.app.head(request)
            if refusal is not None:
                self._close_with(*refusal)
                return False
            if request.expect and 0 != request.length <= request.limit and not reader.buf:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not reader.body(request):
            if new:
                self._since = server.now
                self.deadline = server.now + server.limits.body_timeout
            self._reading(True)
            self._count(reader.received)
            return False
        if self.held or len(request.body) > SMALL:
            self._count(len(request.body))
        if server.in_flight >= server.most:
            raise FirewallError("overloaded", "Too many requests are in progress.", fault="ours", status=503,
                                retry_after=1.0)
        self.state = "busy"
        self.deadline = NEVER if self.reading else server.now + AHEAD
        self.keep = request.keep_alive
        self.reply = reply = Reply(self, request.version, request.method == "HEAD")
        server.in_flight += 1
        server.app.request(request, reply)
        return reply.ended

    def _count(self, size: int) -> None:
        """Keep the server's body budget; over it the newcomer is refused, not the ones already in."""
        server = self.server
        server.held += size - self.held
        self.held = size
        if server.held > server.limits.body_budget:
            raise FirewallError("overloaded", "Too many large requests are in progress.", fault="ours", status=503,
                                retry_after=1.0)

    def _uncount(self) -> None:
        self.server.held -= self.held
        self.held = 0

    # -- replies

    def out(self, data: bytes) -> None:
        """Queue bytes; they leave with everything else of this turn of the loop, or now when they are many (one turn
        may bring 32 full reads of an upstream, and `writable` must answer for what is queued here too)."""
        out = self._out
        if not out:
            server = self.server
            if not server.dirty:
                server.loop.call_soon(server.flush)
            server.dirty.append(self)
        out.append(data)
        self._queued += len(data)
        if self._queued > FLUSH:
            self.flush()

    def flush(self) -> None:
        """Hand what was queued to the transport in one write."""
        out = self._out
        if out:
            if not self.transport.is_closing():  # uvloop raises between a failed write and connection_lost
                self.transport.write(b"".join(out))  # of one it is that one, not a copy
            out.clear()
            self._queued = 0

    def persistence(self, reply: Reply) -> bytes:
        """The connection line of an answer."""
        server = self.server
        if not (self.keep and server.keep_alive and not server.draining):
            self.keep = False
            return CLOSE
        return b"" if reply.version == "1.1" else KEEP

    def finished(self, last: bytes = b"") -> None:
        """The reply ended legally, perhaps with these bytes: on to the next request, or close."""
        if last and not self._out and not self.transport.is_closing():  # see `flush`
            self.transport.write(last)
        else:
            if last:
                self._out.append(last)
            self.flush()
        self._fresh = False
        server = self.server
        self._release()
        if self.paused:
            delivery.owe(self)
        else:
            server.in_flight -= 1
            server.held, self.held = server.held - self.held, 0
        if not self.keep or server.draining:
            self._linger() if self.reader.buf or self.state == "last" else self._close()
            return
        waiting = len(self.reader.buf)
        self._rest("head" if waiting else "wait")
        if not self.reading and waiting <= server.limits.read_ahead:
            self._reading(True)
        if waiting and not self._advancing:
            server.loop.call_soon(self._advance)  # not before who ended this has done with it

    def _release(self) -> None:
        """Let go of the reply; its callbacks hold the app's objects, which hold the reply."""
        reply = self.reply
        if reply is not None:
            reply.on_gone = reply.on_writable = None
        self.reply = self._request = None

    def cut(self, reset: bool) -> None:
        """The reply was aborted."""
        self.server.in_flight -= 1
        self._release()
        self._uncount()
        self.flush()
        if reset:
            self.transport.abort()
        else:
            self._close()

    def _refuse(self, error: FirewallError) -> None:
        """Answer a fault of framing (or ours) in the app's words and close."""
        reply, request = self.reply, self._request
        if reply is not None:  # the app raised: it no longer owns the reply
            reply.ended = reply.gone = True
            self.server.in_flight -= 1
            self._release()
            if reply.started:
                self._close()
                return
        if self.state in ("closed", "closing", "linger"):
            return
        try:
            status, headers, body = self.server.app.refused(error, request)
        except Exception:
            status, headers, body = 500, b"", b""
        self._close_with(status, headers, body)

    def _close_with(self, status: int, headers: bytes, body: bytes) -> None:
        request = self._request
        if request is not None and request.method == "HEAD":
            body = b""
        self.out(b"%b%bcontent-length: %d\r\n%b%b\r\n%b" % (
            status_line(status), headers, len(body), self.server.date, CLOSE, body))
        self.flush()
        self._linger()

    # -- endings

    def _reading(self, on: bool) -> None:
        if on != self.reading and not self.transport.is_closing():
            self.reading = on
            (self.transport.resume_reading if on else self.transport.pause_reading)()

    def _linger(self) -> None:
        """Answer sent: close our half, drop what still comes for a moment, then close (the client sees the answer)."""
        self._forget()
        self._rest("linger")
        self._reading(True)
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        self._forget()
        self._rest("closing")
        self.transport.close()

    def _rest(self, state: str) -> None:
        """Nothing is written now. The state's clock begins, and does so again at each sweep that finds bytes waiting."""
        self.state = state
        self.deadline = self.server.now + getattr(self.server.limits, PATIENCE[state])
        self.stall, self.taken = 0.0, -NEVER

    def _forget(self) -> None:
        self._request = None
        self.reader = Reader(self.server.limits)
        self._uncount()

    def _lost(self) -> None:
        """The client left."""
        self._uncount()
        self._out.clear()
        reply, request, self.reply, self._request = self.reply, self._request, None, None
        if request is not None and reply is None:  # inside its body: nobody to answer, but something to record
            with suppress(Exception):
                self.server.app.refused(incomplete(), request)
        if reply is not None and not reply.ended:
            reply.gone = True
            self.server.in_flight -= 1
            on_gone, reply.on_gone, reply.on_writable = reply.on_gone, None, None
            if on_gone is not None:
                on_gone()

    def close_idle(self) -> None:
        """Drain: close when no request has begun. A connection that never had one was opened to send one, which may be
        in the kernel already: closed now it would meet a reset. It has a second."""
        if self.state == "wait":
            if self._fresh:
                self.deadline = min(self.deadline, self.server.loop.time() + 1.0)
            else:
                self._close()

    def kill(self) -> None:
        """Close now, whatever is under way."""
        self.transport.abort()

    def sweep(self, now: float) -> None:
        """Compare the clocks; `now` is when the next sweep will be, so nothing is closed later than promised."""
        limits = self.server.limits
        if self.stall < NEVER:
            late = delivery.late(self, now, getattr(limits, PATIENCE[self.state]) if self.state in PATIENCE else 0.0)
            if late:
                self.transport.abort()
            if late is not False:
                return
        if self.state == "body":
            lasted = now - self._since
            if lasted > limits.body_grace and self.reader.received < limits.body_min_rate * lasted:
                self.deadline = 0.0
        if self.deadline > now:
            return
        if self.state == "head" or self.state == "body":
            self._refuse(FirewallError("request_timeout", "The request came too slowly.", status=408))
        elif self.state == "busy":  # the last request here: what is pipelined behind it is dropped
            self.state, self.deadline, self.keep = "last", NEVER, False
            self.reader = Reader(limits)
            self._reading(True)
        elif self.state == "wait":
            self._close()
        else:
            self.transport.abort()
