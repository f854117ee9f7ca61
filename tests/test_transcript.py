"""Runs and marks: the way back from a channel's offset to the place in the whole answer."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from firewall.case import Case, Said
from firewall.policy import PolicySet
from firewall.transcript import Transcript


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text("xyz", max_size=4)), max_size=20), st.data())
def test_marks_point_back_to_the_character(pieces, data):
    t, mark, flat = Transcript(), 0, []
    for channel, text in pieces:
        t.add(channel, text, mark)
        mark += len(text)
        flat += [(channel, c) for c in text]
    joined = {c: "".join(ch for n, ch in flat if n == c) for c in "abc"}
    said: dict[str, str] = {}
    for channel, text in t.said():
        said[channel] = said.get(channel, "") + text
    assert said == {c: v for c, v in joined.items() if v}
    assert "".join(x for _, x in t.said()) == "".join(ch for _, ch in flat)      # arrival order
    for channel, text in said.items():
        offset = data.draw(st.integers(0, len(text) - 1))
        at = t.mark(channel, offset)
        assert flat[at] == (channel, text[offset])
        assert sum(1 for n, _ in flat[:at] if n == channel) == offset


def test_snapshots_do_not_change_and_unknown_channels_vouch_for_nothing():
    t = Transcript()
    t.add("a", "he", 0)
    before = t.said()
    t.add("a", "llo", 2)
    t.add("b", "!", 5)
    assert before == (("a", "he"),) and t.said() == (("a", "hello"), ("b", "!"))
    assert t.mark("nobody", 3) == 0 and t.size("a") == 5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text("xyz", max_size=4), st.booleans()), max_size=20))
def test_what_was_handed_out_stays_as_it_was(pieces):
    """However often it is asked: runs, their order and each channel's joined words, now and when more has come."""
    t, mark, runs, given_out = Transcript(), 0, [], []
    for channel, text, ask in pieces:
        t.add(channel, text, mark)
        mark += len(text)
        if text and runs and runs[-1][0] == channel:
            runs[-1] = Said(channel, runs[-1].text + text)
        elif text:
            runs.append(Said(channel, text))
        if ask:
            given_out.append((t.said(), tuple(runs)))
    for said, known in given_out:
        assert tuple(said) == known == said[:] and len(said) == len(known) and bool(said) == bool(known)
        assert [said[i] for i in range(-len(known), len(known))] == [*known, *known]
        plain = Case("output", PolicySet(()), (), known)
        case = plain._replace(answer=said)
        assert list(case.channels().items()) == list(plain.channels().items()) == case.trial()


def test_a_question_with_every_word_of_eight_channels_stays_cheap():
    t, mark = Transcript(), 0
    began = time.process_time()
    for i in range(16_000):
        t.add(f"choice/{i % 8}/text", "word ", mark)
        mark += 5
        case = Case("output", PolicySet(()), (), t.said(), False)
        assert len(case.channels()) == min(i + 1, 8) and t.mark("choice/0/text", 5 * (i // 8)) == 40 * (i // 8)
    assert time.process_time() - began < 3          # more than a minute when a question costs the number of runs
