"""A stage asked for again: nothing left to do leaves the model alone, other options are said or refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.ml, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

from firewall.errors import Mistakes  # noqa: E402
from tests.trainer import world  # noqa: E402
from trainer import data, run  # noqa: E402


def test_vllm_draws_traces_in_one_process(cold, tmp_path, monkeypatch):
    """Its engine would wait for the processes that wait for the traces."""
    monkeypatch.setattr("trainer.learner.environment", lambda: (0, 2))
    with pytest.raises(Mistakes, match="in a run of one process"):
        run.sft(world.recipe(tmp_path, model={"path": str(cold)}, sft={"traces": "sampled"}, engine={"rollout": "vllm"}))


def test_a_finished_stage_and_a_changed_recipe(cold, tok, tmp_path, capsys):
    data.write(tmp_path / "data" / "train.jsonl", world.examples(48))
    data.write(tmp_path / "data" / "validation.jsonl", world.examples(4, 9))
    first = world.recipe(tmp_path, model={"path": str(cold)}, grpo={"steps": 2, "prompts": 2, "group": 2,
                                                                    "longest_answer": 8})
    second = replace(first, sft=replace(first.sft, on=False))
    model, papers = tmp_path / "model", tmp_path / "model" / "firewall.json"
    values = run.grpo(second, False)
    written, weights = papers.read_bytes(), (model / "model.safetensors").stat().st_mtime_ns
    told = json.loads(written)["metrics"]
    assert (told["stage"], told["step"]) == ("grpo", 2) and "changed" not in told
    capsys.readouterr()

    # the same command again, and once more with what changes no step
    for again in (second, replace(second, engine=replace(second.engine, save_every=7))):
        assert run.grpo(again, False)["reward"] == pytest.approx(values["reward"], abs=1e-5)
        assert "all 2 steps had been taken" in capsys.readouterr().err
    assert papers.read_bytes() == written and (model / "model.safetensors").stat().st_mtime_ns == weights

    # killed between the last checkpoint and the model: it is made, with the last step's metrics
    shutil.rmtree(model)
    run.grpo(second, False)
    assert json.loads(papers.read_text())["metrics"]["last"]["reward"] == pytest.approx(values["reward"], abs=1e-5)

    # other options with nothing left to take: refused, by `export` too, and the papers stay true
    other = replace(second, grpo=replace(second.grpo, lr=0.5))
    for asked in (lambda: run.grpo(other, False), lambda: run.exported(other)):
        with pytest.raises(Mistakes, match=r"other options \(grpo\.lr 0\.002 -> 0\.5\).*remove .*grpo to train again"):
            asked()
    assert json.loads(papers.read_text())["recipe"]["grpo"]["lr"] == 0.002

    # with steps left they are taken, it is said, and the papers tell it
    run.grpo(replace(other, grpo=replace(other.grpo, steps=3)), False)
    line = "from step 2: grpo.lr 0.002 -> 0.5"
    assert line in capsys.readouterr().err
    told = json.loads(papers.read_text())["metrics"]
    assert told["step"] == 3 and told["changed"] == [line] and line in (model / "README.md").read_text()
