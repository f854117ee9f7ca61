"""Canonical windows: cover everything, never change once complete."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from firewall.guards.encoder.windows import LONG, SIZE, STRIDE, context, spaced, windows

SOME = ["a", "bomb", "well,", "\n", "recipe for", "x" * 70, "é", "日本語", "  ", "0x1f"]
WORDS = st.lists(st.sampled_from(SOME), max_size=400)
TEXT = st.builds(" ".join, WORDS) | st.text(max_size=3 * SIZE)


@given(TEXT)
def test_every_character_is_in_a_window(text: str) -> None:
    seen = [False] * len(text)
    for w in windows(text):
        assert text[w.start:w.start + len(w.text)] == w.text
        seen[w.start:w.start + len(w.text)] = [True] * len(w.text)
    assert all(ok or not c.strip() for ok, c in zip(seen, text, strict=True))


@given(TEXT, TEXT)
def test_complete_windows_of_a_prefix_are_windows_of_the_whole(head: str, more: str) -> None:
    before = [w for w in windows(head) if w.complete]
    after = [w for w in windows(head + more) if w.complete]
    assert after[:len(before)] == before


def test_one_short_text_is_one_open_window() -> None:
    assert [(w.start, w.text, w.complete) for w in windows("hello")] == [(0, "hello", False)]
    assert list(windows("")) == list(windows(" \n ")) == []


def test_windows_overlap_and_start_at_fixed_places() -> None:
    got = list(windows("word " * 400))
    assert [w.start for w in got[:3]] == [0, STRIDE, 2 * STRIDE + 1]      # a broken word is left to its neighbour
    assert all(b.start < a.start + len(a.text) for a, b in zip(got, got[1:], strict=False))


@given(TEXT)
def test_long_runs_are_broken_and_nothing_is_lost(text: str) -> None:
    out = spaced(text)
    assert "".join(out.split()) == "".join(text.split())
    assert max(map(len, out.split()), default=0) <= LONG or out == text and len(text) <= LONG


def test_context_keeps_both_ends() -> None:
    text = "start " + "x" * 1000 + " end"
    assert context(text).startswith("start") and context(text).endswith("end") and len(context(text)) < 220
    assert context("  a\n b ") == "a b"
