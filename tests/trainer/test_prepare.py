"""Prepared rows belong to one recipe: others' are refused, and half of them count as none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from firewall.errors import Mistakes
from trainer import prepare
from trainer import recipe as recipes

TINY = Path(__file__).resolve().parents[2] / "trainer" / "recipes" / "tiny.toml"


def recipe(out: Path, *settings: str) -> recipes.Recipe:
    made = recipes.load(TINY, [f"out={out}", *settings])
    return replace(made, data=replace(made.data, sources=tuple(
        replace(s, path=str(TINY.parents[2] / s.path)) for s in made.data.sources)))


def test_rows_of_another_recipe_are_refused(tmp_path):
    rows, _ = prepare.prepared(recipe(tmp_path))
    assert prepare.prepared(recipe(tmp_path, "grpo.lr=0.5", "eval.limit=3", "model.shape=nano"))[0] == rows
    for setting in ("pairs.share=0", "data.validation=0.5", "seed=9"):
        with pytest.raises(Mistakes, match=r"train\.jsonl: made with other data, pairs or seed.*`python -m trainer data`"):
            prepare.prepared(recipe(tmp_path, setting))
    (tmp_path / "data" / "traces.jsonl").write_text("")
    other = recipe(tmp_path, "pairs.share=0")
    assert prepare.run(other)["rows"] == other.rows             # what the message says to do
    assert len(prepare.prepared(other)[0]) < len(rows) and not (tmp_path / "data" / "traces.jsonl").exists()


def test_a_kill_between_the_files_leaves_no_rows(tmp_path, monkeypatch):
    prepare.prepared(recipe(tmp_path))
    other, right = recipe(tmp_path, "pairs.share=0"), prepare.hygiene.save_report

    def killed(path, values):
        right(path, values)
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare.hygiene, "save_report", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare.run(other)
    monkeypatch.setattr(prepare.hygiene, "save_report", right)
    rows, held = prepare.prepared(other)
    report = json.loads((tmp_path / "data" / "report.json").read_text())
    assert (report["rows"], report["train"]["rows"], report["validation"]["rows"]) == (other.rows, len(rows), len(held))
    assert {e.kind for e in rows} == {"row"}
