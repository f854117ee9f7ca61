"""The training loop: a budget of minutes or steps, checkpoints, resume, held-out measurements.

Loss, per content: for each policy asked with a label, binary cross-entropy of the policy's logit (label 1: a
softmax-weighted mean of its rules' logits, which unlike logsumexp does not grow with their number; label 0: the
highest rule); for rules known to be violated, their own cross-entropy; for "at least one of these" rows, the
softmax-weighted mean over all rules of the union.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from trainer.encoder.agree import agreeing
from trainer.encoder.answers import answers
from trainer.encoder.bank import Rules, Texts
from trainer.encoder.batches import Batch, build, stream
from trainer.encoder.data import Book, Item, crossed, embedded, examples, shared, split
from trainer.encoder.documents import documents
from trainer.encoder.evaluate import held_out
from trainer.encoder.labels import labels
from trainer.encoder.model import GuardNet, Shape
from trainer.encoder.pool import pool, prompts
from trainer.encoder.stray import stray

SOFT = 2.0          # sharpness of the softmax-weighted mean over rules
SMOOTH = 0.02       # label smoothing


def forward(net: GuardNet, rules: Rules, batch: Batch, fresh: list[int]) -> Tensor:
    """Logits [W,P,S] of every window."""
    states, mask, judged = rules.texts.batch(batch.pairs)
    tokens = net.encoder.upper(states, mask)
    codes = net.head.code(rules.gather(batch.rows, fresh))
    return net.head(tokens, mask, judged, batch.way, codes, batch.index[batch.owner], batch.role[batch.owner])


def by_item(logits: Tensor, batch: Batch) -> Tensor:
    """The highest logit over an item's windows: [W,P,S] -> [B,P,S]."""
    if len(batch.items) == len(batch.pairs):
        return logits
    out = torch.full((len(batch.items), *logits.shape[1:]), -1e4)
    at = batch.owner.view(-1, 1, 1).expand_as(logits)
    return out.scatter_reduce(0, at, logits, "amax")


def soft(z: Tensor, live: Tensor) -> Tensor:
    """Softmax-weighted mean over the last dimension: between mean and maximum, whatever the count."""
    masked = z.masked_fill(~live, -1e4)
    return (torch.softmax(masked * SOFT, -1) * z.masked_fill(~live, 0.0)).sum(-1)


def loss_of(logits: Tensor, batch: Batch) -> Tensor:
    """Scalar loss of a batch (see the module's docstring)."""
    live = batch.role == 0
    z = by_item(logits, batch)
    top = z.masked_fill(~live, -1e4).amax(-1)
    mean = soft(z, live)
    yes, no = batch.label == 1, batch.label == 0
    parts = torch.zeros_like(top)
    parts = torch.where(yes, _bce(mean, 1 - SMOOTH), parts)
    parts = torch.where(no, _bce(top, SMOOTH), parts)
    known = (batch.hit.sum(-1) > 0)
    own = (_bce(z, 1 - SMOOTH) * batch.hit).sum(-1) / batch.hit.sum(-1).clamp(min=1)
    parts = torch.where(known, 0.5 * parts + 0.5 * own, parts)
    w = batch.weight * (yes | no)
    # an innocent content asked under n policies weighs as much as the square root of n contents, not as n
    share = w / torch.sqrt((no.float().sum(-1, keepdim=True)).clamp(min=1.0)).where(no, torch.ones_like(w))
    total = (parts * share).sum() / share.sum().clamp(min=1e-6)
    if batch.union.any():
        b = z.shape[0]
        flat = soft(z.reshape(b, -1), (live & (batch.label == -1).unsqueeze(-1)).reshape(b, -1))
        total = total * (1 - batch.union.mean()) + (_bce(flat, 1 - SMOOTH) * batch.union).sum() / b
    return total


def _bce(z: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(z, torch.full_like(z, target), reduction="none")


def corpus(recipe: dict[str, Any]) -> tuple[list[Item], list[Item], list[Item], Book]:
    """(train, held out, benign kept for calibration, book) as the recipe says."""
    book = Book.of(Path(recipe["policies"]))
    data = recipe["data"]
    folder, own_folder = Path(recipe["shared"]), Path(recipe["examples"])
    codes = labels(own_folder / data["codes"]) if data.get("codes") else {}
    items = shared(folder, data["caps"], book, recipe["seed"], data.get("repeats"), codes)
    found: dict[str, str] = {}
    if data.get("pool"):
        found = prompts(folder)
        items += pool(found, own_folder / data["pool"], book, recipe["seed"], data["pool_calm"])
    train, held = split(agreeing(items), data["held_out"])
    own, benign = examples(own_folder, book, data["examples_repeat"], data["benign_calibration"], data.get("repeats"),
                           found)
    own += crossed(own_folder / "crossed", book, data["crossed_repeat"])
    if count := data.get("documents"):
        papers, pages = documents(book, count)
        own, benign = own + papers, benign + pages
    own_train, own_held = split(own, data["examples_held_out"])
    train += own_train
    made = answers(train + held, book, data["answers"], recipe["seed"])
    made_train, made_held = split(made, data["held_out"])
    strays = stray(train, data.get("stray", 0), recipe["seed"])
    train += embedded(train, data["embedded"], recipe["seed"]) + made_train + strays
    held += made_held
    return train, sorted(held + own_held, key=lambda i: i.key[::-1]), benign, book


def train(recipe: dict[str, Any], resume: bool = True) -> Path:
    """Trains for the recipe's `minutes`, or `steps` where given; returns the last checkpoint, resumed if it exists.

    A new run starts at the base model, or at the weights of the checkpoint `begin`, with a new optimizer and schedule.
    Raises ValueError for a checkpoint of another shape.
    """
    torch.set_num_threads(int(recipe.get("threads", 1)))
    torch.manual_seed(recipe["seed"])
    rng = random.Random(recipe["seed"])
    out = Path(recipe["out"])
    out.mkdir(parents=True, exist_ok=True)
    opt = recipe["train"]
    net = GuardNet(recipe["base"], Shape(**recipe["model"]))
    texts = Texts(net.encoder, Tokenizer.from_file(str(Path(recipe["base"]) / "tokenizer.json")))
    items, held, _, book = corpus(recipe)
    rules = Rules(net, texts, book)
    rules.use(items + held)
    encoder = [p for p in net.encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": encoder, "lr": opt["lr"]},
                                   {"params": net.head.parameters(), "lr": opt["head_lr"]}],
                                  weight_decay=0.01, betas=(0.9, 0.98))
    peaks = (opt["lr"], opt["head_lr"])
    state = {"step": 0, "seconds": 0.0, "contents": 0}
    last = out / "last.pt"
    if resume and last.exists():
        saved = torch.load(last, weights_only=True)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
        rng.seed(f"{recipe['seed']}/{state['step']}")
    elif begin := opt.get("begin"):
        saved = torch.load(begin, weights_only=True)
        if _shapes(saved) != _shapes({"net": net.state_dict()}):
            raise ValueError(f"{begin}: not the network of this recipe")
        net.load_state_dict(saved["net"])
    _say(out, event="start", items=len(items), held=len(held), slots=len(rules.pairs), **state)
    rules.refresh()
    _say(out, event="rules", slots=len(rules.pairs), **held_out(net, rules, held[:1200]))
    begun = mark = time.monotonic()
    base, saved_at, evaluated = state["seconds"], time.monotonic(), time.monotonic()
    limit, steps = opt["minutes"] * 60.0, int(opt.get("steps", 0))
    running: list[float] = []
    for part in stream(items, texts, rng, opt["tokens"]):
        state["seconds"] = base + time.monotonic() - begun
        done = state["step"] / steps if steps else state["seconds"] / limit
        if done >= 1.0:
            break
        warm = min(1.0, (state["step"] + 1) / opt["warmup"])
        factor = warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        batch = build(part, rules, rng, opt["clean"])
        fresh = sorted(rng.sample(range(len(batch.rows)), min(opt["fresh"], len(batch.rows))))
        logits = forward(net, rules, batch, [int(batch.rows[i]) for i in fresh])
        loss = loss_of(logits, batch)
        if not math.isfinite(loss.item()):
            save(net, optimizer, state, out / "nan.pt")
            raise ValueError(f"loss is not finite at step {state['step']}; state saved to {out / 'nan.pt'}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*encoder, *net.head.parameters()], 1.0)
        optimizer.step()
        state["step"] += 1
        state["contents"] += len(part)
        running.append(loss.item())
        if state["step"] % opt["refresh"] == 0:
            rules.refresh()
        if state["step"] % 50 == 0:
            now = time.monotonic()
            _say(out, event="step", loss=round(sum(running) / len(running), 4), lr=factor * opt["lr"],
                 s_per_step=round((now - mark) / 50, 3), cached=len(texts.states), **state)
            running, mark = [], now
        if time.monotonic() - saved_at > 120:
            save(net, optimizer, state, last)
            saved_at = time.monotonic()
        if time.monotonic() - evaluated > opt["evaluate_every"]:
            _say(out, event="held", **held_out(net, rules, held[:1200]), **state)
            evaluated = time.monotonic()
    save(net, optimizer, state, last)
    rules.refresh()
    _say(out, event="end", **held_out(net, rules, held), **state)
    return last


def save(net: GuardNet, optimizer: torch.optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    """Writes beside, then renames: a kill at any moment leaves a whole file."""
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def merge(out: Path, others: list[Path]) -> Path:
    """The mean of the weights of runs that began at the same ones, as `out/last.pt` (model soups, arXiv 2203.05482).

    The state counts the contents of all; the own checkpoint is kept as `alone.pt`. Raises ValueError for a checkpoint
    of another shape.
    """
    last = out / "last.pt"
    runs = [torch.load(p, weights_only=True) for p in (last, *others)]
    first = runs[0]["net"]
    for path, run in zip(others, runs[1:], strict=True):
        if _shapes(run) != _shapes(runs[0]):
            raise ValueError(f"{path}: not the same network as {last}")
    os.replace(last, out / "alone.pt")
    net = {k: torch.stack([run["net"][k].float() for run in runs]).mean(0).to(v.dtype) for k, v in first.items()}
    state = {**runs[0]["state"], "contents": sum(run["state"]["contents"] for run in runs), "runs": len(runs)}
    torch.save({"net": net, "optimizer": runs[0]["optimizer"], "state": state}, f"{last}.tmp")
    os.replace(f"{last}.tmp", last)
    return last


def _shapes(run: dict[str, Any]) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in run["net"].items()}


def _say(out: Path, **row: Any) -> None:
    line = json.dumps({"time": time.strftime("%H:%M:%S", time.gmtime()), **row})
    print(line, flush=True)
    with (out / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
