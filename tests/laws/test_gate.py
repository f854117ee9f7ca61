"""The laws of the gate, for any frames, any cutting, any order of answers."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firewall.gate import COST, Gate
from firewall.wire.frame import Frame, Piece

texts = st.text("ab", max_size=5)


def one(raw: bytes, text: str, pending: bool, last: bool = False) -> Frame:
    return Frame(raw, (Piece("c", text),) if text else (), raw, pending, last)


raws = st.binary(min_size=1, max_size=4)
unended = st.lists(st.builds(one, raws, texts, st.booleans()), max_size=12)
frames = st.lists(st.builds(one, raws, texts, st.booleans(), st.sampled_from([False, False, False, True])), max_size=12)
steps = st.lists(st.sampled_from(["push", "push", "ask", "clear", "part", "leave"]), max_size=60)


def play(gate: Gate, frames: list[Frame], steps: list[str], finish: bool = True):
    """Drives a gate; yields (frames that left, clearance so far, clearance of questions put as whole) after each step."""
    queue, asked, left, cleared, vouched, log = list(frames), None, [], -1, -1, []
    script = steps + (["push"] * len(frames) + ["close", "drain"] if finish else [])
    for step in script:
        out: list[Frame] = []
        if step == "push" and queue:
            gate.push(queue.pop(0))
        elif step == "ask" and asked is None:
            asked = gate.question()
        elif step in ("clear", "part") and asked is not None:
            k = asked if step == "clear" or gate.whole else asked // 2     # unsure about a whole answer is no verdict
            cleared, vouched = max(cleared, k), max(vouched, k) if gate.whole else vouched
            out, asked = list(gate.clear(k)), None
        elif step == "leave":
            out = list(gate.leave())
        elif step == "close":
            gate.close()
        elif step == "drain":
            if asked is not None:
                cleared, vouched = max(cleared, asked), max(vouched, asked) if gate.whole else vouched
                out, asked = list(gate.clear(asked)), None
            while (mark := gate.question()) is not None:
                cleared, vouched = mark, mark if gate.whole else vouched
                out += gate.clear(mark)
            out += gate.leave()         # as the pump does when there is nothing to ask
        left += out
        log.append((list(left), cleared, vouched))
    return left, log


def marks(frames: list[Frame]) -> list[int]:
    total, out, ended = 0, [], False
    for frame in frames:
        total += sum(len(p.text) for p in frame.pieces) + (frame.last and not ended)
        ended = ended or frame.last
        out.append(total)
    return out


def end(frames: list[Frame]) -> int:
    """The place of the frame that ends the answer."""
    return next((i for i, frame in enumerate(frames) if frame.last), len(frames))


@given(frames, steps)
def test_prefix_covered_and_tool_calls_whole(frames, steps):
    _, log = play(Gate(), frames, steps)
    mark = marks(frames)
    for left, cleared, _ in log:
        assert left == frames[:len(left)]                               # 1 prefix
        assert all(mark[i] <= cleared for i in range(len(left)))         # 2 covered
        assert not left or not left[-1].pending or len(left) == len(frames)


@example([one(b"0", "", False), one(b"1", "", False, True), one(b"2", "", False)], ["push", "push", "ask", "clear"])
@given(frames, steps)
def test_transparent_when_all_is_cleared(frames, steps):
    gate = Gate()
    left, _ = play(gate, frames, steps)
    assert left == frames and gate.done and gate.held == 0                 # 3 transparent


@given(st.text("ab", min_size=1, max_size=30), st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)),
       st.integers(0, 31))
def test_cut_blind(text, cuts_a, cuts_b, bad):
    """A guard that refuses once it sees character `bad`: whatever the cutting, no frame holding it leaves."""
    def run(cuts):
        points = sorted({0, len(text), *(c for c in cuts if c < len(text))})
        gate, out, seen = Gate(), "", 0
        for a, b in zip(points, points[1:], strict=False):
            gate.push(Frame(b"x", (Piece("c", text[a:b]),)))
            seen = b
            if (mark := gate.question()) is not None:
                if bad < seen:
                    gate.refuse()
                else:
                    out += "".join(f.pieces[0].text for f in gate.clear(mark))
        gate.close()
        refused = gate.shut
        if not refused and (mark := gate.question()) is not None:
            out += "".join(f.pieces[0].text for f in gate.clear(mark))
        return out, refused
    (out_a, refused_a), (out_b, refused_b) = run(cuts_a), run(cuts_b)
    assert refused_a == refused_b == (bad < len(text))                   # 4 the outcome does not depend on the cut
    for out in (out_a, out_b):
        assert text.startswith(out) and (len(out) <= bad)
    if not refused_a:
        assert out_a == out_b == text


@given(frames, steps, frames)
def test_final_after_a_refusal(frames, steps, more):
    gate = Gate()
    play(gate, frames, steps, finish=False)
    gate.refuse()
    for frame in more:
        gate.push(frame)
    gate.close()
    assert gate.question() is None and list(gate.clear(10**9)) == [] == list(gate.leave())   # 5 final
    assert gate.held == 0 and not gate.done


@given(frames)
def test_silent_guard_silent_gate(frames):
    gate = Gate()
    for frame in frames:
        gate.push(frame)
        gate.question()
        assert list(gate.leave()) == []                                  # 6
    gate.close()
    gate.question()
    assert list(gate.leave()) == []


@given(frames, steps)
def test_bounded_held_bytes_are_exact(frames, steps):
    gate = Gate(limit=8)
    left, _ = play(gate, frames, steps, finish=False)
    pushed = min(len(frames), steps.count("push"))
    assert gate.held == sum(len(f.raw) + COST for f in frames[len(left):pushed])   # 7
    assert gate.full == (gate.held > 8)


@given(frames, steps, st.sampled_from(["rolling", "whole"]))
def test_the_end_and_what_follows_leave_after_a_verdict_on_the_whole(frames, steps, release):
    _, log = play(Gate(release), frames, steps)
    mark, last = marks(frames), end(frames)
    for left, _, vouched in log:
        assert all(mark[i] <= vouched for i in range(last, len(left)))     # 8 with everything before it


@given(frames, steps, st.integers(0, 10 * COST), st.sampled_from(["rolling", "whole", "watch"]))
def test_too_large_is_too_large_however_it_came(frames, steps, most, release):
    """7: bytes that must leave together are counted from the frames alone."""
    gate = Gate(release, 8, most)
    play(gate, frames, steps)
    size, over = 0, False
    for i, frame in enumerate(frames):
        bound = frame.pending or release == "whole"
        size += len(frame.raw) + COST if bound or size else 0
        over = over or size > most
        if not frame.pending and (release != "whole" or end(frames[:i + 1]) <= i):
            size = 0
            release = "rolling" if release == "whole" else release      # behind the end only calls are bound
    assert gate.over == (over and release != "watch")


@given(unended)
def test_whole_asks_once_and_watch_never_holds(frames):
    whole, watch = Gate("whole"), Gate("watch")
    out = []
    for frame in frames:
        whole.push(frame)
        assert whole.question() is None
        watch.push(frame)
        out += watch.leave()
    assert out == frames
    whole.close()
    mark = whole.question()
    assert mark == (marks(frames) or [0])[-1] + 1 and whole.question() is None
    assert list(whole.clear(mark)) == frames


def test_the_end_is_held_until_a_verdict_on_the_whole():
    gate = Gate()
    gate.push(Frame(b"a", (Piece("c", "hello"),)))
    assert [f.raw for f in gate.clear(gate.question())] == [b"a"]
    gate.push(Frame(b"stop", last=True))
    assert list(gate.leave()) == []
    assert gate.question() == 6 and gate.whole
    gate.push(Frame(b"usage"))
    assert [f.raw for f in gate.clear(6)] == [b"stop", b"usage"]
    gate.push(Frame(b"done"))
    assert [f.raw for f in gate.leave()] == [b"done"]       # upstream may close late: nobody waits for that
    gate.close()
    assert gate.question() is None and gate.done            # what was asked as a whole is not asked again


def test_a_question_before_the_end_never_covers_it():
    gate = Gate()
    gate.push(Frame(b"a", (Piece("c", "hello"),)))
    assert gate.question() == 5 and not gate.whole
    gate.push(Frame(b"stop", (Piece("c", "!"),), last=True))
    assert [f.raw for f in gate.clear(5)] == [b"a"]
    gate.push(Frame(b"more", (Piece("c", "bo"),)))           # the end was none
    assert gate.question() == 9 and not gate.whole
    assert gate.clear(9) == ()
    gate.push(Frame(b"done"))
    assert gate.leave() == () and gate.question() is None
    gate.close()
    assert gate.question() == 10 and gate.whole
    assert [f.raw for f in gate.clear(10)] == [b"stop", b"more", b"done"]


def test_a_long_call_costs_no_look_at_its_frames():
    """A question with every frame of a call: 20,000 of them are still a fraction of a second."""
    gate = Gate()
    began = time.process_time()
    for _ in range(20_000):
        gate.push(Frame(b"x" * 300, (Piece("c", "word"),), pending=True))
        assert gate.clear(gate.question()) == ()
    gate.push(Frame(b"stop"))
    assert len(gate.leave()) == 20_001 and gate.held == 0
    assert time.process_time() - began < 2


def test_one_question_in_flight_and_none_without_news():
    gate = Gate()
    for _ in range(100):
        gate.push(Frame(b"{}"))
    assert gate.question() is None           # G16: empty deltas cost nothing
    gate.push(Frame(b"a", (Piece("c", "x"),)))
    assert gate.question() == 1 and gate.question() is None
    assert list(gate.clear(0)) != []         # unsure about the last character: what came before it may leave
    assert gate.question() is None           # not asked again until more comes


def test_rewrite_changes_bytes_not_marks():
    gate = Gate()
    gate.push(Frame(b"secret", (Piece("c", "secret"),)))
    gate.rewrite(lambda f: f._replace(raw=b"[x]"))
    assert gate.held == 3 + COST and [f.raw for f in gate.clear(gate.question())] == [b"[x]"]


def test_a_frame_after_the_end_is_a_mistake():
    gate = Gate()
    gate.close()
    with pytest.raises(ValueError):
        gate.push(Frame(b"a"))



def test_a_flood_of_empty_frames_is_not_free():
    """A held frame costs memory however few bytes it has: keep-alives inside a call cannot fill it unseen."""
    gate = Gate(most=1 << 20)
    for _ in range((1 << 20) // COST):
        gate.push(Frame(b"\n", pending=True))
    assert gate.over and gate.held > 1 << 20
