"""What a run leaves behind: a file without the steps that are done again, and a plot."""

from __future__ import annotations

import json

import pytest

from trainer.journal import Journal, plot, read

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_resumed_story_has_each_step_once(tmp_path):
    first = Journal(tmp_path, "sft", 9, bar=False)
    for step in range(5):
        first.write(step, {"loss": float(step)})
    with (tmp_path / "sft.jsonl").open("a") as out:
        out.write('{"step": 5, "lo')          # the crash
    again = Journal(tmp_path, "sft", 9, start=3, bar=False)
    again.write(3, {"loss": 33.0})
    again.close()
    assert [(r["step"], r["loss"]) for r in read(tmp_path / "sft.jsonl")] == [(0, 0), (1, 1), (2, 2), (3, 33)]
    for line in (tmp_path / "sft.jsonl").read_text().splitlines():
        json.loads(line)


def test_other_processes_are_silent(tmp_path):
    j = Journal(tmp_path / "x", "sft", 9, speak=False, bar=False)
    j.write(0, {"loss": 1.0})
    j.note("hello")
    j.close()
    assert not (tmp_path / "x").exists()


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"step": i, "reward": i / 9, "length": 9 - i}) + "\n" for i in range(9)))
    assert plot(path, tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    path.write_text("")
    assert not plot(path, tmp_path / "n.png")
