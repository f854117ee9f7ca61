"""Slots and codes of a policy set: long sentences take several slots, and nothing is dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from firewall.guards.encoder.plan import GROUP, compile
from firewall.guards.encoder.rules import ALLOWED, VIOLATES
from firewall.policy import Policy, Rule

FLAT = {"default": [1.0, 0.0]}


def encode(text: str) -> NDArray[np.float32]:
    """One code for every five words: [c], or [n,c]."""
    words = text.split()
    made = np.array([[len(w) for w in words[i:i + 5]] + [0] * (5 - len(words[i:i + 5]))
                     for i in range(0, len(words), 5)], np.float32)
    return made[0] if len(made) == 1 else made


def test_a_long_sentence_takes_several_slots_of_its_rule_and_role() -> None:
    policy = Policy("p", "p", (Rule("p/1", "a b c d e ff gg"), Rule("p/2", "x y")), allowed=("one two three four five six",))
    plan = compile([policy], encode, FLAT)
    assert plan.rules == ("p/1", "p/1", "p/2")
    roles, index = plan.role[0, 0], plan.index[0, 0]
    assert roles.tolist() == [VIOLATES] * 3 + [ALLOWED] * 2 and len(set(index.tolist())) == 5
    assert np.array_equal(plan.codes[index[:2]], encode(policy.rules[0].text))
    assert np.array_equal(plan.codes[index[3:]], encode(policy.allowed[0]))


def test_the_same_sentence_is_encoded_once() -> None:
    asked: list[str] = []

    def count(text: str) -> NDArray[np.float32]:
        asked.append(text)
        return encode(text)
    rules = tuple(Rule(f"p/{i}", f"rule {i % 3} of many more words than five") for i in range(2 * GROUP))
    plan = compile([Policy("p", "p", rules), Policy("q", "q", (Rule("q/1", rules[0].text),))], count, FLAT)
    assert len(asked) == 3 and plan.rules.count("p/0") == plan.rules.count("q/1") == 2
    assert len(plan.flat) == len(set(plan.flat.tolist())) == len(plan.rules) == 4 * GROUP + 2


def test_every_group_has_every_allowed_line() -> None:
    rules = tuple(Rule(f"p/{i}", f"rule {i}") for i in range(GROUP + 1))
    plan = compile([Policy("p", "p", rules, allowed=tuple(f"line {'x' * i}" for i in range(1, 30)))], encode, FLAT)
    assert [(row == ALLOWED).sum() for row in plan.role[0]] == [29, 29]


def test_no_policy_is_an_empty_plan() -> None:
    plan = compile([], encode, FLAT)
    assert plan.rules == () and not len(plan.flat)
