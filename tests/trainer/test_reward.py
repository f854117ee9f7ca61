"""RSafe's rule and its refinements: what an answer is worth, and that nonsense is worth nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.case import Case, Message
from firewall.policy import Policy, PolicySet, Rule
from trainer.data import Example
from trainer.recipe import Reward
from trainer.reward import grade, loosened, overlong

ACTIVE = PolicySet((Policy("arms", "Arms", (Rule("arms/1", "Guns."), Rule("arms/2", "Bombs."))),))
UNSAFE = Example("u", Case("input", ACTIVE, (Message("user", "a gun"),)), True, ("arms/1",))
SAFE = Example("s", Case("input", ACTIVE, (Message("user", "a cake"),)), False)
LAX, STRICT = Reward(), Reward(strict=True, cited=0.2)


@pytest.mark.parametrize(("answer", "lax", "strict"), [
    ("<think>A gun.</think>\\boxed{unsafe: arms/1}", 1.0, 1.0),
    ("<think>A gun.</think>\\boxed{unsafe: arms/2}", 1.0, 0.8),            # right, with the wrong rule
    ("<think>A gun.</think>\\boxed{safe}", 0.1, 0.1),                      # readable and wrong
    ("<think>A gun.</think>\\boxed{unsafe}", 1.0, 0.0),                    # RSafe's own form names no rule
    ("<think></think>\\boxed{unsafe: arms/1}", 1.0, 0.0),                  # its gaps: empty thought,
    ("<think>x</think>\\boxed{safe} \\boxed{unsafe: arms/1}", 1.0, 0.0),   # last of several boxes,
    ("<think>x</think>\\boxed{unsafe: arms/1} I think", 1.0, 0.0),         # text behind the box
    ("<think>x</think> unsafe: arms/1", 0.0, 0.0),
    ("<think>x \\boxed{unsafe: arms/1}", 0.0, 0.0),
    ("\\boxed{unsafe: arms/1}", 0.0, 0.0),
    ("<think>x</think>\\boxed{maybe}", 0.0, 0.0),
    ("", 0.0, 0.0)])
def test_worth(answer, lax, strict):
    assert grade(answer, UNSAFE, LAX).total == pytest.approx(lax)
    assert grade(answer, UNSAFE, STRICT).total == pytest.approx(strict)


def test_safe_rows():
    assert grade("<think>x</think>\\boxed{safe}", SAFE, STRICT).total == pytest.approx(1.0)
    assert grade("<think>x</think>\\boxed{unsafe: arms/1}", SAFE, STRICT).total == pytest.approx(0.1)


def test_any_citation_counts_where_the_row_names_no_rule():
    assert grade("<think>x</think>\\boxed{unsafe: arms/2}", replace(UNSAFE, rules=()), STRICT).cited == 1.0


def test_overlong_by_hand():
    # limit 100, buffer 20: free to 80, half way at 90, full at 100
    assert [overlong(n, 100, 20) for n in (10, 80, 90, 100, 120)] == [0, 0, -0.5, -1, -1]
    assert overlong(100, 100, 0) == 0
    got = grade("<think>x</think>\\boxed{safe}", SAFE, Reward(overlong=20), 90, 100)
    assert got.total == pytest.approx(0.5) and got.overlong == -0.5


@given(st.text(alphabet=list("<>/thinksafeunboxd{}\\: ,arms12\n"), max_size=80))
def test_anything_gets_a_bounded_grade(text):
    for options in (LAX, STRICT):
        for example in (SAFE, UNSAFE):
            got = grade("<think>" + text, example, options)
            assert 0 <= got.total <= 1 and got.accuracy <= got.format
            assert (got.format == 0) == (got.total == 0)


@given(st.text(max_size=60), st.sampled_from(["safe", "unsafe: arms/2"]))
def test_strict_answers_are_loose_ones_too(thought, box):
    text = f"<think>{thought}</think>\\boxed{{{box}}}"
    if grade(text, SAFE, Reward(strict=True)).format:
        assert grade(text, SAFE, LAX).total == grade(text, SAFE, Reward(strict=True)).total
        assert loosened(text, ACTIVE.rule_ids).endswith(f"\\boxed{{{box}}}")
