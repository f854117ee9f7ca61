"""Estimates: the parameter counts of known models, monotone in what costs, and plans that fit where they say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainer import recipe, scale, tiny

RECIPES = Path(__file__).resolve().parents[2] / "trainer" / "recipes"


@pytest.mark.parametrize(("shape", "millions"), [("0.5b", 494), ("1.5b", 1544), ("7b", 7616)])
def test_parameters_are_qwens(shape, millions):
    assert tiny.parameters(tiny.SHAPES[shape]) / 1e6 == pytest.approx(millions, rel=0.002)


@pytest.mark.ml
def test_parameters_are_the_models(tok):
    for shape in ("nano", "mini", "tiny", "small"):
        real = sum(p.numel() for p in tiny.model(shape, tok).parameters())
        assert tiny.parameters(tiny.SHAPES[shape], len(tok)) == real


@pytest.mark.parametrize(("name", "gpus"), [("rsafe-7b-4x80", 4), ("rsafe-7b-8x80", 8)])
def test_the_large_recipes_fit(name, gpus):
    r = recipe.load(RECIPES / f"{name}.toml")
    for machine in scale.MACHINES.values():
        p = scale.plan(r, gpus, machine)
        assert p.memory < 0.94 * machine.memory, scale.told(p, machine, gpus)
        assert p.memory >= p.states + p.engine + 2 * p.weights      # ZeRO-3: the whole weights at each push
        assert 2 < p.step < 600
    assert "fits" in scale.told(p, machine, gpus)


def test_more_gpus_hold_less_each_and_take_less_time():
    r = recipe.load(RECIPES / "rsafe-7b-4x80.toml")
    four, eight = scale.plan(r, 4), scale.plan(r, 8)
    assert eight.states < four.states and eight.step < four.step and eight.tokens == four.tokens


@pytest.mark.parametrize(("zero", "share"), [(2, 1), (3, 4)])
def test_a_kl_term_holds_the_first_model_too(zero, share):
    r = recipe.load(RECIPES / "rsafe-7b-4x80.toml")
    r = replace(r, engine=replace(r.engine, zero=zero))
    near = scale.plan(replace(r, grpo=replace(r.grpo, kl=0.01)), 4)
    free = scale.plan(replace(r, grpo=replace(r.grpo, kl=0.0)), 4)
    assert near.states - free.states == pytest.approx(2 * near.weights / share)


def test_zero_stages_by_formula():
    n = 7_000_000_000
    held = [scale.states(n, 0, 8, z, False)[0] for z in (0, 1)]
    assert held == [16 * n, (4 + 12 / 8) * n]
    lora, _, source = scale.states(n, 0, 8, 3, False, trained=40_000_000)
    assert lora == pytest.approx(2 * n / 8 + 16 * 40e6 / 8) and source == "formula"


@pytest.mark.ml
@pytest.mark.filterwarnings("ignore")
def test_deepspeeds_estimators_are_asked():
    pytest.importorskip("deepspeed")
    gpu, cpu, source = scale.states(7_600_000_000, 545_000_000, 8, 3, False)
    assert source == "deepspeed" and gpu > 7.6e9 * 16 / 8 and cpu > 8 * 2 * 7.6e9      # each process builds the model


@pytest.mark.ml
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "gpus"), [("rsafe-7b-4x80", 4), ("rsafe-7b-8x80", 8)])
def test_the_page_says_what_the_plan_says(name, gpus):
    pytest.importorskip("deepspeed")
    page = (RECIPES.parents[1] / "docs" / "training.md").read_text()
    for machine in scale.MACHINES.values():
        p = scale.plan(recipe.load(RECIPES / f"{name}.toml"), gpus, machine)
        held = " / ".join(f"{x / scale.GB:.1f}" for x in (p.states, p.activations, p.logits, p.gathered, p.engine))
        row = (f"| {name} | {gpus} x {machine.name.removesuffix('-80GB')} | {held} | {p.memory / scale.GB:.1f} | "
               f"{p.rollout:.1f} + {p.training:.1f} + {p.sync:.1f} = {p.step:.0f} s |")
        assert row in page, row
    assert f"prompts by the data's median, {scale.PROMPT} tokens" in page and f"answers of {scale.ANSWER})" in page
