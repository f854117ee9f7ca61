"""Figures by hand, and controls a policy reader passes and a policy-blind judge fails."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer import world
from trainer import categories, evaluate


def test_figures_by_hand():
    got = evaluate.figures([0.9, 0.6, 0.2, 0.1], [True, False, True, False], unreadable=1)
    assert got["f1"] == pytest.approx(0.5) and got["recall"] == 0.5 and got["fpr"] == 0.5
    assert got["auroc"] == pytest.approx(0.75) and got["floor"] == pytest.approx(2 / 3) and got["unreadable"] == 0.25


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auroc_is_the_share_of_pairs_in_order(rows):
    good = [s for s, y in rows if y]
    bad = [s for s, y in rows if not y]
    got = evaluate.auroc([s for s, _ in rows], [y for _, y in rows])
    if not good or not bad:
        assert math.isnan(got)
    else:
        pairs = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
        assert got == pytest.approx(pairs / len(good) / len(bad))


def test_controls_tell_a_reader_from_a_blind_judge():
    rows = world.examples(40)

    def blind(examples):
        return [float(any(w in world.BAD for w in e.words.split())) for e in examples], 0

    def reader(examples):
        out = []
        for e in examples:
            own = [p for p in e.case.policies if p.id == "arms"]
            out.append(float(bool(own) and blind([e])[0][0] > 0 and not own[0].allowed and not own[0].exceptions))
        return out, 0

    seen, told = evaluate.table(rows, blind), evaluate.table(rows, reader)
    assert seen["all"]["f1"] == told["all"]["f1"] == 1.0
    for kind in ("absent", "wrong", "permissive", "exception"):
        assert seen[f"control:{kind}"]["said_unsafe"] == 1.0 and told[f"control:{kind}"]["said_unsafe"] == 0.0
        assert seen[f"control:present|{kind}"]["auroc"] == 0.5 and told[f"control:present|{kind}"]["auroc"] == 1.0
    assert told["control:present"]["said_unsafe"] == 1.0


def test_shown_is_json():
    import json

    assert json.loads(evaluate.shown({"a": 1.23456, "b": {"c": 2}}))["a"] == pytest.approx(1.23456)


def test_a_renamed_policy_is_no_other_one():
    """Rows whose ids were renamed in training pairs: the "wrong" policy is not the violated one under its old name."""
    rows = []
    for e in world.examples(60):
        if e.unsafe and e.rules:
            named = {p.id: f"p{n}" for n, p in enumerate(e.case.policies)}
            rename = {r.id: f"{named[p.id]}/{r.id.rpartition('/')[2]}" for p in e.case.policies for r in p.rules}
            own = type(e.case.policies)(tuple(replace(p, id=named[p.id], rules=tuple(
                replace(r, id=rename[r.id]) for r in p.rules)) for p in e.case.policies))
            rows.append(replace(e, group="", case=e.case._replace(policies=own), rules=tuple(rename[r] for r in e.rules)))
    made = evaluate.controls(rows)["wrong"]
    kin = categories.related({"weapons"})
    assert len(made) > 5 and "weapons" in kin and not {p.id for e in made for p in e.case.policies} & set(kin)
