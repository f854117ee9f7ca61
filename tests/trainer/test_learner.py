"""DeepSpeed behind its wall gives what plain torch gives, however the batch is cut and over however many processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.ml, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]

from tests.trainer import world  # noqa: E402
from trainer import tokenizer as words  # noqa: E402
from trainer import train  # noqa: E402
from trainer.episode import Episode  # noqa: E402
from trainer.learner import Learner, Scorer, build  # noqa: E402
from trainer.sampler import padded  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def batch(tok, rows=4):
    told = [world.lesson(e, "") for e in world.examples(rows)]
    return [(words.encode(tok, s), tok.encode(a, add_special_tokens=False)) for s, a in told]


def plain(tok, recipe, pairs, steps=3, lr=1e-3):
    """The reference: torch alone, one batch, mean over answer tokens."""
    model = build(recipe.model, tok, 0, 1024)
    scorer, best = Scorer(model), None
    best = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, recipe.engine.beta2), weight_decay=0.0)
    losses = []
    for _ in range(steps):
        ids, mask = padded([p + a for p, a in pairs], tok.pad_token_id, left=True)
        keep = max(len(a) for _, a in pairs)
        heavy = torch.tensor([[float(k >= keep - len(a)) for k in range(keep)] for _, a in pairs])
        loss = -(scorer(ids, mask, keep)[0] * heavy).sum() / heavy.sum()
        best.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        best.step()
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize(("zero", "micro"), [(0, 4), (0, 1), (1, 2), (2, 2), (3, 2)])
def test_equals_plain_torch(tok, tmp_path, zero, micro):
    recipe = world.recipe(tmp_path, engine={"zero": zero})
    pairs = batch(tok)
    learner = Learner(recipe, build(recipe.model, tok, 0, 1024), 1e-3)
    total = sum(len(a) for _, a in pairs)
    losses = []
    for _ in range(3):
        losses.append(train._supervise(learner, pairs, micro, 0.0, total, tok.pad_token_id, recipe))
        norm = learner.step(1e-3)
        assert norm > 0
    assert losses == pytest.approx(plain(tok, recipe, pairs), abs=2e-4)


@pytest.mark.parametrize("zero", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_offload_changes_nothing(tok, tmp_path, zero, dtype):
    """Optimiser state in CPU memory: losses, norms and weights after three steps are those of the run without."""
    pairs = batch(tok)
    total = sum(len(a) for _, a in pairs)
    told = []
    for offload in (False, True):
        recipe = world.recipe(tmp_path, model={"dtype": dtype}, engine={"zero": zero, "offload": offload})
        learner = Learner(recipe, build(recipe.model, tok, 0, 1024), 1e-3)
        assert learner.engine.zero_cpu_offload() == offload
        story = []
        for _ in range(3):
            story.append(train._supervise(learner, pairs, 2, 0.0, total, tok.pad_token_id, recipe))
            story.append(learner.step(1e-3))
        with learner.whole() as model:
            told.append((story, torch.cat([p.float().flatten() for p in model.parameters()]).clone()))
    assert told[0][0] == pytest.approx(told[1][0], rel=1e-5 if dtype == "float32" else 1e-2)
    assert torch.allclose(told[0][1], told[1][1], atol=1e-6 if dtype == "float32" else 1e-2)


def test_bf16_follows(tok, tmp_path):
    recipe = world.recipe(tmp_path, model={"dtype": "bfloat16"}, engine={"zero": 1})
    pairs = batch(tok)
    learner = Learner(recipe, build(recipe.model, tok, 0, 1024), 1e-3)
    total = sum(len(a) for _, a in pairs)
    first = train._supervise(learner, pairs, 4, 0.0, total, tok.pad_token_id, recipe)
    for _ in range(10):
        learner.step(3e-3)
        last = train._supervise(learner, pairs, 4, 0.0, total, tok.pad_token_id, recipe)
    assert last < 0.7 * first


def test_shared_prefix_changes_nothing(tok, tmp_path):
    """The same log-probs and the same gradients whether a prompt is computed once or once an answer."""
    recipe = world.recipe(tmp_path)
    grads, scores = [], []
    prompts = [p for p, _ in batch(tok, 3)]
    answers = [list(range(20 + i, 26 + 2 * i)) for i in range(6)]
    for share in (False, True):
        scorer = Scorer(build(recipe.model, tok, 0, 1024))
        ids, mask = padded(prompts, tok.pad_token_id, left=True)
        tails, tail_mask = padded(answers, tok.pad_token_id, left=False)
        if share:
            got, _ = scorer(ids, mask, tails.shape[1], 0.7, tails, tail_mask)
        else:
            got, _ = scorer(torch.cat([ids.repeat_interleave(2, 0), tails], 1),
                            torch.cat([mask.repeat_interleave(2, 0), tail_mask], 1), tails.shape[1], 0.7)
        (got * tail_mask).sum().backward()
        scores.append((got * tail_mask).detach())
        grads.append(torch.cat([p.grad.flatten() for p in scorer.parameters()]))
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert torch.allclose(grads[0], grads[1], atol=1e-4)


def test_lora_trains_adapters_only(tok, tmp_path):
    pytest.importorskip("peft")
    recipe = world.recipe(tmp_path, model={"lora_rank": 4}, engine={"zero": 1})
    learner = Learner(recipe, build(recipe.model, tok, 0, 1024), 1e-2)
    before = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    pairs = batch(tok)
    train._supervise(learner, pairs, 4, 0.0, sum(len(a) for _, a in pairs), tok.pad_token_id, recipe)
    learner.step(1e-2)
    moved = {n for n, p in learner.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all("lora_" in n for n in moved)


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_the_first_policy_stays(tok, tmp_path, zero):
    """What a KL term is measured against: the weights as they came, however they are spread and trained since."""
    recipe = world.recipe(tmp_path, grpo={"kl": 0.1, "micro": 1}, engine={"zero": zero})
    learner = Learner(recipe, build(recipe.model, tok, 0, 1024), 1e-2, first=True)
    ids, mask = padded([p + a for p, a in batch(tok)], tok.pad_token_id, left=True)
    with torch.no_grad():
        want = Scorer(build(recipe.model, tok, 0, 1024)).eval()(ids, mask, 8)[0]
        assert torch.allclose(learner.first(ids, mask, 8)[0], want, atol=1e-5)
    answers = [tuple(tok.encode(f"<think> {i} </think>", add_special_tokens=False)) for i in range(16)]
    prompts = [tuple(words.prompt(tok, e.case)) for e in world.examples(2)]
    told = [Episode(f"e{i // 8}", i // 8, prompts[i // 8], a, tuple(0.0 for _ in a), True, float(i % 2), 0.0, 0.0)
            for i, a in enumerate(answers)]
    recipe = replace(recipe, grpo=replace(recipe.grpo, tolerance=1e9))
    drift = [train.learn(recipe, learner, told, k, 1e-2, tok.pad_token_id)["kl"] for k in range(3)]
    assert abs(drift[0]) < 1e-6 < 1e-3 < drift[2]
    with torch.no_grad():
        assert torch.allclose(learner.first(ids, mask, 8)[0], want, atol=1e-5)


SCRIPT = """
import json, os, sys; sys.path.insert(0, {root!r})
from pathlib import Path
from dataclasses import replace
from tests.trainer import world
from trainer import train
from trainer import tokenizer as words
from trainer.learner import Learner, build
out, tok = Path(sys.argv[1]), words.load({tok!r})
r = world.recipe(out, grpo={{"temperature": 0.0 + 1.0, "steps": 3, "micro": 2}}, engine={{"zero": int(sys.argv[2])}})
L = Learner(r, build(replace(r.model, path={cold!r}), tok, 0, 1024), 1e-3)
train.sft(r, L, tok, world.examples(64), out, lesson=world.lesson, bar=False)
# the same answers on every process count: sampled once by rank, from a seed of the row
import torch
from trainer.sampler import Draw, Transformers
rows = world.examples(8, 3)
engine = Transformers(L, words.stops(tok), tok.pad_token_id)
from trainer.episode import Episode
from trainer.reward import grade
eps = []
for i, e in enumerate(rows):
    p = words.prompt(tok, e.case)
    for s in engine.sample([p], Draw(r.grpo.group, 1.0, 1.0, 1.0, 24), i)[0]:
        g = grade(words.answer_text(tok, s.ids), e, r.reward)
        eps.append(Episode(e.id, i, tuple(p), s.ids, s.logprobs, s.finished, g.total + 0.01 * len(s.ids), 0.0, 0.0))
mine = [e for e in eps if e.group % L.world == L.rank]
says = [train.learn(r, L, mine, k, 1e-3, tok.pad_token_id) for k in range(1)]
if L.rank == 0:
    sft = [json.loads(x)["loss"] for x in (out / "sft.jsonl").read_text().splitlines()]
    print("RESULT " + json.dumps([sft, [[s["loss"], s["norm"]] for s in says]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 2])
def test_two_processes_give_the_loss_of_one(cold, tok, tmp_path, zero):
    tok.save_pretrained(tmp_path / "tok")
    script = tmp_path / "go.py"
    script.write_text(SCRIPT.format(root=str(ROOT), tok=str(tmp_path / "tok"), cold=str(cold)))
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR",
                                                           "MASTER_PORT")} | {"OMP_NUM_THREADS": "1"}
    told = []
    for n in (1, 2):
        done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(n),
                               "--master_port", str(29700 + n + 10 * zero), str(script), str(tmp_path / f"o{n}"),
                               str(zero)], env=env, capture_output=True, text=True, timeout=380)
        line = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
        assert line, done.stderr[-2000:]
        told.append(json.loads(line[0][7:]))
    assert told[0][0] == pytest.approx(told[1][0], abs=2e-4)
    for one, two in zip(told[0][1], told[1][1], strict=True):
        assert one == pytest.approx(two, rel=2e-3, abs=2e-4)
