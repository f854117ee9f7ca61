"""One client request and all that follows from it. The only mutable per-request object; it ends in one record.

A record never says more than was done: what was not judged is said (`unjudged`: characters of the answer that came and no
verdict was about; `opaque`), a monitored violation is `flag`, never `block`, and the default ending is `unfinished`, so that
forgetting to set one cannot look like success. No content, no key, no header value: the model name is kept only when it
looks like one.

Of what the guard believed, the record keeps numbers: `input_score` and `output_score`, the highest suspicion in [0, 1]
of any verdict on that side (null: no verdict), `score`, the higher of both, and `asked`, the mark of the last question
about the answer: judged characters it covered, the end counting as one (null: none was put).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from firewall.errors import FirewallError
from firewall.policy import Direction
from firewall.verdict import ALLOW, RANK, Decision, Verdict

Ending = Literal["unfinished", "passed", "blocked", "refused", "failed", "gone", "answered"]
UNJUDGED = Decision("unjudged")      # type: ignore[arg-type]    # a side that nobody decided about
UNHEARD = -1.0          # the score of a side without a verdict: below any
MODEL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/-@")
RECORD: dict[str, Any] = dict.fromkeys((        # copied and filled: a display of so many is made in parts that are merged
    "event", "id", "time", "route", "wire", "tenant", "model", "stream", "status", "ending", "decision", "rules", "input",
    "output", "score", "input_score", "output_score", "errors", "policies", "guard", "path", "asks", "guard_tokens",
    "guard_ms", "request_chars", "asked", "came", "cleared", "unjudged", "opaque", "stripped", "bytes_in", "bytes_out",
    "upstream_status", "unverified", "release", "first_byte_ms", "ms")) | {"event": "exchange"}
WORDS: list[str] = []   # random words that are not used yet
os.register_at_fork(after_in_child=WORDS.clear)     # nor by a process that has them, too


@dataclass(slots=True)
class Exchange:
    """Args:
        route: the route's constant name, e.g. `POST /v1/chat/completions`; never the client's bytes.
        tenant: keyed hash of the client's credential.
        digest, guard: the policy set and guard fingerprint that judged it, fixed at admission.
    """

    route: str
    wire: str
    tenant: str = ""
    digest: str = ""
    guard: str = ""
    id: str = field(init=False)
    boundary: str = field(init=False)
    began: float = field(init=False)
    wall: float = field(init=False)
    decisions: dict[Direction, Decision] = field(init=False)
    outcome: Decision = ALLOW   # the most severe of both
    ended: float = 0.0          # when it was settled, on the clock of `began`
    model: str = ""
    stream: bool = False
    path: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    asks: int = 0
    last: Verdict | None = None
    input_score: float = UNHEARD    # the highest of each side
    output_score: float = UNHEARD
    asked: int = 0              # mark of the last question about the answer
    tokens: int = 0
    guard_ms: float = 0.0
    came: int = 0               # judged characters upstream sent
    cleared: int = 0            # of them, vouched for
    request_chars: int = 0
    opaque: int = 0             # leaves passed uninspected by name (media), both directions
    unverified: bool = False    # the upstream's certificate was not checked (upstream.verify = false)
    stripped: int = 0           # invisible tag characters removed from the request
    bytes_in: int = 0
    bytes_out: int = 0
    upstream_status: int = 0
    first_byte: float = 0.0     # when the first byte of an answer left
    release: str = ""
    ending: Ending = "unfinished"
    status: int = 0
    error: FirewallError | None = None

    def __post_init__(self) -> None:
        word = WORDS.pop() if WORDS else _drawn()
        self.id, self.boundary = "req_" + word[:24], word[24:]
        self.began, self.wall = time.perf_counter(), time.time()
        self.decisions = {}

    def named(self, model: str) -> None:
        """Keeps a model name that is a name; anything else could be content."""
        self.model = model if model and len(model) <= 100 and MODEL.issuperset(model) else ("?" if model else "")

    def heard(self, verdict: Verdict) -> None:
        """Counts one verdict. It is about the answer as soon as upstream has begun one."""
        self.asks += 1
        if self.upstream_status:
            if verdict.score > self.output_score:
                self.output_score = verdict.score
        elif verdict.score > self.input_score:
            self.input_score = verdict.score
        if verdict is self.last:                # a guard's constant answer
            return
        self.last = verdict
        self.tokens += verdict.tokens
        self.guard_ms += verdict.ms
        for step in verdict.path or (f"{verdict.guard}:{verdict.depth}",):
            if step not in self.path:
                self.path += (step,)
        if verdict.reason:
            self.reasons += (verdict.reason,)

    def decided(self, direction: Direction, decision: Decision) -> None:
        """Keeps the most severe decision of a direction. Going on without a guard (`on-guard-error: open`) is a flag:
        it was allowed to pass, and nobody looked."""
        if decision is ALLOW and direction not in self.decisions:       # what nearly all come to, and no worse than nothing
            self.decisions[direction] = ALLOW
            return
        if decision.errors and decision.action == "allow":
            decision = replace(decision, action="flag")
        if RANK[decision.action] >= RANK[self.decisions.get(direction, ALLOW).action]:
            self.decisions[direction] = decision
            self.outcome = ALLOW
            for one in self.decisions.values():
                if self.outcome is ALLOW or RANK[one.action] > RANK[self.outcome.action]:
                    self.outcome = one

    @property
    def label(self) -> str:
        """The decision as records and metrics name it; never `allow` for what no guard has seen."""
        if self.error is not None and not self.outcome.rules:
            return "error"
        if not self.decisions or (self.first_byte and "output" not in self.decisions):
            return "unjudged"
        return self.outcome.action

    def record(self, explain: bool = False) -> dict[str, Any]:
        """The one record: flat, JSON-ready, without content."""
        began, first, came = self.began, self.first_byte, self.came
        asked, said = self.decisions.get("input", UNJUDGED), self.decisions.get("output", UNJUDGED)
        judged = max(self.cleared, self.asked) if self.ending == "blocked" else self.cleared    # the verdict that blocked
        before, after = _round(self.input_score), _round(self.output_score)
        out = RECORD.copy()
        out["id"], out["time"] = self.id, round(self.wall, 3)
        out["route"], out["wire"], out["tenant"] = self.route, self.wire, self.tenant
        out["model"], out["stream"], out["status"] = self.model, self.stream, self.status
        out["ending"], out["decision"], out["rules"] = self.ending, self.label, _all(asked.rules, said.rules)
        out["input"], out["output"] = asked.action, said.action
        out["score"] = before if self.input_score >= self.output_score else after
        out["input_score"], out["output_score"], out["errors"] = before, after, _all(asked.errors, said.errors)
        out["policies"], out["guard"], out["path"] = self.digest, self.guard, self.path
        out["asks"], out["guard_tokens"] = self.asks, self.tokens
        out["guard_ms"] = round(self.guard_ms, 2) if self.guard_ms else 0.0
        out["request_chars"], out["asked"] = self.request_chars, self.asked or None
        out["came"], out["cleared"], out["unjudged"] = came, self.cleared, came - judged if came > judged else 0
        out["opaque"], out["stripped"] = self.opaque, self.stripped
        out["bytes_in"], out["bytes_out"], out["upstream_status"] = self.bytes_in, self.bytes_out, self.upstream_status
        out["unverified"], out["release"] = self.unverified, self.release
        out["first_byte_ms"] = _ms(first - began) if first else None
        out["ms"] = _ms((self.ended or time.perf_counter()) - began)
        if self.error is not None:
            out |= {"fault": self.error.fault, "code": self.error.code, "detail": self.error.detail}
        if explain and self.reasons:
            out["reasons"] = self.reasons
        return out


def _drawn() -> str:
    """A random word of 20 bytes in hex. Many are drawn at once, for each draw is a call into the kernel."""
    text = os.urandom(20 * 64).hex()
    WORDS.extend(text[at:at + 40] for at in range(40, len(text), 40))
    return text[:40]


def _all(asked: tuple[str, ...], said: tuple[str, ...]) -> list[str]:
    """What both sides name, each once."""
    return sorted({*asked, *said}) if asked or said else []


def _ms(seconds: float) -> float:
    """Milliseconds with two places, by way of whole numbers: `round(x, 2)` goes through decimal text."""
    return round(seconds * 1e5) / 100


def _round(score: float) -> float | None:
    """Six places: enough to rank verdicts, and no bit pattern."""
    return None if score == UNHEARD else round(float(score), 6) if score else 0.0
