"""Runs and marks: the way back from a channel's offset to the place in the whole answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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
