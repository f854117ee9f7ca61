"""Checkpoints: whole or absent, the newest wins, a full disk leaves the one before and says so."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections import namedtuple

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.ml, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

from tests.trainer import world  # noqa: E402
from trainer.checkpoint import Checkpoints  # noqa: E402
from trainer.errors import Halt  # noqa: E402
from trainer.learner import Learner, build  # noqa: E402


@pytest.fixture
def learner(tok, tmp_path):
    recipe = world.recipe(tmp_path)
    return Learner(recipe, build(recipe.model, tok, 0, 1024), 1e-3)


def weights(learner) -> list[float]:
    return [float(p.sum()) for p in learner.model.parameters()]


def test_saves_and_comes_back(learner, tmp_path):
    kept = Checkpoints(tmp_path / "c", keep=2)
    assert kept.resume(learner) is None
    before = weights(learner)
    kept.save(learner, 3, {"cursor": 7})
    draw = torch.rand(3)
    with torch.no_grad():
        for p in learner.model.parameters():
            p.add_(1.0)
    state = kept.resume(learner)
    assert (state["step"], state["cursor"]) == (3, 7) and weights(learner) == before
    assert torch.equal(torch.rand(3), draw)       # the random state came back too


@pytest.mark.parametrize(("begun", "weights"), [((2, 2), False), ((1, 1), False), ((3, 1), False), ((3, 2), True)])
def test_other_processes_or_another_zero(learner, tmp_path, monkeypatch, begun, weights):
    """The learner has zero 0 and one process."""
    kept, (zero, world) = Checkpoints(tmp_path / "c", options={"engine.zero": begun[0]}), begun
    monkeypatch.setattr(learner, "world", world)
    monkeypatch.setattr(learner, "total", lambda value: float(value))
    kept.save(learner, 1, {})
    monkeypatch.setattr(learner, "world", 1)
    with pytest.raises(Halt, match=rf"by {world} process\(es\) with engine.zero = {zero}, this run has 1 .*Nothing"):
        kept.resume(learner, weights)
    if zero != 3:
        assert kept.resume(learner, True)["step"] == 1


def test_keeps_the_last_few(learner, tmp_path):
    kept = Checkpoints(tmp_path / "c", keep=2)
    for step in (1, 2, 10):
        kept.save(learner, step, {})
    assert sorted(p.name for p in kept.folder.glob("step-*")) == ["step-00000002", "step-00000010"]
    assert kept.last().name == "step-00000010"


def test_half_a_checkpoint_is_none(learner, tmp_path):
    kept = Checkpoints(tmp_path / "c")
    kept.save(learner, 1, {})
    (kept.folder / "step-00000002.part").mkdir()
    assert kept.last().name == "step-00000001"
    for f in (kept.folder / "step-00000001").glob("*"):
        f.write_bytes(b"rubbish")
    with pytest.raises(Halt, match="cannot be read|incomplete"):
        kept.resume(learner)


def test_a_disk_too_small_is_noticed_before(learner, tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path / "c")
    kept.save(learner, 1, {})
    monkeypatch.setattr(shutil, "disk_usage", lambda p: namedtuple("u", "total used free")(1, 1, 1000))
    with pytest.raises(Halt, match="0 MB free and a checkpoint needs") as e:
        kept.save(learner, 2, {})
    assert e.value.saved == kept.folder / "step-00000001" and e.value.step == 2


def test_a_disk_that_fills_up_leaves_the_one_before(learner, tmp_path):
    """The kernel itself refuses to write on: a limit on file size stands in for the full disk."""
    kept = Checkpoints(tmp_path / "c")
    kept.save(learner, 1, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(Halt, match="could not be written") as e:
            kept.save(learner, 2, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, was)
    assert e.value.saved == kept.folder / "step-00000001" and not (kept.folder / "step-00000002.part").exists()
    assert kept.resume(learner)["step"] == 1
    assert os.listdir(kept.folder)


def test_without_the_latest_the_one_before_is_resumed(learner, tmp_path):
    """What a broken checkpoint's message advises; also what a kill leaves while a step is saved a second time."""
    kept = Checkpoints(tmp_path / "c", keep=2)
    for step in (100, 150):
        kept.save(learner, step, {})
    shutil.rmtree(kept.last())
    (kept.folder / "step-00000160.part").mkdir()
    assert kept.last().name == "step-00000100" and kept.resume(learner)["step"] == 100
    shutil.rmtree(kept.folder / "step-00000100")
    assert kept.last() is None and kept.resume(learner) is None


def test_the_last_few_are_the_last_saved(learner, tmp_path):
    kept = Checkpoints(tmp_path / "c", keep=2)
    for step in (100, 50, 60):
        kept.save(learner, step, {})
    assert sorted(p.name for p in kept.folder.glob("step-*")) == ["step-00000050", "step-00000060"]


def test_killed_while_a_step_is_saved_again(learner, tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path / "c")
    kept.save(learner, 1, {"cursor": 5})
    right = os.replace

    def killed(source, to):
        if source.suffix == ".part" and source.name != "latest.part":
            raise KeyboardInterrupt
        right(source, to)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        kept.save(learner, 1, {"cursor": 5})
    monkeypatch.setattr(os, "replace", right)
    assert kept.resume(learner)["cursor"] == 5
    kept.save(learner, 1, {"cursor": 5})
    assert [p.name for p in kept.folder.glob("step-*")] == ["step-00000001"]
