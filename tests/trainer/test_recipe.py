"""Recipes: every mistake at once, the nearest key named, RSafe's settings as the defaults."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from firewall.errors import Mistakes
from trainer import recipe

ROOT = Path(__file__).resolve().parents[2]


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "r.toml").write_text(text)
    return tmp_path / "r.toml"


def test_defaults_are_rsafes():
    g, r = recipe.Grpo(), recipe.Reward()
    assert (g.group, g.temperature, g.top_p, g.repetition, g.prompts, g.lr) == (4, 0.7, 0.8, 1.05, 32, 1e-7)
    assert (g.clip_low, g.clip_high, g.kl, g.clip_gradient, g.mean, g.scale) == (0.2, 0.2, 0.0, 1.0, "token", "std")
    assert (g.longest_prompt, g.longest_answer, g.epochs, g.updates) == (2048, 512, 3.0, 1)
    assert (r.accuracy, r.format, r.strict, r.cited, r.overlong) == (0.9, 0.1, False, 0.0, 0)
    assert not (g.dynamic or g.verdict_mask)


def test_all_mistakes_at_once(tmp_path):
    with pytest.raises(Mistakes) as e:
        recipe.load(write(tmp_path, """
            nmae = "x"
            [grpo]
            gruop = 8
            mean = "tokens"
            lr = "fast"
            [[data.sources]]
            pth = "x"
            """), ["grpo.temprature=1", "nonsense", "engine.zero=4"])
    text = "\n".join(e.value.lines)
    for part in ("'nmae'; did you mean 'name'", "'grpo.gruop'; did you mean 'group'", "did you mean 'token'",
                 "grpo.lr must be float", "'data.sources[0].pth'; did you mean 'path'",
                 "'grpo.temprature'; did you mean 'temperature'", "write key=value", "engine.zero must be one of 0, 1"):
        assert part in text, part


def test_settings_win_and_are_typed(tmp_path):
    path = write(tmp_path, "[grpo]\ngroup = 4\n")
    got = recipe.load(path, ["grpo.group=8", "name=a guard", "grpo.dynamic=true", "grpo.lr=1",
                             'eval.files=["a", "b"]'])
    assert (got.grpo.group, got.name, got.grpo.dynamic, got.grpo.lr, got.eval.files) == (8, "a guard", True, 1.0,
                                                                                       ("a", "b"))


@pytest.mark.parametrize("setting", ["grpo.group=1", "grpo.top_p=0", "grpo.temperature=0", "reward.cited=0.95",
                                     "reward.overlong=512", "data.balance=0.3", "pairs.share=1.5",
                                     'sft.traces="sampled"', "grpo.kl=-1", "sft.on=1",
                                     'eval.files=["a/test.jsonl", "b/test.jsonl"]', "sft.micro=0", "sft.batch=0",
                                     "grpo.micro=0", "grpo.prompts=0", "model.lora_rank=-1", 'model.shape="huge"'])
def test_senseless_values(tmp_path, setting):
    with pytest.raises(Mistakes):
        recipe.load(write(tmp_path, ""), [setting])


def test_an_engine_of_several_gpus_with_several_processes(tmp_path, monkeypatch):
    asked = write(tmp_path, ""), ["engine.rollout=vllm", "engine.vllm_tensor=2"]
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert recipe.load(*asked).engine.vllm_tensor == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Mistakes, match="vllm_tensor must be 1 where several processes"):
        recipe.load(*asked)


def test_digest_is_of_what_trains(tmp_path):
    path = write(tmp_path, "")
    one, two, other = (recipe.load(path, s).digest for s in ((), ("out=/elsewhere",), ("seed=1",)))
    assert one == two != other


def test_what_makes_the_rows_and_what_a_stage_depends_on(tmp_path):
    path = write(tmp_path, "")
    plain, rows, lr, length = (recipe.load(path, s) for s in ((), ("pairs.share=0.5",), ("sft.lr=1",), ("sft.epochs=9",)))
    assert plain.rows == lr.rows == length.rows != rows.rows and len(plain.rows) == 16
    assert plain.steps("sft") == length.steps("sft") != lr.steps("sft") and plain.steps("grpo") == lr.steps("grpo")
    assert plain.steps("sft") != rows.steps("sft") and plain.steps("grpo") != rows.steps("grpo")
    told = plain.steps("grpo")
    assert "engine.zero" in told and {"seed", "out"}.isdisjoint(told) and json.loads(json.dumps(told)) == told
    known = {f"{t.name}.{f.name}" for t in fields(plain) if is_dataclass(getattr(plain, t.name))
             for f in fields(getattr(plain, t.name))}
    assert known > recipe.ASIDE


def test_not_toml(tmp_path):
    with pytest.raises(Mistakes, match="not TOML"):
        recipe.load(write(tmp_path, "a = = b"))
    with pytest.raises(Mistakes, match="cannot be read"):
        recipe.load(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["rsafe-7b-4x80", "rsafe-7b-8x80", "small-guard", "tiny"])
def test_shipped_recipes_read(name):
    got = recipe.load(ROOT / "trainer" / "recipes" / f"{name}.toml")
    assert got.name and got.data.sources
    if name == "rsafe-7b-4x80":     # the paper's mixture, and nothing of GRPO but its defaults
        asked = [(s.safe, s.unsafe) for s in got.data.sources]
        assert asked == [(1000, 1000)] * 4 + [(1319, 0), (0, 655)]
        assert got.grpo == recipe.Grpo(micro=got.grpo.micro) and got.reward == recipe.Reward()
