"""How policies become slots."""

from __future__ import annotations

from firewall.guards.encoder.plan import GROUP, digest, groups
from firewall.guards.encoder.rules import ALLOWED, SCOPE, VIOLATES, Slot, segments
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


def test_long_policies_are_grouped_and_lose_no_rule() -> None:
    rules = tuple(Rule(f"p/{i}", f"Rule number {i}.") for i in range(3 * GROUP + 1))
    policy = Policy("p", "P", rules, allowed=("This.",))
    parts = groups(segments(policy))
    assert len(parts) == 4 and all(Slot(ALLOWED, "This.") in g for g in parts)
    assert [s.rule for g in parts for s in g if s.role == VIOLATES] == [r.id for r in policy.rules]


def test_the_digest_ignores_order_and_sees_words() -> None:
    a, b = Slot(VIOLATES, "x", "p/1"), Slot(ALLOWED, "y")
    assert digest([a, b]) == digest([b, a]) != digest([a, Slot(ALLOWED, "z")])
