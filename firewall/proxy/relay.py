"""The pump: upstream's bytes -> frames -> gate -> client, with one question to the guard in flight.

No task, queue, future or timer a token: upstream's bytes arrive in a callback, become frames, and whatever the gate
lets go is written at once. A question that the guard answers from memory (`known`) costs a function call; one that
needs thinking is a task, and meanwhile frames pile up behind the gate: a slow guard makes large windows, a fast one
small. The head waits too: until the first clearance a refusal can still be a proper answer.

Three things can end it, each exactly once: everything left (`passed`), a decision stopped it (`blocked`), or
something broke (`failed`: guard, upstream, our own mistake). A client that leaves (`gone`) cancels upstream and guard.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from firewall.case import Message, quick_case
from firewall.errors import FirewallError, GuardDown, internal
from firewall.exchange import Ending, Exchange
from firewall.gate import Gate, Release
from firewall.guards.guard import Guard
from firewall.policy import PolicySet
from firewall.proxy import headers, statuses
from firewall.proxy.http1.client import Call
from firewall.proxy.http1.server import Reply
from firewall.proxy.redact import Redaction, blocked
from firewall.transcript import Transcript
from firewall.verdict import ALLOW, Decision, Verdict, decide
from firewall.wire.frame import Frame
from firewall.wire.sse import EVENTS, padded
from firewall.wire.wire import Asked, Reader, StreamLimits, Wire

BLOCKED = "This answer was stopped by a content policy."


@dataclass(frozen=True)
class Pace:
    """Release mode and bounds of one stream; bytes and seconds (see [stream] in firewall.toml).

    Args:
        hold: bytes held for a verdict above which reading upstream stops until it comes.
        whole: bytes that may have to be held together: an answer judged as a whole, one document, a tool call.
        pad: what leaves of a stream has one of few sizes.
    """

    release: Release = "rolling"
    hold: int = 262_144
    whole: int = 16_777_216
    event: int = 1_048_576
    content_idle: float = 120.0
    total: float = 3600.0
    pad: bool = False

    @cached_property
    def limits(self) -> tuple[StreamLimits, StreamLimits]:
        """What a reader may hold; with folded copies shown in the second (they are judged where policies redact)."""
        plain = StreamLimits(event=self.event, body=self.whole)
        return plain, replace(plain, copies=True)


class Relay:
    """Receives one upstream answer (it is the client half's `Sink`) and answers one client."""

    __slots__ = ("asked", "call", "ended", "exchange", "gate", "guard", "judged", "messages", "over", "pace", "paused",
                 "policies", "reader", "redaction", "reply", "settle", "started", "status", "task", "transcript",
                 "upstream_headers", "wire", "words_at")

    def __init__(self, exchange: Exchange, wire: Wire, asked: Asked, guard: Guard, policies: PolicySet, reply: Reply,
                 pace: Pace, settle: Callable[[Relay], object]) -> None:
        self.exchange, self.wire, self.asked, self.guard = exchange, wire, asked, guard
        self.policies, self.reply, self.pace = policies, reply, pace
        self.gate = Gate(pace.release, pace.hold, pace.whole)
        self.transcript = Transcript()
        self.messages: tuple[Message, ...] = asked.messages
        self.reader: Reader | None = None
        self.call: Call | None = None
        self.task: asyncio.Task[Verdict] | None = None
        self.settle = settle        # told once, when all is over
        self.over = self.started = self.paused = self.ended = False
        self.judged = 0             # characters a verdict vouched for; the gate's clearance may say more (fail open)
        self.status = 502
        self.upstream_headers: headers.Pairs = ()
        self.redaction: Redaction | None = None     # made by the first decision to redact
        self.words_at = exchange.began
        exchange.release = pace.release
        reply.on_gone, reply.on_writable = self.gone, self.breathe

    # upstream's side: the Sink

    def head(self, status: int, received: tuple[tuple[bytes, bytes], ...]) -> None:
        """Status and headers of upstream's answer; nothing leaves yet."""
        if self.over:
            return
        self.status, self.upstream_headers = status, received
        self.exchange.upstream_status = status
        try:
            statuses.check(status, received)
            kind = headers.first(received, b"content-type")     # with its charset: the wire reads UTF-8 only
            limits = self.pace.limits[self.policies.redacts]
            self.reader = self.wire.reader(self.asked, kind, limits)
        except Exception as error:
            self.broke(error)
            return

    def data(self, raw: bytes) -> None:
        """Body bytes: the hot path."""
        if self.reader is None or self.gate.shut:
            return
        try:
            frames = self.reader.feed(raw)
            if frames:
                self.take(frames)
                self.turn()
        except Exception as error:
            self.broke(error)

    def end(self, complete: bool) -> None:
        """Upstream is finished; `complete` is False when its framing was cut short."""
        if self.reader is None or self.gate.shut or self.over:
            return
        try:
            if not complete:
                raise FirewallError("upstream_truncated", "The upstream's answer ended too early.", fault="upstream",
                                    status=502)
            self.take(self.reader.close())
            self.gate.close()
            self.call = None
            self.turn()
        except Exception as error:
            self.broke(error)

    def fail(self, error: FirewallError) -> None:
        """Connect, TLS, timeout or protocol trouble."""
        self.broke(error)

    # the middle

    def take(self, frames: list[Frame]) -> None:
        gate, transcript = self.gate, self.transcript
        for frame in frames:
            mark = gate.mark
            for channel, text in frame.pieces:
                transcript.add(channel, text, mark)
                mark += len(text)
            if mark != gate.mark:
                self.words_at = 0.0     # stamped lazily: `look` reads the clock, not the hot path
            if self.redaction is not None and self.redaction.spans and self.reader is not None:
                try:
                    frame = self.redaction.later(frame, self.reader)
                except FirewallError:
                    decision = blocked(self.exchange.decisions["output"])
                    self.exchange.decided("output", decision)
                    return self.stop(decision)
            gate.push(frame, mark)
            if gate.over:
                raise too_much()

    def turn(self) -> None:
        """Asks what can be asked now, and lets go what may leave."""
        gate = self.gate
        mark = gate.question()
        if mark is None or gate.release == "watch":
            self.send(gate.leave())
        while mark is not None:
            exchange = self.exchange
            exchange.asked = mark
            case = quick_case(("output", self.policies, self.messages, self.transcript.said(), gate.whole,
                               exchange.tenant, exchange.boundary))
            verdict = self.guard.known(case)
            if verdict is None:
                self.task = asyncio.get_running_loop().create_task(self.guard.judge(case))
                self.task.add_done_callback(partial(self.thought, mark, case.whole))
                break
            if not self.heard(mark, case.whole, verdict):
                return
            mark = gate.question() if gate.mark > mark else None
        if self.call is not None and (gate.held or self.paused or not self.reply.writable):
            self.flow(self.call)

    def thought(self, mark: int, whole: bool, task: asyncio.Task[Verdict]) -> None:
        """A verdict that took time has come (or did not)."""
        self.task = None
        if task.cancelled() or self.over or self.gate.shut:
            return
        try:
            if (error := task.exception()) is not None:
                if isinstance(error, GuardDown) and self.unguarded(mark, error):
                    return
                raise error
            if self.heard(mark, whole, task.result()):
                self.turn()
        except Exception as error:
            self.broke(error)

    def heard(self, mark: int, whole: bool, verdict: Verdict) -> bool:
        """One verdict about the first `mark` characters. False when it ended the exchange."""
        exchange, gate = self.exchange, self.gate
        exchange.heard(verdict)
        clear = mark
        if verdict.unsure:
            clear = min(clear, *(self.transcript.mark(channel, offset) for channel, offset in verdict.unsure))
        if verdict.findings:
            decision = decide((verdict,), self.policies)
            if gate.release == "watch" and decision.action != "allow":
                decision = Decision("flag", decision.rules, decision.errors)
            if decision.action == "redact" and not self.redact(decision, verdict):
                decision = blocked(decision)
            exchange.decided("output", decision)
            if decision.stops:
                self.stop(decision)
                return False
        elif gate.cleared < 0:
            exchange.decided("output", ALLOW)
        if whole and clear < mark:              # unsure about a whole answer is no verdict
            raise GuardDown("guard_unsure", "the guard did not vouch for a whole answer")
        self.judged = clear
        self.send(gate.clear(clear))
        return True

    def redact(self, decision: Decision, verdict: Verdict) -> bool:
        """Whether all that is to be redacted could be."""
        if self.redaction is None:
            self.redaction = Redaction(self.gate, self.transcript)
        return self.reader is not None and self.redaction.apply(decision.spans, verdict.unsure, self.reader)

    def unguarded(self, mark: int, error: GuardDown) -> bool:
        """No verdict. True where the answer goes on without: monitoring, or every policy says `on-guard-error: open`."""
        watch = self.gate.release == "watch"
        if not watch and decide((), self.policies, (error,)).stops:
            return False
        self.exchange.decided("output", Decision("flag", (), (error.code,)))
        self.send(self.gate.clear(self.gate.cleared if watch else mark))
        if not self.over:
            self.turn()                         # what came meanwhile is a new question
        return True

    def send(self, frames: Sequence[Frame]) -> None:
        """Writes frames that may leave, in one piece, after the head if it is still here."""
        gate = self.gate
        if frames:
            data = frames[0].raw if len(frames) == 1 else b"".join([frame.raw for frame in frames])
            if self.pace.pad:
                data = self.sized(data)
            self.exchange.bytes_out += len(data)
            if self.started:
                self.reply.write(data)
            elif gate.done and not self.streamed:       # an unstreamed answer leaves in one piece, with its length
                self.ended = self.begin(self.status, data)
            else:
                self.begin(self.status)
                self.reply.write(data)
        if gate.closed and gate.done:
            if not self.ended:
                self.ended = True
                self.reply.end()
            if gate.answered:
                self.finish("passed", self.status)

    def begin(self, status: int, whole: bytes | None = None) -> bool:
        """The head leaves, with the whole body where that is all. True then."""
        self.started = True
        self.exchange.first_byte = time.perf_counter()
        kind = self.reader.content_type if self.reader else b"application/json"
        lines = headers.answer(kind, self.upstream_headers, self.exchange)
        if whole is None:
            self.reply.start(status, lines)
        else:
            self.reply.answer(status, lines, whole)
        return whole is not None

    @property
    def streamed(self) -> bool:
        return self.reader is not None and self.reader.content_type != b"application/json"

    def sized(self, data: bytes) -> bytes:
        """Bytes of an answer as they leave."""
        return padded(data) if self.pace.pad and self.reader and self.reader.content_type == EVENTS else data

    def flow(self, call: Call) -> None:
        """Back-pressure both ways: stop reading while much is held for a verdict or the client reads slowly.

        What no verdict that is on its way could let go (a tool call under way) is read on, up to `most`.
        """
        gate = self.gate
        if gate.held > gate.most and not gate.asking:
            raise too_much()
        stop = gate.asking and gate.full or not self.reply.writable
        if stop != self.paused:
            self.paused = stop
            (call.pause if stop else call.resume)()

    def breathe(self) -> None:
        """The client took what was written."""
        if self.call is not None and self.paused and not (self.gate.asking and self.gate.full):
            self.paused = False
            self.call.resume()

    # endings

    def stop(self, decision: Decision) -> None:
        """A decision against the answer: upstream is closed, the client gets the dialect's own ending."""
        self.hang_up()
        message = decision.message or BLOCKED
        after = self.gate.after
        self.gate.refuse()
        reader = self.reader
        assert reader is not None
        if self.started:
            self.reply.write(self.sized(reader.ending(after, message)))
            self.reply.end()
            self.finish("blocked", self.status)
        else:
            body = reader.ending(None, message) if self.streamed else self.wire.withheld(self.asked, message,
                                                                                         self.exchange.id)
            self.reply.answer(200, headers.answer(reader.content_type, (), self.exchange), self.sized(body))
            self.finish("blocked", 200)

    def broke(self, error: BaseException) -> None:
        """Something failed: closed, in a legal message, with a record that says so."""
        if self.over:
            return
        self.hang_up()
        fault = error if isinstance(error, FirewallError) else internal(error, "answer")
        if not self.started:
            fault = statuses.unread(fault, self.exchange.upstream_status, self.upstream_headers)
        self.exchange.error = fault
        if fault.fault == "guard":
            self.exchange.decided("output", decide((), self.policies, (_down(fault),)))
        after = self.gate.after
        self.gate.refuse()
        try:
            if self.ended:
                pass
            elif self.started and self.reader is not None:
                self.reply.write(self.sized(self.reader.fault(after, fault)))
                self.reply.end()
            elif not self.started:
                body = self.wire.error(fault, self.exchange.id)
                self.reply.answer(fault.status, headers.refusal(self.exchange, fault), body)
        except Exception:
            self.reply.abort()
        self.finish("failed", self.status if self.started else fault.status)

    def gone(self) -> None:
        """The client left: cancellation reaches upstream and guard."""
        if not self.over:
            self.hang_up()
            self.gate.refuse()
            self.finish("gone", self.status if self.started else 499)

    def look(self, now: float) -> None:
        """Content-idle and total deadlines; called every so often (`App`)."""
        if self.reader is None:                     # upstream has not answered: the pool's clocks run
            return
        if self.words_at == 0.0 or self.paused:     # while we do not read, silence is ours
            self.words_at = now
        late = now - self.exchange.began > self.pace.total
        if late or (now - self.words_at > self.pace.content_idle and not self.gate.asking and not self.gate.closed):
            self.broke(FirewallError("upstream_timeout", "The upstream was silent for too long." if not late else
                                     "The answer took too long.", fault="upstream", status=504))

    def hang_up(self) -> None:
        if self.call is not None:
            self.call.cancel()
            self.call = None
        if self.task is not None:
            self.task.cancel()
            self.task = None

    def finish(self, ending: Ending, status: int) -> None:
        if self.over:
            return
        self.over = True
        exchange = self.exchange
        exchange.ending, exchange.status = ending, status
        exchange.came, exchange.cleared = self.gate.mark, min(self.judged, self.gate.mark)
        exchange.opaque += len(self.reader.opaque) if self.reader is not None else 0
        self.reply.on_gone = self.reply.on_writable = None
        self.settle(self)


def too_much() -> FirewallError:
    return FirewallError("held_too_much", "The answer could not be judged in parts within the memory allowed for it.",
                         fault="guard", status=502)


def _down(error: FirewallError) -> GuardDown:
    return error if isinstance(error, GuardDown) else GuardDown(error.code, error.detail)


