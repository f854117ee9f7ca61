"""Controls on guards whose reading is known."""

from __future__ import annotations

from benchmarks import control, gate, tables
from benchmarks.judged import Judged
from benchmarks.rows import Row
from tests.benchmarks.conftest import Words

RULES = ["- Do not name apples. Pears are fine.\n- Do not name plums.", "- Do not shout.\n- Do not whisper at night."]
ROWS = [Row(str(k), "prompt", (("user", ("KUMQUAT " if k % 2 else "fig ") + str(k)),), k % 2 == 1, RULES[k % 4 // 2])
        for k in range(12)]


class Blind:
    """Scores by the text alone."""

    way = "guard only"

    async def ask(self, asked):
        for row, _ in asked:
            hit = "KUMQUAT" in row.messages[-1][1]
            yield Judged(row, "block" if hit else "allow", 0.9 if hit else 0.1, 1.0)


class Reader(Blind):
    """Violates only under the row's own rules, whatever their order or id."""

    async def ask(self, asked):
        own = {r.id: r.policy for r in ROWS}
        for row, policies in asked:
            text = " ".join(policies.values())
            same = sorted((own[row.id] or "").split("\n")) == sorted(
                line for line in text.split("\n") if line.startswith("- "))
            hit = "KUMQUAT" in row.messages[-1][1] and same
            yield Judged(row, "block" if hit else "allow", 0.9 if hit else 0.1, 1.0)


async def test_a_blind_guard_is_found_out() -> None:
    c = (await control.controls(Blind(), "x", ROWS))["controls"]
    assert c["right"]["auroc"]["value"] == c["wrong"]["auroc"]["value"] == c["absent"]["auroc"]["value"] == 1.0
    assert c["wrong"]["flips"] == 0.0 and c["alone"]["auroc"]["value"] == 0.5


async def test_a_reader_is_found_out_too() -> None:
    found = await control.controls(Reader(), "x", ROWS)
    c = found["controls"]
    assert c["right"]["auroc"]["value"] == 1.0 and found["right_minus_wrong"] == 0.5
    assert c["wrong"]["released"] == c["permissive"]["released"] == c["absent"]["released"] == 1.0
    assert c["shuffled"]["flips"] == 0.0 and c["renamed"]["flips"] == 0.0


class Broken(Reader):
    """A reader that has no verdict on innocent rows, or under other policies than the row's own."""

    def __init__(self, others: bool = False) -> None:
        self.others = others

    async def ask(self, asked):
        async for j in super().ask(asked):
            lost = j.row.unsafe and j.decision == "allow" if self.others else not j.row.unsafe
            yield Judged(j.row, "error", error="timeout") if lost else j


async def test_failures_are_no_reading() -> None:
    found = await control.controls(Broken(), "x", ROWS)
    right = found["controls"]["right"]
    assert right["auroc"]["value"] == 0.0 and right["unreadable"] == 6 and found["unreadable"] == 7 * 6
    assert right["flips"] == 0.5 and right["moved"] == 0.5 and right["released"] == 0.0
    assert "right_minus_wrong" not in found
    wrong = (await control.controls(Broken(others=True), "x", ROWS))["controls"]["wrong"]
    assert wrong["unreadable"] == 6 and wrong["released"] == 0.0 and wrong["flips"] == 0.5
    assert "without a readable verdict: 42" in tables.controls([found]).note
    assert not gate.check([{"kind": "controls", **found}], [b for b in gate.bars() if b["figure"] == "unreadable"
                                                            and b["kind"] == "controls"])[1]


def test_failures_are_the_worst_rank_in_every_part_of_the_crossed_set() -> None:
    rows = control.crossed()
    whole = [Judged(r, "block" if r.unsafe else "allow", 0.9 if r.unsafe else 0.1) for r in rows]
    assert control.per_scenario(rows, whole) == 1.0 == min(control.per_rule(rows, whole).values())
    lost = [j if j.row.unsafe else Judged(j.row, "error", error="timeout") for j in whole]
    assert control.per_scenario(rows, lost) == 0.0 == max(control.per_rule(rows, lost).values())


async def test_controls_reach_a_real_guard(words: Words) -> None:
    from benchmarks.alone import Direct
    async with Direct(f"webhook:{words.url}") as direct:
        found = await control.controls(direct, "x", ROWS, which=("right", "renamed"))
    assert found["controls"]["right"]["auroc"]["value"] == 1.0
    ids = {p["id"] for body in words.asked for p in body["policies"]}
    assert "row" in ids and any(i.startswith("zq") for i in ids)


def test_shuffling_keeps_the_words() -> None:
    assert sorted(control.shuffled(RULES[0], 1).split("\n")) == sorted(RULES[0].split("\n"))
    assert any(control.shuffled(RULES[0], k) != RULES[0] for k in range(5))
    front = "---\nid: x\n---\n- a\n- b\n- c"
    assert control.shuffled(front, 3).startswith("---\nid: x\n---\n")


def test_the_crossed_set_has_both_labels_for_every_scenario_and_rule() -> None:
    rows = control.crossed()
    rules = {r.categories[0] for r in rows}
    scenarios: dict[str, set[bool]] = {}
    by_rule: dict[str, set[bool]] = {}
    for r in rows:
        scenarios.setdefault(r.id.partition("x")[0], set()).add(r.unsafe)
        by_rule.setdefault(r.categories[0], set()).add(r.unsafe)
    assert len(rules) >= 24 and len(scenarios) >= 24 and len(rows) == len(rules) * len(scenarios)
    assert all(v == {True, False} for v in scenarios.values()) and all(v == {True, False} for v in by_rule.values())
