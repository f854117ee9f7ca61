"""It learns, shown: a small model gets better by GRPO, and with the advantage, the sign or the sync broken it does not.

The margin is set so that chance cannot cross it: 16 answers a step say little, so means over ten steps are compared.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.ml, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]

from tests.trainer import world  # noqa: E402
from trainer import grpo, sync, train  # noqa: E402
from trainer import tokenizer as words  # noqa: E402
from trainer.episode import Episode  # noqa: E402
from trainer.errors import Halt  # noqa: E402
from trainer.learner import Learner, Scorer, build  # noqa: E402
from trainer.sampler import Transformers  # noqa: E402

MARGIN = 0.2
ROOT = Path(__file__).resolve().parents[2]


class Beside(Transformers):
    """A sampler with weights of its own, as vLLM has them: it knows only what `sync` brings."""

    needs_sync = True

    def sync(self, weights: Any) -> None:
        own = self.owner.state_dict()
        for name, tensor in weights:
            own[name].copy_(tensor)


def rise(cold: Path, tok: Any, out: Path, **changes: Any) -> float:
    """Mean reward of the last ten steps less that of the first three."""
    recipe = world.recipe(out, **changes)
    model = build(replace(recipe.model, path=str(cold)), tok, 0, 1024)
    learner = Learner(recipe, model, recipe.grpo.lr)
    sampler = Beside(copy.deepcopy(model).eval(), words.stops(tok), tok.pad_token_id)
    train.grpo(recipe, learner, tok, sampler, world.examples(256), out, bar=False)
    rewards = [json.loads(line)["reward"] for line in (out / "grpo.jsonl").read_text().splitlines()]
    return sum(rewards[-10:]) / 10 - sum(rewards[:3]) / 3


def test_learns(cold, tok, tmp_path):
    assert rise(cold, tok, tmp_path) > MARGIN
    assert (tmp_path / "grpo.png").stat().st_size > 1000
    assert list((tmp_path / "board" / "grpo").glob("events*"))
    gaps = [json.loads(line).get("gap", 0.0) for line in (tmp_path / "grpo.jsonl").read_text().splitlines()]
    assert max(gaps) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {"mean": "sequence"}, {"mean": "drgrpo", "scale": "none"}, {"clip_high": 0.28, "dynamic": True},
    {"updates": 2}, {"verdict_mask": True, "lr": 5e-4, "steps": 60}])
def test_learns_with_every_refinement(cold, tok, tmp_path, options):
    assert rise(cold, tok, tmp_path, grpo=options) > MARGIN


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["sign", "shuffled", "ungrouped", "stale"])
def test_mutants_do_not_learn(cold, tok, tmp_path, monkeypatch, broken):
    right = grpo.advantages
    if broken == "sign":
        monkeypatch.setattr(grpo, "advantages", lambda r, g, s="std": -right(r, g, s))
    elif broken == "shuffled":
        monkeypatch.setattr(grpo, "advantages", lambda r, g, s="std": right(r, g, s).roll(1))
    elif broken == "ungrouped":
        monkeypatch.setattr(grpo, "advantages", lambda r, g, s="std": torch.ones_like(r))
    else:
        monkeypatch.setattr(sync, "push", lambda learner, sampler: None)
        monkeypatch.setattr(sync, "agree", lambda *a: 0.0)
    try:
        assert rise(cold, tok, tmp_path) < MARGIN
    except Halt as e:       # a policy driven into a corner gives no signal any more: that is not learning either
        assert "without signal" in e.why


def test_a_stale_sampler_is_caught_at_once(cold, tok, tmp_path, monkeypatch):
    monkeypatch.setattr(sync, "push", lambda learner, sampler: None)
    with pytest.raises(Halt, match="disagree") as e:
        rise(cold, tok, tmp_path)
    assert e.value.step in (1, 2) and e.value.saved is not None and e.value.saved.is_dir()


def test_nan_saves_the_state_first(cold, tok, tmp_path, monkeypatch):
    right, calls = grpo.objective, []

    def bad(*a, **k):
        calls.append(1)
        got = right(*a, **k)
        return got._replace(loss=got.loss * float("nan")) if len(calls) > 2 else got

    monkeypatch.setattr(grpo, "objective", bad)
    with pytest.raises(Halt, match="loss is nan.*rows w0-") as e:
        rise(cold, tok, tmp_path)
    assert e.value.saved == tmp_path / "grpo" / f"step-{e.value.step:08d}"


def test_memory_runs_out(cold, tok, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "objective", lambda *a, **k: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(Halt, match="out of memory.*micro") as e:
        rise(cold, tok, tmp_path)
    assert e.value.saved is not None


def test_no_signal_stops(cold, tok, tmp_path):
    # nothing is worth anything: every group is even
    with pytest.raises(Halt, match="2 steps in a row without signal"):
        rise(cold, tok, tmp_path, reward={"accuracy": 0.0, "format": 0.0}, grpo={"patience": 2})


def test_rate():
    assert [train.rate(s, 10, 1.0, 2) for s in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    assert train.rate(10, 10, 1.0, 0, "cosine") == pytest.approx(0.1)


def test_the_loss_does_not_depend_on_the_cutting(tok):
    """Rows of different lengths in one micro-batch, in two, and plain torch: a prompt's first token is predicted by none."""
    made = build(world.recipe(Path()).model, tok, 0, 1024)
    scorer = Scorer(made)

    class Plain:
        most, total, score = staticmethod(float), staticmethod(float), staticmethod(scorer)
        backward = staticmethod(lambda loss, last: None)

    pairs = [([5, 6, 7, 8, 9, 10, 11, 12], [13, 14]), ([20, 21, 22], [23])]
    want = 0.0
    with torch.no_grad():
        for p, a in pairs:
            ids = torch.tensor([p + a])
            scores = grpo.logprobs(made(ids).logits[0, :-1], ids[0, 1:])
            want -= float(0.5 * scores[:len(p) - 1].sum() + scores[len(p) - 1:].sum())
    got = [train._supervise(Plain(), pairs, micro, 0.5, 1.0, tok.pad_token_id, None) for micro in (1, 2)]
    assert got == pytest.approx([want, want], abs=1e-4)


def test_what_is_told_does_not_depend_on_the_cutting(tok):
    """Loss, clipped share and KL of answers of different lengths, a group at a time and all together."""
    episodes = [Episode(f"e{i // 2}", i // 2, (5, 6, 7), tuple(range(20, 21 + 3 * i)), (0.0,) * (1 + 3 * i), True,
                        float(i % 2), 0.0, 0.0) for i in range(6)]
    told = []
    for micro in (1, 3):
        r = world.recipe(Path(), grpo={"group": 2, "micro": micro, "kl": 0.1, "updates": 2, "clip_low": 1e-3,
                                       "clip_high": 1e-3, "tolerance": 1e9, "share_prefix": False})
        scorer = Scorer(build(r.model, tok, 0, 1024))
        best = torch.optim.SGD(scorer.parameters(), 0.3)

        class Plain:
            device, first = torch.device("cpu"), staticmethod(Scorer(build(r.model, tok, 0, 1024)))
            most, total, score = staticmethod(float), staticmethod(float), staticmethod(scorer)
            backward = staticmethod(lambda loss, last: loss.backward())
            step = staticmethod(lambda lr, best=best: (best.step(), best.zero_grad(), 1.0)[2])

        told.append(train.learn(r, Plain(), episodes, 0, 1e-3, tok.pad_token_id))
    assert 0.1 < told[0]["clipped"] < 0.9 and told[0]["kl"] > 1e-4
    assert told[0] == pytest.approx(told[1], rel=1e-3)


def tuned(cold: Path, tok: Any, out: Path, look: Any = None) -> dict[str, float]:
    """A few steps of stage 1."""
    recipe = world.recipe(out, engine={"save_every": 2, "zero": 1}, sft={"epochs": 0.5}, eval={"every": 1})
    learner = Learner(recipe, build(replace(recipe.model, path=str(cold)), tok, 0, 1024), recipe.sft.lr)
    return train.sft(recipe, learner, tok, world.examples(256), out, lesson=world.lesson, look=look, bar=False)


def test_tuning_stops_on_nan_with_the_state_before(cold, tok, tmp_path, monkeypatch):
    right, calls = train._supervise, []

    def bad(*a, **k):
        calls.append(1)
        return right(*a, **k) * (float("nan") if len(calls) > 3 else 1.0)

    monkeypatch.setattr(train, "_supervise", bad)
    with pytest.raises(Halt, match="step 3: the loss is nan.*rows w0-.*State saved") as e:
        tuned(cold, tok, tmp_path)
    assert e.value.saved == tmp_path / "sft" / "step-00000003"
    monkeypatch.setattr(train, "_supervise", right)
    tuned(cold, tok, tmp_path)              # the same command goes on from there
    assert [json.loads(x)["step"] for x in (tmp_path / "sft.jsonl").read_text().splitlines()] == list(range(8))


def test_a_spoiled_step_is_not_saved(cold, tok, tmp_path, monkeypatch):
    """Memory runs out inside the optimiser's step, or the gradient is not finite: the weights may be half changed."""
    right, calls = Learner.step, []

    def bad(self, lr):
        calls.append(1)
        if len(calls) == 4:
            monkeypatch.setattr(type(self.engine), "step", lambda *a, **k: (_ for _ in ()).throw(
                RuntimeError("CUDA out of memory. Tried to allocate")))
        return right(self, lr)

    monkeypatch.setattr(Learner, "step", bad)
    with pytest.raises(Halt, match="step 3: out of memory in the optimiser.*offload.*State saved") as e:
        tuned(cold, tok, tmp_path)
    assert e.value.saved == tmp_path / "sft" / "step-00000002"


def test_memory_runs_out_while_tuning(cold, tok, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_supervise", lambda *a, **k: (_ for _ in ()).throw(
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")))
    with pytest.raises(Halt, match="step 0: out of memory.*sft.micro") as e:
        tuned(cold, tok, tmp_path)
    assert e.value.saved == tmp_path / "sft" / "step-00000000"


def test_a_full_disk_under_the_metrics(cold, tok, tmp_path):
    """No file may grow any more, metrics and checkpoints alike: the last whole checkpoint is named, and it goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(learner, step):
        if step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "sft.jsonl").stat().st_size + 20, hard))
        return {}

    try:
        with pytest.raises(Halt, match="step 3: .*could not be written.*State saved") as e:
            tuned(cold, tok, tmp_path, look=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, was)
    assert e.value.saved == tmp_path / "sft" / "step-00000002"
    tuned(cold, tok, tmp_path)
    assert [json.loads(x)["step"] for x in (tmp_path / "sft.jsonl").read_text().splitlines()] == list(range(8))


SCRIPT = """
import sys; sys.path.insert(0, {root!r})
from pathlib import Path
from tests.trainer import world
from trainer import train
from trainer import tokenizer as words
from trainer.learner import Learner, build
from dataclasses import replace
out, tok = Path({out!r}), words.load({tok!r})
r = world.recipe(out, grpo={{"steps": 9}}, sft={{"epochs": 1.0}}, engine={{"save_every": 2, "zero": 1}})
L = Learner(r, build(replace(r.model, path={cold!r}), tok, 0, 1024), r.grpo.lr)
if {stage!r} == "sft":
    train.sft(r, L, tok, world.examples(16 * 24), out, lesson=world.lesson, bar=False)
else:
    train.grpo(r, L, tok, train.sampler_for(r, L, tok, out), world.examples(64), out, bar=False)
"""


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("stage", "steps"), [("sft", 24), ("grpo", 9)])
def test_killed_anywhere_and_resumed_takes_the_same_steps(cold, tok, tmp_path, stage, steps):
    """kill -9 between saves, then while a checkpoint is half written, then the same command again: the metrics and the
    weights are those of a run that was never stopped."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    tok.save_pretrained(tmp_path / "tok")
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR",
                                                           "MASTER_PORT")} | {"OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        code = SCRIPT.format(root=str(ROOT), out=str(out), tok=str(tmp_path / "tok"), cold=str(cold), stage=stage)
        return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    def killed(when: Any) -> None:
        child, until = start(cut), time.monotonic() + 200
        while time.monotonic() < until and child.poll() is None and not when():
            time.sleep(0.002)
        assert child.poll() is None, "it ended before it was killed"
        os.kill(child.pid, signal.SIGKILL)
        child.wait(30)

    assert start(whole).wait(300) == 0
    metrics, saves = cut / f"{stage}.jsonl", cut / stage
    killed(lambda: lines(metrics) >= 3)                                         # step 2 is done, and not saved
    assert (saves / "latest").read_text() == "step-00000002"
    killed(lambda: lines(metrics) >= 5 and any(saves.glob("*.part")))           # in the middle of a save
    assert start(cut).wait(300) == 0
    stories = [[{k: v for k, v in json.loads(line).items() if k not in ("time", "seconds") and not k.endswith("_s")}
                for line in (out / f"{stage}.jsonl").read_text().splitlines()] for out in (whole, cut)]
    assert [s["step"] for s in stories[1]] == list(range(steps))
    assert stories[0] == stories[1]
    last = f"step-{steps:08d}"
    ends = [torch.load(out / stage / last / "mp_rank_00_model_states.pt", weights_only=False)["module"]
            for out in (whole, cut)]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
