from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import firewall.guards.encoder
from firewall.guards.encoder.wordpiece import WordPiece

FILE = Path(firewall.guards.encoder.__file__).parent / "assets" / "tokenizer.json"

ODD = [
    "", " ", "\n\t\r", "a", "Hello, World!", "don't", "x" * 100, "x" * 101, "é" * 100, "é" * 101, "unaffable" * 20,
    "[CLS] ignore [SEP] all [MASK] [PAD][UNK]", "##ing ##", "naïve café", "CAFÉ ÅNGSTRÖM İstanbul ıstanbul ẞ ß",
    "ΣΑΣ",
    "e\u0301\u0302 \u0301 x\u0301\u0301", "\u0301abc", "中文 mixed漢字text", "한국어 각",
    "ｆｕｌｌ　ｗｉｄｔｈ", "𝔣𝔯𝔞𝔨𝔱𝔲𝔯", "🙂👩‍👩‍👧 ok🙂ok",
    "zero\u200bwidth\u200d \u2060a", "soft\u00adhyphen",
    "\ufffd \ufffdx\ufffd", "nul\x00l a\x0bb\x0cc\x1cd\x7fe\x85f",
    "\u2028 \u2029 \xa0x",
    "\u302e\u0334 a", "x\u0301\u302e z", "\U0001d165\u0334 a", "\u0344\u302e",
    "x\u07fd\u0334\u302e", "\u166d \u1734 \u111c9",
    "\U000111c9 a\U0001171eb", "\u061d a\u2e43b",
    "\ue000a \U000f0000", "\u0378 a\u0378b", "\u037e \u1fef \u2126 \ufb01",
    "हिन्दी বাংলা தமிழ் ไทย עִבְרִית العَرَبِيَّة",
    "\u0e33 \u0f73\u0f75", "\ufa6e\u2b739 \U0002b739 \U0002f800", "\ud7a3\uac00",
]


@cache
def own() -> WordPiece:
    return WordPiece.from_file(FILE)


@cache
def library(**normalizer: Any) -> Any:
    """The library's tokenizer, without special tokens in the text."""
    tokenizers = pytest.importorskip("tokenizers")
    spec = json.loads(FILE.read_text("utf-8"))
    spec["added_tokens"], spec["post_processor"] = [], None
    spec["normalizer"] |= normalizer
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def same(text: str, mine: WordPiece, its: Any) -> None:
    a, b = mine.encode(text), its.encode(text, add_special_tokens=False)
    assert a.ids == b.ids
    assert a.offsets == b.offsets


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_as_in_the_library(text: str) -> None:
    same(text, own(), library())


@settings(max_examples=1500, deadline=None)
@given(st.text(max_size=60))
def test_any_text_as_in_the_library(text: str) -> None:
    same(text, own(), library())


@settings(max_examples=800, deadline=None)
@given(st.lists(st.sampled_from([*ODD, *"aAzÉ\u0301\u0334\u302e\u093c\u094d ,.-\n中한"]), max_size=12))
def test_odd_texts_side_by_side_as_in_the_library(parts: list[str]) -> None:
    same("".join(parts), own(), library())


@settings(max_examples=800, deadline=None)
@given(st.text(st.characters(categories=["Mn", "Mc", "Me", "Lo", "Po", "Cf", "Zs", "Cc"]), max_size=30))
def test_marks_and_controls_as_in_the_library(text: str) -> None:
    same(text, own(), library())


@settings(max_examples=500, deadline=None)
@given(st.text(" abcdeABC.,'-", max_size=80))
def test_ascii_as_in_the_library(text: str) -> None:
    same(text, own(), library())


def test_every_character_as_in_the_library() -> None:
    blocks = ((0, 0x3100), (0xA480, 0xAC00), (0xF900, 0x12000), (0x1CF00, 0x1F000))  # others: letters of one kind
    for a in (a for first, end in blocks for a in range(first, end, 64)):
        chars = [chr(i) for i in range(a, a + 64) if not 0xD800 <= i < 0xE000]
        same(" ".join(f"{c} a{c}b" for c in chars), own(), library())


@pytest.mark.parametrize("flags", [
    {"lowercase": False}, {"strip_accents": False}, {"lowercase": False, "strip_accents": True},
    {"handle_chinese_chars": False}, {"clean_text": False}])
def test_other_normalizers_as_in_the_library(flags: dict[str, bool]) -> None:
    spec = json.loads(FILE.read_text("utf-8"))
    spec["normalizer"] |= flags
    for text in ODD:
        same(text, WordPiece(spec), library(**flags))


def test_golden() -> None:
    read = own().encode("Hello, unaffable World! café")
    assert read.ids == [7592, 1010, 14477, 20961, 3468, 2088, 999, 7668]
    assert read.offsets == [(0, 5), (5, 6), (7, 10), (10, 13), (13, 16), (17, 22), (22, 23), (24, 28)]


def test_what_looks_like_a_special_token_is_text() -> None:
    ids = own().encode("[SEP] [CLS] [MASK]").ids
    assert not {100, 101, 102, 103} & set(ids) and len(ids) >= 9


def test_a_lone_surrogate_is_dropped() -> None:
    assert own().encode("he\ud800llo").ids == own().encode("hello").ids
    assert own().encode("he\ud800llo").offsets == [(0, 6)]


def test_long_words_are_unknown_and_not_remembered() -> None:
    reader = WordPiece.from_file(FILE)
    assert reader.encode("y" * 5000) == ([100], [(0, 5000)])
    assert not reader._words


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firewall.guards.encoder.wordpiece.KEPT", 50)
    reader = WordPiece.from_file(FILE)
    for i in range(500):
        assert reader.encode(f"word{i}").ids == own().encode(f"word{i}").ids
    assert len(reader._words) <= 50


@pytest.mark.parametrize("unit", ["x", "\u0301", "\u302e\u0301", "中", "é", ".", "[CLS]", "a\u0334\U0001d165"])
def test_time_is_linear(unit: str) -> None:
    """Four times the text takes no more than about four times as long (a quadratic reader takes sixteen)."""
    spent = []
    for size in (20_000, 80_000):
        text = unit * (size // len(unit))
        best = 1e9
        for _ in range(3):
            began = time.process_time()
            WordPiece.encode(own(), text)
            best = min(best, time.process_time() - began)
        spent.append(best)
    assert spent[1] < 10 * max(spent[0], 0.003)


def test_another_kind_of_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="BERT"):
        WordPiece({"model": {"type": "BPE"}})
