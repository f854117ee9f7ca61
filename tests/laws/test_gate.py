"""The seven laws of the gate, for any frames, any cutting, any order of answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.gate import Gate
from firewall.wire.frame import Frame, Piece

texts = st.text("ab", max_size=5)
frames = st.lists(st.builds(
    lambda raw, text, pending: Frame(raw, (Piece("c", text),) if text else (), raw, pending),
    st.binary(min_size=1, max_size=4), texts, st.booleans()), max_size=12)
steps = st.lists(st.sampled_from(["push", "push", "ask", "clear", "part", "leave"]), max_size=60)


def play(gate: Gate, frames: list[Frame], steps: list[str], finish: bool = True):
    """Drives a gate; yields (frames that left, clearance so far) after each step."""
    queue, asked, left, cleared, log = list(frames), None, [], -1, []
    script = steps + (["push"] * len(frames) + ["close", "drain"] if finish else [])
    for step in script:
        out: list[Frame] = []
        if step == "push" and queue:
            gate.push(queue.pop(0))
        elif step == "ask" and asked is None:
            asked = gate.question()
        elif step in ("clear", "part") and asked is not None:
            k = asked if step == "clear" else asked // 2
            cleared = max(cleared, k)
            out, asked = list(gate.clear(k)), None
        elif step == "leave":
            out = list(gate.leave())
        elif step == "close":
            gate.close()
        elif step == "drain":
            if asked is not None:
                cleared = max(cleared, asked)
                out, asked = list(gate.clear(asked)), None
            while (mark := gate.question()) is not None:
                cleared = mark
                out += gate.clear(mark)
        left += out
        log.append((list(left), cleared))
    return left, log


def marks(frames: list[Frame]) -> list[int]:
    total, out = 0, []
    for frame in frames:
        total += sum(len(p.text) for p in frame.pieces) + frame.last
        out.append(total)
    return out


@given(frames, steps)
def test_prefix_covered_and_tool_calls_whole(frames, steps):
    _, log = play(Gate(), frames, steps)
    mark = marks(frames)
    for left, cleared in log:
        assert left == frames[:len(left)]                               # 1 prefix
        assert all(mark[i] <= cleared for i in range(len(left)))         # 2 covered
        assert not left or not left[-1].pending or len(left) == len(frames)


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
    assert gate.held == sum(len(f.raw) for f in frames[len(left):pushed])   # 7
    assert gate.full == (gate.held > 8)


@given(frames)
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
    assert gate.question() == 6
    assert [f.raw for f in gate.clear(6)] == [b"stop"]


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
    assert gate.held == 3 and [f.raw for f in gate.clear(gate.question())] == [b"[x]"]


def test_a_frame_after_the_end_is_a_mistake():
    gate = Gate()
    gate.close()
    with pytest.raises(ValueError):
        gate.push(Frame(b"a"))

