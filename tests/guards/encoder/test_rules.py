"""How policies become slots."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.guards.encoder.plan import GROUP, digest, groups
from firewall.guards.encoder.rules import ALLOWED, SCOPE, VIOLATES, Slot, parts, segments
from firewall.policy import Policy, Rule


def roles(text: str) -> list[tuple[int, str]]:
    return [(s.role, s.text) for s in segments(Policy.from_text("p", text))]


def test_a_policy_file_keeps_its_rules_allowed_lines_and_title() -> None:
    policy = Policy("w", "Weapons", (Rule("w/1", "How to build a bomb."), Rule("w/2", "Selling guns.")),
                    allowed=("History.",), exceptions=("Fiction.",))
    assert segments(policy) == (Slot(VIOLATES, "How to build a bomb.", "w/1"), Slot(VIOLATES, "Selling guns.", "w/2"),
                                Slot(ALLOWED, "History."), Slot(ALLOWED, "Fiction."), Slot(SCOPE, "Weapons"))


def test_an_allow_list_in_prose_is_split_by_its_verbs() -> None:
    got = roles("You guard a support bot for cars. Allow on-topic questions; flag everything else as off-topic.")
    assert got == [(SCOPE, "You guard a support bot for cars."), (ALLOWED, "Allow on-topic questions"),
                   (VIOLATES, "flag everything else as off-topic.")]
    got = roles("Scope rule - permitted: cars; thanks. Not permitted: any other topic.")
    assert [r for r, _ in got] == [ALLOWED, VIOLATES]


def test_not_allowed_is_no_allowance() -> None:
    got = roles("Insults are not allowed. Swearing without a target is allowed.")
    assert [r for r, _ in got] == [VIOLATES, ALLOWED]


def test_every_rule_keeps_a_slot_even_when_it_only_allows() -> None:
    policy = Policy.from_text("p", "Cats are allowed. Dogs are permitted.")
    assert {s.rule for s in segments(policy) if s.role == VIOLATES} == {r.id for r in policy.rules}


def test_section_headers_do_not_stick_to_rules() -> None:
    got = roles("Only these.\n[Hate]\n- Do not insult groups.\n[Spam]\n- Do not send spam.")
    assert got == [(VIOLATES, "Do not insult groups."), (VIOLATES, "Do not send spam.")]


@pytest.mark.parametrize("verb", ["allow", "enable"])
def test_a_rule_under_violates_is_a_rule_whatever_its_verbs(verb: str) -> None:
    rule = f"Instructions that {verb} a person to build a bomb. This may be in any language. Jokes are fine."
    assert roles(f"About bombs.\n\n## Violates\n- {rule}\n") == [(VIOLATES, rule)]
    assert (ALLOWED, "Jokes are fine.") in roles(f"- {rule}")       # without headings its verbs speak


def test_words_in_brackets_belong_to_the_rule() -> None:
    rule = "Sharing documents marked [STRICTLY CONFIDENTIAL]"
    assert roles(f"- {rule}") == roles(f"## Violates\n- {rule}") == [(VIOLATES, rule)]


WORDS = st.lists(st.sampled_from(["word", "word,", "word.", "or", "日", "、", "x" * 20]), min_size=1, max_size=150)


@given(WORDS, st.integers(4, 62), st.booleans())
def test_parts_hold_every_token_once(words: list[str], limit: int, apart: bool) -> None:
    text = (" " if apart else "").join(words)
    tokens = [m.span() for m in re.finditer(r"\w{1,5}|[^\w\s]", text)]
    got = parts(text, tokens, limit)
    assert [t for a, b in got for t in range(a, b)] == list(range(len(tokens)))
    assert all(0 < b - a <= limit for a, b in got) and (len(got) == 1) == (len(tokens) <= limit)
    assert all(b - a > limit // 2 - 1 for a, b in got[:-1])


def test_parts_begin_with_a_clause_or_a_word() -> None:
    text = "one two six, four five six, seven two or nine ten"
    tokens = [m.span() for m in re.finditer(r"\w{1,3}|,", text)]
    cut = [text[tokens[a][0]:tokens[b - 1][1]] for a, b in parts(text, tokens, 8)]
    assert "".join(cut).replace(" ", "") == text.replace(" ", "")
    assert [part.split()[0] for part in cut] == ["one", "four", "seven"]
    run = "abcdefghi " * 4
    tokens = [m.span() for m in re.finditer(r"\w{1,3}", run)]
    assert all(run[tokens[a][0]] == "a" for a, _ in parts(run, tokens, 7))


def test_long_policies_are_grouped_and_lose_no_rule() -> None:
    rules = tuple(Rule(f"p/{i}", f"Rule number {i}.") for i in range(3 * GROUP + 1))
    policy = Policy("p", "P", rules, allowed=("This.",))
    parts = groups(segments(policy))
    assert len(parts) == 4 and all(Slot(ALLOWED, "This.") in g for g in parts)
    assert [s.rule for g in parts for s in g if s.role == VIOLATES] == [r.id for r in policy.rules]


def test_the_digest_ignores_order_and_sees_words() -> None:
    a, b = Slot(VIOLATES, "x", "p/1"), Slot(ALLOWED, "y")
    assert digest([a, b]) == digest([b, a]) != digest([a, Slot(ALLOWED, "z")])
