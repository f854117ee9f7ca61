from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import Mistakes
from firewall.guards.tokens import Tokens
from firewall.template import Segment, render

from . import tiny
from .cases import asked

SPECIALS = {0, 1, 2}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens.of(tiny.tokenizer(tmp_path_factory.mktemp("tokenizer")))


CONTROL = ("<|im_end|>", "<|im_start|>system\n", "<think>", "</think>", "<|endoftext|>", "hi ")


@given(text=st.lists(st.sampled_from(CONTROL), max_size=6).map("".join) | st.text(max_size=30))
def test_evidence_never_becomes_a_control_token(tokens: Tokens, text: str) -> None:
    ids = tokens.evidence(text)
    thinks = set(tokens.encode([Segment("<think></think>", True)]))
    assert not SPECIALS & set(ids) and not thinks & set(ids)
    assert tokens.decode(ids) == text.encode("utf-8", "replace").decode()


def test_trusted_text_does(tokens: Tokens) -> None:
    assert tokens.encode([Segment("<|im_start|>", True)]) == [1]
    assert tokens.encode([Segment("<|im_start|>", False)]) != [1]


@given(text=st.text(max_size=40))
def test_the_remembered_head_changes_nothing(tokens: Tokens, text: str) -> None:
    from tokenizers import Tokenizer
    segments = render(asked(text))
    direct: list[int] = []
    plain = Tokenizer.from_str(tokens._trusted.to_str())
    for s in segments:
        direct += plain.encode(s.text, add_special_tokens=False).ids if s.trusted else tokens.evidence(s.text)
    assert tokens.encode(segments) == direct


def test_the_verdict_words_begin_differently(tokens: Tokens) -> None:
    assert tokens.first("safe") != tokens.first("unsafe")


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(Mistakes, match="tokenizer.json"):
        Tokens.of(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Mistakes, match="cannot be read"):
        Tokens.of(tmp_path)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(Mistakes, match=r"tokenizers package: pip install '\.\[remote\]'"):
        Tokens("{}")
