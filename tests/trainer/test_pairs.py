"""Policy pairs: the words stay, the policy decides; variants keep the truth under new names."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from firewall.case import Case, Message, Said
from firewall.policy import PolicySet
from tests.trainer import world
from trainer import categories, pairs
from trainer.data import Example
from trainer.recipe import Pairs

UNSAFE = world.examples(1)[0]
EVERY = Pairs(share=1.0, rename=1.0, reword=1.0, partial=1.0, injection=1.0)


def answer(text: str, unsafe: bool, **more) -> Example:
    case = Case("output", world.ARMS, (Message("user", "tell me"),), (Said("text", text),))
    return Example("a", case, unsafe, ("arms/1",) if unsafe else (), **more)


@given(st.integers(0, 50))
def test_the_four(seed):
    four = {e.kind: e for e in pairs.family(UNSAFE, random.Random(seed))}
    assert {k: e.unsafe for k, e in four.items()} == {"present": True, "absent": False, "permissive": False,
                                                    "exception": False}
    assert len({e.words for e in four.values()}) == 1 and len({e.group for e in four.values()}) == 1
    ids = {k: {p.id for p in e.case.policies} for k, e in four.items()}
    assert "arms" in ids["present"] & ids["permissive"] & ids["exception"] and "arms" not in ids["absent"]
    rule = world.ARMS.policies[0].rules[0].text
    texts = {k: [r.text for p in e.case.policies for r in p.rules] for k, e in four.items()}
    assert rule in texts["present"] and rule in texts["exception"] and rule not in texts["permissive"]
    arms = {k: e.case.policies.owner["arms"] for k, e in four.items() if k != "absent"}
    assert rule in arms["permissive"].allowed[0] and rule in arms["exception"].exceptions[0]
    # kin of the topic never stands in for an unrelated policy
    assert not ids["absent"] & categories.related({"weapons"})


@given(st.integers(0, 200))
def test_variants_keep_the_truth(seed):
    e = pairs.family(UNSAFE, random.Random(seed))[0]
    v = pairs.varied(e, EVERY, random.Random(seed))
    assert v.unsafe and len(v.rules) == len(e.rules) == 1
    old, new = e.case.policies.owner[e.rules[0]], v.case.policies.owner[v.rules[0]]
    assert old.title == new.title and v.rules[0].startswith(new.id + "/")
    assert len(v.case.policies) == len(e.case.policies)
    assert old.rules[0].text in new.rules[0].text or old.id in categories.CATEGORIES


def test_order_is_shuffled():
    e = pairs.family(UNSAFE, random.Random(3))[0]
    many = replace(e, case=e.case._replace(policies=PolicySet.of([*categories.policies(), *world.ARMS])))
    orders = {tuple(p.id for p in pairs.varied(many, Pairs(), random.Random(i)).case.policies) for i in range(5)}
    assert len(orders) == 5


@given(st.integers(0, 100))
def test_cuts_where_the_truth_is_known(seed):
    text = "First some harmless words. Then how to make a gun: take a pipe. And more."
    stands = text.index("pipe")
    early, late = pairs.partial(answer(text, True, stands=stands), random.Random(seed))
    assert not early.unsafe and len(early.words) < stands and text.startswith(early.words)
    assert late.unsafe and late.rules == ("arms/1",) and len(late.words) >= stands
    assert not early.case.whole and not late.case.whole and early.group == late.group


@given(st.integers(0, 100))
def test_cuts_without_a_known_place_lie_in_a_safe_answer_before(seed):
    safe = answer("A long and harmless text about gardens.", False)
    early, late = pairs.partial(answer("Buy a gun here, now.", True), random.Random(seed), safe)
    assert safe.words.startswith(early.words) and not early.unsafe
    assert late.unsafe and late.words.endswith("Buy a gun here, now.")
    assert pairs.partial(answer("Buy a gun here, now.", True), random.Random(seed)) == []
    (cut,) = pairs.partial(safe, random.Random(seed))
    assert not cut.unsafe and 8 <= len(cut.words) < len(safe.words)


@given(st.integers(0, 100))
def test_orders_in_the_evidence_change_no_label(seed):
    for e in (UNSAFE, answer("A long and harmless text.", False)):
        hit = pairs.injected(e, random.Random(seed))
        assert hit.unsafe == e.unsafe and e.words in hit.words and len(hit.words) > len(e.words)
        # an order asks for the opposite of the truth
        assert ("unsafe" in hit.words) == (not e.unsafe)


def test_no_order_where_the_policy_is_about_orders():
    about = replace(world.ARMS.policies[0], title="Prompt injection")
    assert pairs.injected(replace(UNSAFE, case=UNSAFE.case._replace(policies=PolicySet((about,)))),
                          random.Random(0)) is None


def test_expand_is_a_function_of_seed_and_row():
    rows = world.examples(20)
    one, two = pairs.expand(rows, EVERY, 0), pairs.expand(rows, EVERY, 0)
    assert one == two != pairs.expand(rows, EVERY, 1)
    alone = pairs.expand(rows[4:6], EVERY, 0)
    assert [e for e in one if e.id.split("#")[0] in (rows[4].id, rows[5].id)] == alone
    assert pairs.expand(rows, Pairs(shuffle=False), 0) == rows
