"""Time: rows ahead in order with their errors in place; a stage that ends within its minutes and says so when resumed."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.ml, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

from tests.trainer import world  # noqa: E402
from trainer import train  # noqa: E402
from trainer.checkpoint import Checkpoints  # noqa: E402
from trainer.journal import read  # noqa: E402
from trainer.learner import Learner, build  # noqa: E402
from trainer.pace import FIRST, PROBE, Pace, ahead  # noqa: E402


class Alone:
    @staticmethod
    def most(value: float) -> float:
        return value


def test_ahead_keeps_order_and_errors():
    def made():
        yield from range(5)
        raise MemoryError("row 5")

    got = []
    with pytest.raises(MemoryError, match="row 5"):
        for x in ahead(made()):
            got.append(x)
    assert got == list(range(5)) and list(ahead([])) == []


def test_ahead_works_while_the_item_before_is_used():
    def made():
        for i in range(6):
            time.sleep(0.1)
            yield i

    began = time.monotonic()
    for _ in ahead(made()):
        time.sleep(0.1)
    assert time.monotonic() - began < 1.0           # one after the other it is 1.2


def test_steps_are_cut_by_the_pace_of_the_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(1.0, 1000, {})
    for step in range(PROBE):
        now[0] += 5.0 if step < 2 else 0.5           # the first steps warm up and do not count
        assert not pace.done(step, Alone())
    left = 60 - now[0]
    assert now[0] > FIRST and pace.steps == PROBE + int(left / 0.5) and pace.fixed
    again = Pace(1.0, 1000, pace.state())            # after a kill: the number stays, and so does the time spent
    assert again.steps == pace.steps and again.spent == pytest.approx(now[0])
    now[0] += 45
    assert again.done(PROBE, Alone())                # over the limit by more than 5 %: it ends where it is
    unlimited = Pace(0.0, 7, {})
    assert not unlimited.done(0, Alone()) and unlimited.state() == {}


def test_a_stage_ends_within_its_minutes_and_can_be_asked_again(tok, tmp_path):
    recipe = world.recipe(tmp_path, sft={"minutes": 0.1, "epochs": 100.0, "batch": 8, "schedule": "cosine"})
    learner = Learner(recipe, build(recipe.model, tok, 0, 1024), recipe.sft.lr)
    began = time.monotonic()
    train.sft(recipe, learner, tok, world.examples(400), tmp_path, lesson=world.lesson, bar=False)
    spent, steps = time.monotonic() - began, read(tmp_path / "sft.jsonl")
    kept = Checkpoints(tmp_path / "sft")
    assert 1 <= len(steps) < 5000 and spent < 40
    assert kept.last().name == f"step-{len(steps):08d}"
    train.sft(recipe, learner, tok, world.examples(400), tmp_path, lesson=world.lesson, bar=False)
    assert len(read(tmp_path / "sft.jsonl")) <= len(steps) + 1       # nothing is left to do
