"""Readings of a text: the same whatever follows, every place known, and quick ways that read as the plain one does."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.case import Message
from firewall.guards.cleaned import ALTERED, LONGEST, _read, bare, clean, fold, origin, wide
from firewall.guards.views import disguised
from firewall.proxy.tags import hidden

ODD = st.text(st.sampled_from(list("\0\x1b🅰⒜" "ab Q-1\n\réßøªº²½…—‑“яαｆﬁが日\u0301\u200b\u00a0\u2028\ufdfa٣⑽😀\ufe0f")),
              max_size=20)


@given(st.text("az ,.!?\n", max_size=200))
def test_plain_text_is_its_own_cleaned_view(text: str) -> None:
    assert clean(text) == text


def test_tabs_and_line_ends_stay() -> None:
    text = "a\tb\r\nc"
    assert bare(text) == text == clean(text) and bare(text + "\0") == text and origin("a\0bc", 1, 2, fold) == (2, 3)


@given(ODD | st.text(max_size=20), ODD | st.text(max_size=20))
def test_a_reading_says_the_same_of_a_text_whatever_follows(one: str, other: str) -> None:
    assert bare(one + other) == bare(one) + bare(other)
    assert clean(one + other) == clean(one) + clean(other)
    assert bare(one) == "".join(map(_read, one))


def test_the_gate_leaves_out_only_what_reads_as_itself() -> None:
    for point in [*range(0x20000), *range(0xE0000, 0xE0200), sys.maxunicode]:
        char = chr(point)
        read = _read(char)
        assert read == char or ALTERED.match(char), hex(point)
        assert len(read) <= LONGEST


def test_typography_reads_as_it_is_typed() -> None:
    assert bare("219‑09–9999 −1 ٤١ ４ prôject ª") == "219-09-9999 -1 41 4 project a"
    assert bare("がガ") == "がガ" and clean("é – “x”…") == "é – “x”…"
    assert fold("Prôject\r\n\t \u00a0Zébra  ") == "project zebra "


@given(ODD, ODD)
def test_every_place_of_a_reading_is_known(before: str, after: str) -> None:
    for read in (bare, clean, fold):
        text = before + "zebra  \n" + after
        whole = read(text)
        at = 0
        for i in range(len(whole)):
            start, end = origin(text, i, i + 1, read)
            assert at <= start < end <= len(text) and whole[i] in read(text[start:end])
            at = start
        at = whole.index("zebra")
        start, end = origin(text, at, at + 5, read)
        assert text[start:end] == "zebra"


@pytest.mark.parametrize("unit", ["é", "’", "я", "ß", "½", "日", "😀", "\u00ad", "\u200b", "\U000e0041", "\u202e", "ﬁ"])
@pytest.mark.parametrize("size", [1, 100, 3000])
@pytest.mark.parametrize("every", [1, 2, 9, 300])
def test_each_way_to_read_a_text_says_the_same(unit: str, size: int, every: int) -> None:
    """Of one byte a character, of two, of four; with few odd characters, with many, with many after a plain beginning."""
    for text in ((unit + "a" * (every - 1)) * size, "plain " * 50 + (unit + "b" * (every - 1)) * size):
        assert bare(text) == "".join(map(_read, text))
        assert fold(text).replace(" ", "") == "".join(_read(c).casefold() for c in text).replace(" ", "")
        assert clean(text) == "".join(map(clean, text))


@given(st.text(max_size=3), st.integers(0, 200))
def test_a_string_is_as_wide_as_its_widest_character(text: str, ascii: int) -> None:
    whole = "a" * ascii + text
    assert wide(whole, 2) or all(c < "\u0100" for c in whole)
    assert wide(whole, 4) or all(c < "\U00010000" for c in whole)


@pytest.mark.parametrize("size", [1, 30, 5000])
def test_what_is_hidden_in_a_long_text_is_seen(size: int) -> None:
    for filler in ("a", "é", "’", "😀"):
        text = filler * size + "\U000e0061\U000e0062\U000e0063" + filler * size
        assert disguised(text) and hidden([Message("user", text, "m")])[0].start == size
        assert disguised(filler * size + "\u202eabc\u202c")
        assert not disguised(filler * size) and not hidden([Message("user", filler * size, "m")])
