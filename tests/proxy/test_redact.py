"""Redaction of a growing answer: what is cut, and that many spans and many verdicts cost each frame once (G09)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.gate import Gate
from firewall.proxy.headers import MASK
from firewall.proxy.redact import Redaction, covered, join, masked
from firewall.transcript import Transcript
from firewall.verdict import Span
from firewall.wire.reader import Streamed
from tests.wire.streams import events, listen

PLACES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda p: (p[0], p[0] + p[1])), max_size=8)
TEXT = "".join(chr(0x100 + at) for at in range(60))     # every character once


@given(PLACES, st.lists(st.integers(0, 60), max_size=5), st.lists(st.integers(0, 8), max_size=3))
def test_whatever_the_cuts_the_places_are_gone_and_nothing_else(places: list[tuple[int, int]], cuts: list[int],
                                                                verdicts: list[int]) -> None:
    row: list[tuple[int, int]] = []
    bounds = [0, *sorted(verdicts), len(places)]
    for start, end in zip(bounds, bounds[1:], strict=False):
        join(row, sorted(places[start:end]))
    assert all(a[1] <= b[0] for a, b in zip(row, row[1:], strict=False)) and all(covered(row, p) for p in places)
    ends = [0, *sorted(cuts), 60]
    pieces = [(start, TEXT[start:end]) for start, end in zip(ends, ends[1:], strict=False)]
    new = [masked(text, start, row) for start, text in pieces]
    out = "".join(text if cut is None else cut for (_, text), cut in zip(pieces, new, strict=True))
    assert out.replace(MASK, "") == "".join(c for at, c in enumerate(TEXT) if not any(a <= at < b for a, b in places))
    assert out.count(MASK) == len(row)
    assert all((cut is None) == all(b <= at or a >= at + len(text) for a, b in row)
               for (at, text), cut in zip(pieces, new, strict=True))


def delta(**said: Any) -> bytes:
    return events({"choices": [{"index": 0, "delta": said}]})


MAIL = "user{:05}@example.com, "
SIZE = len(MAIL.format(0))


def growing(count: int, every: int, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, int, float]:
    """An answer held to its end, a span in each event, a verdict after every so many that repeats those before:
    what leaves, how often an event was rewritten, seconds of redaction."""
    reader, gate, transcript = listen("openai-chat"), Gate("whole"), Transcript()
    redaction, spans, spent, written = Redaction(gate, transcript), [], 0.0, []
    rewrite = Streamed.rewrite
    monkeypatch.setattr(Streamed, "rewrite", lambda *given: written.append(1) or rewrite(*given))
    for number in range(count):
        for frame in reader.feed(delta(content=MAIL.format(number))):
            for channel, text in frame.pieces:
                transcript.add(channel, text, gate.mark)
            gate.push(redaction.later(frame, reader) if redaction.spans else frame)
        spans.append(Span("choice/0/text", number * SIZE, (number + 1) * SIZE - 2))
        if number % every == every - 1:
            began = time.process_time()
            assert redaction.apply(spans, (), reader)
            spent += time.process_time() - began
    gate.close()
    gate.question()
    return b"".join(frame.raw for frame in gate.clear(gate.mark)), len(written), spent


@pytest.mark.parametrize("every", [1, 7, 200])
def test_a_frame_is_written_once_for_what_is_new_in_it(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out, written, _ = growing(200 - 200 % every, every, monkeypatch)
    assert out.count(MASK.encode()) == written == 200 - 200 % every and b"@" not in out


def test_many_spans_in_many_frames_cost_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame once looked at every span: 4,000 e-mails in 100 kB took more than ten seconds."""
    out, _, spent = growing(4000, 4000, monkeypatch)
    assert out.count(MASK.encode()) == 4000 and spent < 3.0


def test_a_place_that_left_redacted_may_be_found_again() -> None:
    """Another rule's span inside of what was cut is no leak; one that reaches beyond it is."""
    reader, gate, transcript = listen("openai-chat"), Gate(), Transcript()
    redaction = Redaction(gate, transcript)
    for text in ("a zebra here", " and more"):
        for frame in reader.feed(delta(content=text)):
            for channel, said in frame.pieces:
                transcript.add(channel, said, gate.mark)
            gate.push(redaction.later(frame, reader) if redaction.spans else frame)
        if gate.cleared < 0:
            assert redaction.apply([Span("choice/0/text", 2, 7)], (), reader)
            gate.question()
            assert MASK.encode() in gate.clear(gate.mark)[0].raw
    assert redaction.apply([Span("choice/0/text", 2, 7), Span("choice/0/text", 3, 7)], (), reader)
    assert not redaction.apply([Span("choice/0/text", 3, 8)], (), reader)
