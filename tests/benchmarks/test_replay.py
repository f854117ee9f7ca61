from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import replay
from benchmarks.alone import Direct
from benchmarks.door import Door
from benchmarks.judged import Judged
from benchmarks.rows import BadRows
from benchmarks.upstream import chat
from tests.benchmarks.conftest import Words

CAPTURED = [{"id": f"req_{k}", "task": "prompt", "label": "safe", "messages": [{"role": "user", "content": text}]}
            for k, text in enumerate(("a KUMQUAT", "an apple", "SECRETWORD and KUMQUAT"))]
RECORDS = [{"event": "exchange", "id": "req_0", "decision": "allow", "rules": []},
           {"event": "exchange", "id": "req_1", "decision": "allow", "rules": []},
           {"event": "exchange", "id": "req_9", "decision": "block", "rules": ["fruit/1"]}]


def lines(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def after(tmp_path: Path) -> Path:
    folder = tmp_path / "after"
    folder.mkdir()
    (folder / "fruit.md").write_text("---\nid: fruit\n---\n## Violates\n- `fruit/1` Names the fruit.\n")
    return folder


async def test_records_are_joined_with_captured_content(words: Words, tmp_path: Path, after: Path) -> None:
    rows, then, lost = replay.past(lines(tmp_path / "r.jsonl", RECORDS), lines(tmp_path / "c.jsonl", CAPTURED))
    assert [r.id for r in rows] == ["req_0", "req_1"] and lost == 1
    async with Direct(f"webhook:{words.url}") as way:
        found = await replay.what_if(way, rows, then, after)
    assert (found["rows"], found["changed"], found["kinds"]) == (2, 1, {"allow -> block": 1})
    assert found["exchanges"][0]["id"] == "req_0" and found["exchanges"][0]["rules_after"] == ["fruit/1"]
    assert "KUMQUAT" not in json.dumps(found) and "SECRETWORD" not in json.dumps(replay.grid(found).rows)


async def test_a_captured_set_is_judged_before_and_after(words: Words, tmp_path: Path, after: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "other.md").write_text("---\nid: other\napplies-to: output\n---\n- Something else.\n")
    rows, then, _ = replay.past(lines(tmp_path / "c.jsonl", CAPTURED), None)
    async with Direct(f"webhook:{words.url}") as way:
        found = await replay.what_if(way, rows, then, after, before)
    assert found["rows"] == 3 and {c["id"] for c in found["exchanges"]} >= {"req_0", "req_2"}


TALKS = [("A KUMQUAT, please.", "Here it is."), ("A fruit, please.", "Have a KUMQUAT."), ("A pear.", "A fig.")]


@pytest.mark.parametrize("task", ["prompt", "response"])
async def test_unedited_policies_change_nothing(words: Words, tmp_path: Path, task: str) -> None:
    """A record covers request and answer; what the captured rows do not hold is counted, not guessed."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "fruit.md").write_text("---\nid: fruit\naction: flag\n---\n## Violates\n- `fruit/1` Names the fruit.\n")
    captured = []
    async with Door(f"webhook:{words.url}", folder) as door:
        lane = door.lanes[0]
        for n, (asked, answer) in enumerate(TALKS):
            door.upstream.scripts[f"m{n}"] = chat(answer)
            talk = [{"role": "user", "content": asked}]
            got = await lane.client.post("/v1/chat/completions", {"model": f"m{n}", "messages": talk})
            held = [*talk, {"role": "assistant", "content": answer}] if task == "response" else talk
            captured.append({"id": got.headers["x-request-id"], "task": task, "label": "safe", "messages": held})
        records = list((await lane.records({c["id"] for c in captured})).values())
    rows, then, lost = replay.past(lines(tmp_path / "r.jsonl", records), lines(tmp_path / "c.jsonl", captured))
    assert lost == 0
    async with Direct(f"webhook:{words.url}") as way:
        found = await replay.what_if(way, rows, then, folder)
        assert (found["rows"], found["changed"], found["not_compared"]) == (3, 0, 3 if task == "prompt" else 0)
        (folder / "fruit.md").write_text("---\nid: fruit\n---\n## Violates\n- `fruit/1` Names the fruit.\n")
        edited = await replay.what_if(way, rows, then, folder)
    assert edited["kinds"] == {"flag -> block": 2 if task == "response" else 1}
    assert ("could not be compared" in replay.grid(found).note) == (task == "prompt")


def test_what_a_record_says_of_a_side() -> None:
    record = {"decision": "flag", "input": "allow", "output": "flag", "rules": ["fruit/1"], "release": "watch"}
    assert replay.decided(record, "input") == replay.Past("allow")
    assert replay.decided(record | {"input": "flag"}, "input") == replay.Past("flag", ("fruit/1",), monitored=True)
    past = replay.decided(record, "output")
    assert past == replay.Past("flag", ("fruit/1",), monitored=True)
    assert past.under(Judged(replay.row(CAPTURED[0]), "block", rules=("fruit/1",))) == ("flag", ("fruit/1",))
    assert replay.decided(record | {"errors": ["guard_timeout"]}, "output") is None
    assert replay.decided({"decision": "block", "input": "block", "output": "unjudged"}, "output") is None


def test_records_alone_hold_no_content(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="--captured"):
        replay.past(lines(tmp_path / "r.jsonl", RECORDS), None)
