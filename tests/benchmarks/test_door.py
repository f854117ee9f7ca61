"""Rows through the real firewall, and through the guard alone, with a guard whose mind is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import score
from benchmarks.alone import Direct
from benchmarks.detect import detect, named
from benchmarks.door import Door, recorded
from benchmarks.judged import Judged, collect, groups, one_sided
from benchmarks.rows import BadRows, Row
from firewall.policy import parse
from tests.benchmarks.conftest import Words


def prompt(id: str, text: str, unsafe: bool, policy: str | None = None) -> Row:
    return Row(id, "prompt", (("user", text),), unsafe, policy)


def response(id: str, text: str, unsafe: bool, asked: str = "Tell me.") -> Row:
    return Row(id, "response", (("user", asked), ("assistant", text)), unsafe)


ROWS = [
    prompt("a", "one KUMQUAT please", True), prompt("b", "one apple please", False),
    prompt("c", "KUMQUAT is fine here", True, "- No fruit."), prompt("d", "nothing", False, "- No fruit."),
    prompt("e", "another", False, "Some prose that is one rule."),
    response("f", "have a KUMQUAT", True), response("g", "have an apple", False, asked="KUMQUAT?"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fruit.md").write_text("---\nid: fruit\n---\n## Violates\n- `fruit/1` Names the fruit.\n")
    return tmp_path


@pytest.mark.parametrize("stream", [False, True])
async def test_the_door_judges_each_row_under_its_policy(words: Words, folder: Path, stream: bool) -> None:
    async with Door(f"webhook:{words.url}", folder, concurrency=2, stream=stream) as door:
        judged = await collect(door, ROWS)
    assert [j.decision for j in judged] == ["block", "allow", "block", "allow", "allow", "block", "allow"]
    assert [j.rules[:1] for j in judged if j.decision == "block"] == [("fruit/1",), ("row/1",), ("fruit/1",)]
    assert all(j.ms > 0 and j.asks >= 1 for j in judged)
    assert [j.score for j in judged] == [0.9 if r.unsafe else 0.1 for r in ROWS]     # of the judged side, by the record
    shown = {tuple(p["id"] for p in body["policies"]) for body in words.asked}
    assert shown - {()} == {("fruit",), ("row",)}


async def test_a_streams_decision_is_the_records(words: Words, tmp_path: Path) -> None:
    """Its headers say allow before the word comes; the flag is set at its end."""
    (tmp_path / "fruit.md").write_text("---\nid: fruit\naction: flag\n---\n## Violates\n- `fruit/1` Names the fruit.\n")
    late = response("late", "The ferry leaves at noon and the harbour is calm. " * 200 + "Have a KUMQUAT.", True)
    async with Door(f"webhook:{words.url}", tmp_path, stream=True) as door:
        judged = await collect(door, [late, response("never", "Have an apple.", False)])
    assert [(j.decision, j.rules) for j in judged] == [("flag", ("fruit/1",)), ("allow", ())]


def test_a_stream_that_failed_or_left_no_record_is_an_error() -> None:
    passed = Judged(ROWS[5], "allow", rules=())
    assert recorded(passed, {"decision": "error", "code": "guard_timeout"}, True).error == "guard_timeout"
    assert recorded(passed, {"decision": "unjudged"}, True).decision == "error"
    assert recorded(passed, None, True).decision == "error" and recorded(passed, None).decision == "allow"
    stale = Judged(ROWS[5], "error", error="other_policies")
    assert recorded(stale, {"decision": "allow"}, True) == stale


async def test_lanes_share_the_rows_and_change_nothing(words: Words, folder: Path) -> None:
    many = [prompt(str(k), f"{'KUMQUAT' if k % 3 else 'fig'} {k}", k % 3 > 0, f"- Rule {k % 5}.") for k in range(30)]
    async with Door(f"webhook:{words.url}", folder, concurrency=2, lanes=2) as door:
        judged = await collect(door, many)
        counts = [len(lane.firewall.file.read_text().splitlines()) for lane in door.lanes]
    assert [j.detected for j in judged] == [r.unsafe for r in many] and all(c >= 5 for c in counts)
    async with Direct(f"webhook:{words.url}", folder, concurrency=2, lanes=2) as direct:
        assert [j.detected for j in await collect(direct, many)] == [r.unsafe for r in many]


async def test_seeds_of_a_sample_are_pooled_and_told_apart(words: Words, folder: Path) -> None:
    many = [prompt(str(k), f"{'KUMQUAT' if k % 3 else 'fig'} {k}", k % 3 > 0) for k in range(40)]
    async with Direct(f"webhook:{words.url}", folder) as direct:
        figures, judged = await detect(direct, "x", many, limit=24, seeds=3)
        again, _ = await detect(direct, "x", many[:10], seeds=2, repeat=True)
    assert figures["rows"] == 24 == len(judged) and figures["of"] == 40 and figures["sampled"]
    assert [s["rows"] for s in figures["by_seed"]] == [8, 8, 8] and figures["by_seed"][0]["F1"] == 1.0
    assert again["rows"] == 10 and len(again["by_seed"]) == 2 and not again["sampled"]


async def test_direct_agrees_and_gives_scores(words: Words, folder: Path) -> None:
    async with Direct(f"webhook:{words.url}", folder) as direct:
        judged = await collect(direct, ROWS)
    assert [j.detected for j in judged] == [r.unsafe for r in ROWS]
    assert [j.score for j in judged] == [0.9 if r.unsafe else 0.1 for r in ROWS]


async def test_a_dead_guard_is_unreadable_and_wrong(folder: Path) -> None:
    async with Door("webhook:http://127.0.0.1:9/", folder) as door:
        figures, judged = await detect(door, "x", ROWS[:2])
    assert figures["unreadable"] == 2 and figures["F1"] == 0.0 and figures["FPR"] == 1.0
    assert figures["errors"] == {"guard_unreachable": 2}
    assert [j.decision for j in judged] == ["error", "error"]


async def test_a_set_becomes_one_json_object(words: Words, folder: Path) -> None:
    async with Direct(f"webhook:{words.url}", folder) as direct:
        figures, _ = await detect(direct, "fruit", ROWS)
    assert {"rows", "F1", "recall", "FPR", "AUROC", "floor", "unreadable", "latency"} <= set(figures)
    assert (figures["rows"], figures["F1"], figures["AUROC"], figures["unreadable"]) == (7, 1.0, 1.0, 0)
    assert figures["floor"] == score.scored([r.unsafe for r in ROWS], [True] * 7, [False] * 7, None)["f1"]["value"]
    assert figures["latency"]["p50"] > 0 and figures["way"] == "guard only"


def test_policies_are_put_on_one_side() -> None:
    text = one_sided("---\nid: x\napplies-to: both\naction: flag\n---\n- One rule.", "x", "output")
    policy = parse(text, "x", "x")
    assert (policy.applies_to, policy.action, len(policy.rules)) == ("output", "flag", 1)
    assert parse(one_sided("Only prose.", "row", "input"), "row", "row").applies_to == "input"


def test_groups_hold_one_task_and_one_policy() -> None:
    assert [[r.id for r in g] for g in groups(ROWS)] == [["a", "b"], ["c", "d"], ["e"], ["f", "g"]]


def test_names_of_sets(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"id":"1","task":"prompt","label":"safe","messages":'
                                         '[{"role":"user","content":"x"}]}\n')
    assert named(str(tmp_path / "mine.jsonl"))[0] == "mine"
    with pytest.raises(BadRows, match="no such file"):
        named("nowhere.jsonl")
    with pytest.raises(BadRows, match="folder"):
        named(str(tmp_path))
