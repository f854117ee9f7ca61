"""Hygiene: duplicates, contradictions, test rows by 13-gram and by MinHash, class balance."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from firewall.case import Message
from tests.trainer import world
from trainer import hygiene
from trainer.errors import MissingExtra

LONG = ("the quick brown fox jumps over the lazy dog while seven grey cats watch the moon rise slowly above an old "
        "wooden barn near the river where children used to play in summer")


def said(text: str, unsafe: bool = False, **changes):
    e = world.examples(1)[0]
    return replace(e, case=e.case._replace(messages=(Message("user", text),)), unsafe=unsafe,
                   rules=e.rules if unsafe else (), **changes)


def test_grams():
    assert hygiene.grams("One two, THREE four", 3) == {"one two three", "two three four"}
    assert hygiene.grams("one two", 3) == set() and hygiene.grams("a b c", 13) == {"a b c"}


def test_unique_drops_copies_and_contradictions():
    kept, dropped = hygiene.unique([said("Hello there"), said("hello, THERE!"), said("a gun"), said("a gun", True),
                                    said("else")])
    assert [e.words for e in kept] == ["Hello there", "else"] and dropped == 3


def test_same_words_under_another_policy_stay():
    one = said("a gun", True)
    other = replace(one, unsafe=False, rules=(), case=one.case._replace(
        policies=type(world.ARMS)((replace(world.ARMS.policies[0], title="Other"),))))
    assert len(hygiene.unique([one, other])[0]) == 2


def test_balance():
    rows = [said(f"row {i}", i < 90) for i in range(100)]
    kept, dropped = hygiene.balanced(rows, 0.6, 0)
    assert sum(e.unsafe for e in kept) == 15 and len(kept) == 25 and dropped == 75
    assert hygiene.balanced(rows, 0.0, 0) == (rows, 0)
    assert hygiene.balanced(rows, 0.95, 0)[1] == 0


def test_length():
    assert hygiene.shorter([said("x" * 10), said("x" * 11)], 10)[1] == 1


def refuse(tmp_path, text: str):
    pytest.importorskip("datasketch")
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": text}], "label": "safe"}) + "\n")
    return [str(path)]


def test_any_run_of_thirteen_words_is_refused(tmp_path):
    inside = "Before it all: " + " ".join(LONG.split()[5:19]) + ", and something quite different follows after."
    kept, why = hygiene.refused([said(inside), said("harmless words of our own")], refuse(tmp_path, LONG), 0.7)
    assert [e.words for e in kept] == ["harmless words of our own"] and why == {"13-gram": 1}


def test_light_rewording_is_refused(tmp_path):
    words = LONG.split()
    words[12] = "evening"       # no 13 words in a row are left whole but the shingles are nearly the same
    text = " ".join(words[:25])
    other = LONG.split()
    other[0] = "a"
    kept, why = hygiene.refused([said(text)], refuse(tmp_path, " ".join(LONG.split()[:25])), 0.5)
    assert not kept and why == {"minhash": 1}


def test_context_of_an_answer_counts_too(tmp_path):
    e = said("fine")
    asked = replace(e, case=e.case._replace(messages=(Message("user", LONG), Message("user", "fine"))))
    assert hygiene.refused([asked], refuse(tmp_path, LONG), 0.7)[0] == []


def test_missing_library_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingExtra, match="train"):
        hygiene.Refuse(["x"])
