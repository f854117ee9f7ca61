"""The record is written by faster code than it was first: both say the same of every exchange."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError, GuardDown
from firewall.exchange import UNHEARD, Exchange
from firewall.verdict import ALLOW, RANK, Decision, Verdict

ACTIONS = ("allow", "flag", "redact", "block", "error")
NAMES = st.lists(st.sampled_from(["a/1", "a/2", "b/1", "c"]), max_size=3).map(tuple)
DECISIONS = st.just(ALLOW) | st.builds(Decision, st.sampled_from(ACTIONS), NAMES, NAMES)
SCORES = st.sampled_from([0.0, 1.0, 0, 1, 0.5, 0.0000005, 0.9999995]) | st.floats(0, 1)
VERDICTS = st.builds(Verdict, st.sampled_from(["g", "h"]), score=SCORES, depth=st.sampled_from(["snap", "reason"]),
                     ms=st.sampled_from([0.0, 0.005, 1.125]) | st.floats(0, 1e4), tokens=st.integers(0, 9),
                     path=st.lists(st.sampled_from(["p:snap", "q:reason"]), max_size=3).map(tuple),
                     reason=st.sampled_from(["", "because"]))
NUMBERS = st.integers(0, 4)
SECONDS = st.sampled_from([0.0, 1e-6, 0.00033145, 0.5]) | st.floats(0, 1e4)


class First:
    """What an exchange heard, as it was kept before."""

    def __init__(self) -> None:
        self.asks, self.tokens, self.guard_ms, self.last = 0, 0, 0.0, None
        self.path: list[str] = []
        self.reasons: list[str] = []
        self.scores: dict[str, float] = {}

    def heard(self, verdict: Verdict, side: str) -> None:
        self.asks += 1
        if verdict is self.last and side in self.scores:
            return
        if verdict.score > self.scores.get(side, -1.0):
            self.scores[side] = verdict.score
        if verdict is self.last:
            return
        self.last = verdict
        self.tokens += verdict.tokens
        self.guard_ms += verdict.ms
        for step in verdict.path or (f"{verdict.guard}:{verdict.depth}",):
            if step not in self.path:
                self.path.append(step)
        if verdict.reason:
            self.reasons.append(verdict.reason)


def outcome(x: Exchange) -> Decision:
    worst = ALLOW
    for decision in x.decisions.values():
        if worst is ALLOW or RANK[decision.action] > RANK[worst.action]:
            worst = decision
    return worst


def label(x: Exchange) -> str:
    if x.error is not None and not outcome(x).rules:
        return "error"
    if not x.decisions or (x.first_byte and "output" not in x.decisions):
        return "unjudged"
    return outcome(x).action


def first(x: Exchange, heard: First, explain: bool) -> dict[str, Any]:
    """The record as it was built at first."""
    judged = max(x.cleared, x.asked) if x.ending == "blocked" else x.cleared
    out: dict[str, Any] = {
        "event": "exchange", "id": x.id, "time": round(x.wall, 3), "route": x.route, "wire": x.wire,
        "tenant": x.tenant, "model": x.model, "stream": x.stream, "status": x.status,
        "ending": x.ending, "decision": label(x),
        "rules": sorted({r for d in x.decisions.values() for r in d.rules}),
        "input": x.decisions["input"].action if "input" in x.decisions else "unjudged",
        "output": x.decisions["output"].action if "output" in x.decisions else "unjudged",
        "score": rounded(max(heard.scores.values(), default=None)),
        "input_score": rounded(heard.scores.get("input")), "output_score": rounded(heard.scores.get("output")),
        "errors": sorted({e for d in x.decisions.values() for e in d.errors}),
        "policies": x.digest, "guard": x.guard, "path": heard.path, "asks": heard.asks,
        "guard_tokens": heard.tokens, "guard_ms": round(heard.guard_ms, 2), "request_chars": x.request_chars,
        "asked": x.asked or None, "came": x.came, "cleared": x.cleared,
        "unjudged": max(0, x.came - judged), "opaque": x.opaque, "stripped": x.stripped,
        "bytes_in": x.bytes_in, "bytes_out": x.bytes_out,
        "upstream_status": x.upstream_status, "unverified": x.unverified, "release": x.release,
        "first_byte_ms": round((x.first_byte - x.began) * 1e3, 2) if x.first_byte else None,
        "ms": round((x.ended - x.began) * 1e3, 2),
    }
    if x.error is not None:
        out |= {"fault": x.error.fault, "code": x.error.code, "detail": x.error.detail}
    if explain and heard.reasons:
        out["reasons"] = heard.reasons
    return out


def rounded(score: float | None) -> float | None:
    return None if score is None else round(float(score), 6)


def ticks(text: bytes) -> tuple[bytes, dict[str, Any]]:
    """A record without its two durations, and these: where one lies in the middle of two, both are as near."""
    row = orjson.loads(text)
    return orjson.dumps(row | {"ms": 0, "first_byte_ms": 0}), row


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[Exchange, First]:
    x, heard = Exchange("POST /v1/x", "w", draw(st.sampled_from(["", "t"])), "digest", "g\"\u00e9"), First()
    x.began, x.wall = draw(SECONDS), draw(st.floats(1.7e9, 1.9e9) | st.just(1.7e9 + 0.0005))
    x.ended = x.began + (draw(SECONDS) or 1e-9)
    verdicts = draw(st.lists(VERDICTS, max_size=3))
    for status in (0, draw(st.sampled_from([0, 200]))):
        x.upstream_status = status
        for n in draw(st.lists(st.integers(0, 2), max_size=4)):
            if n < len(verdicts):
                x.heard(verdicts[n])
                heard.heard(verdicts[n], "output" if status else "input")
    for side in draw(st.permutations(["input", "output"])):
        for decision in draw(st.lists(DECISIONS, max_size=2)):
            x.decided(side, decision)       # type: ignore[arg-type]
    x.named(draw(st.sampled_from(["", "gpt-4", "x y"])))
    x.stream, x.unverified = draw(st.booleans()), draw(st.booleans())
    x.came, x.cleared, x.asked, x.request_chars, x.opaque = (draw(NUMBERS) for _ in range(5))
    x.stripped, x.bytes_in, x.bytes_out, x.status = (draw(NUMBERS) for _ in range(4))
    if draw(st.booleans()):
        x.first_byte = x.began + (draw(SECONDS) or 1e-9)
    x.release = draw(st.sampled_from(["", "rolling", "watch"]))
    x.ending = draw(st.sampled_from(["unfinished", "passed", "blocked", "failed"]))
    x.error = draw(st.sampled_from([None, GuardDown(), FirewallError("x", "y", detail="caf\u00e9")]))
    return x, heard


@given(exchanges(), st.booleans())
def test_the_record_says_what_it_said_at_first(drawn: tuple[Exchange, First], explain: bool) -> None:
    x, heard = drawn
    said, before = ticks(orjson.dumps(first(x, heard, explain)))
    text, now = ticks(orjson.dumps(x.record(explain)))
    assert text == said
    for name, end in (("ms", x.ended), ("first_byte_ms", x.first_byte)):
        ms = (end - x.began) * 1e3
        assert now[name] == before[name] or abs(now[name] - ms) <= 0.005 + 1e-12 * ms >= abs(before[name] - ms)


@given(exchanges())
def test_outcome_and_label_are_what_they_were(drawn: tuple[Exchange, First]) -> None:
    x, heard = drawn
    assert (x.outcome, x.label) == (outcome(x), label(x))
    assert (x.input_score == UNHEARD) == ("input" not in heard.scores)
    assert (x.output_score == UNHEARD) == ("output" not in heard.scores)


def test_ids_and_boundaries_keep_their_form_and_do_not_come_twice() -> None:
    made = [Exchange("r", "w") for _ in range(500)]
    assert all(x.id[:4] == "req_" and len(bytes.fromhex(x.id[4:])) == 12 for x in made)
    assert all(len(bytes.fromhex(x.boundary)) == 8 for x in made)
    assert len({x.id for x in made}) == len({x.boundary for x in made}) == 500
    assert not {x.boundary for x in made} & {x.id[-16:] for x in made}


FORKED = """
import os
from firewall.exchange import Exchange
Exchange("r", "w")
child = os.fork()
os.write(1, b"".join(b"%b " % Exchange("r", "w").boundary.encode() for _ in range(70)))
if child: os.waitpid(child, 0)
"""


def test_a_forked_process_draws_its_own() -> None:
    said = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True).stdout.split()
    assert len(said) == len(set(said)) == 140
