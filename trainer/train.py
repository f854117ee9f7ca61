"""The two loops: supervised tuning on traces (stage 1) and group-relative reinforcement (stage 2).

Both are resumable to the step: everything random in a step comes from (seed, step), the data position is in the
checkpoint, and a checkpoint is whole or absent. What goes wrong in a step is caught before the weights change: the
state is saved, then a `Halt` names the step, the rows and what to do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firewall.template import Segment
from trainer import grpo as loss
from trainer import sync, traces
from trainer import tokenizer as words
from trainer.checkpoint import Checkpoints
from trainer.data import Example, batches
from trainer.episode import Batch, Episode
from trainer.errors import Halt, full
from trainer.journal import Journal
from trainer.learner import Learner
from trainer.pace import Pace, ahead
from trainer.recipe import Grpo, Recipe
from trainer.reward import grade
from trainer.sampler import Draw, Sampler, Transformers, Vllm, padded

MEMORY = "Make sft.micro or grpo.micro smaller, raise engine.zero, or set model.checkpointing or engine.offload."
Look = Callable[[Learner, int], dict[str, float]]
Lesson = Callable[[Example, str], tuple[Sequence[Segment], str]]
End = Callable[[Sequence[int]], int]        # an answer's ids -> how many of them are its thought


def rate(step: int, steps: int, peak: float, warmup: int, schedule: str = "constant") -> float:
    """Learning rate of a step: linear warm-up, then constant, or a cosine down to a tenth."""
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done))))


@contextmanager
def guarded(step: int, learner: Learner, kept: Checkpoints, state: dict[str, Any]) -> Iterator[None]:
    """Whatever stops a step: the state before it is saved first, then it is said clearly.

    A `Halt` is met by all processes at the same place, so all of them can save. One process alone that runs out of
    memory cannot: the checkpoint before it is named, and its launcher ends the others.
    """
    def keep(spoiled: bool = False) -> Path | None:
        return kept.last() if spoiled else kept.save(learner, step, state)

    try:
        yield
    except Halt as e:
        raise Halt(e.why, e.advice, step=step, saved=e.saved or keep(e.spoiled)) from e
    except OSError as e:
        raise Halt(f"{e.filename or 'a file'} could not be written ({e.strerror or type(e).__name__})",
                   "Make room or set `out` elsewhere.", step=step, saved=keep(learner.world > 1)) from e
    except (MemoryError, RuntimeError) as e:
        if not full(e):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise Halt("out of memory", MEMORY, step=step, saved=keep(learner.world > 1)) from e


# ------------------------------------------------------------------------------------------------ stage 1


def sft(recipe: Recipe, learner: Learner, tokenizer: Any, examples: Sequence[Example], out: Path, *,
        stage: str = "sft", lesson: Lesson | None = None, look: Look | None = None, bar: bool = True,
        stop: int = 0) -> dict[str, float]:
    """Trains on built traces, or on what `lesson` makes of an example; the last step's metrics, empty if none was left.

    A trace's wording and depth come from (seed, step, id). `stage` "corpus" is plain language modelling on the same
    rows (for models that start from nothing). `stop` ends after that step (tests).
    """
    o = recipe.sft
    epochs, minutes = (o.corpus, 0.25 * o.minutes) if stage == "corpus" else (o.epochs, o.minutes)
    kept = Checkpoints(out / stage, recipe.engine.keep, recipe.steps(stage))
    state = kept.resume(learner) or {"step": 0}
    pace = Pace(minutes, max(1, round(epochs * len(examples) / o.batch)), state)
    start = int(state["step"])
    kept.compare(learner, pace.steps)
    lesson = lesson or partial(traces.lesson, snap=o.snap)
    journal = Journal(out, stage, pace.steps, start, learner.rank == 0, bar)
    values: dict[str, float] = {}

    def made() -> Iterator[tuple[list[Example], list[tuple[list[int], list[int]]]]]:
        for step, batch in enumerate(batches(examples, o.batch, recipe.seed, start), start):
            if stage == "corpus":
                # begin with the end of a turn: the padding embedding is zero, and its norm's gradient explodes
                head = list(words.stops(tokenizer)[:1])
                yield batch, [(head, a[:o.longest - 1]) for a in words.encode_all(tokenizer, map(traces.plain, batch)) if a]
            else:
                told = [lesson(e, f"{recipe.seed}/{step}/{e.id}") for e in batch]
                asked = words.encode_all(tokenizer, (s for s, _ in told))
                answers = words.encode_all(tokenizer, ([Segment(a, True)] for _, a in told))
                yield batch, [(p, a) for p, a in zip(asked, answers, strict=True) if len(p) + len(a) <= o.longest]

    rows = ahead(made())
    try:
        step = start
        while step < min(pace.steps, stop or pace.steps):
            began = time.monotonic()
            with guarded(step, learner, kept, pace.state()):
                batch, fit = next(rows)
                whole = sum(map(len, (a for _, a in fit)))
                total = whole + o.prompt_loss * sum(max(0, len(p) - 1) for p, _ in fit)
                if not fit:
                    raise Halt(f"no row of the batch fits sft.longest = {o.longest} tokens", "Raise it.")
                value = _supervise(learner, fit[learner.rank::learner.world], o.micro, o.prompt_loss, total,
                                   tokenizer.pad_token_id, recipe)
                if not math.isfinite(value):
                    raise Halt(f"the loss is {value}", "Lower sft.lr or look at the rows "
                               + ", ".join(e.id for e in batch[:8]))
                lr = rate(step, pace.steps, o.lr, o.warmup, o.schedule)
                norm = learner.step(lr)
            spent = time.monotonic() - began
            tokens = sum(len(p) + len(a) for p, a in fit)
            values = {"loss": value, "norm": norm, "lr": lr, "seconds": spent, "tokens": tokens,
                      "tokens_s": tokens / spent, "left_out": len(batch) - len(fit)}
            over = pace.done(step, learner)
            with guarded(step + 1, learner, kept, pace.state()):
                if look and recipe.eval.every and (step + 1) % recipe.eval.every == 0:
                    values |= look(learner, step)
                journal.write(step, values)
            step += 1
            if over or step % recipe.engine.save_every == 0 or step == pace.steps:
                kept.save(learner, step, pace.state())
            if over:
                break
    finally:
        rows.close()
        journal.close()
    return values


def _supervise(learner: Learner, pairs: list[tuple[list[int], list[int]]], micro: int, prompt_loss: float,
               total: float, pad: int, recipe: Recipe) -> float:
    """Forward and backward over one process's share of a batch; the batch's loss."""
    pairs = sorted(pairs, key=lambda p: len(p[0]) + len(p[1]), reverse=True)
    parts = [pairs[i:i + micro] for i in range(0, len(pairs), micro)]
    count = int(learner.most(len(parts)))
    value = 0.0
    for i in range(count):
        part, weight = (parts[i], 1.0) if i < len(parts) else (pairs[-1:] or [([pad], [pad])], 0.0)
        ids, mask = padded([p + a for p, a in part], pad, left=True)
        keep = ids.shape[1] - 1 if prompt_loss else max(len(a) for _, a in part)
        heavy = torch.zeros(len(part), keep)
        for row, (p, a) in enumerate(part):
            if prompt_loss:
                heavy[row, keep - len(a) - len(p) + 1:] = prompt_loss       # nothing predicts a row's first token
            heavy[row, keep - len(a):] = 1.0
        scores, _ = learner.score(ids, mask, keep)
        each = -(scores * heavy.to(scores.device) * weight).sum() / total
        learner.backward(each, last=i == count - 1)
        value += float(each.detach())
    return learner.total(value)


# ------------------------------------------------------------------------------------------------ stage 2


def sampler_for(recipe: Recipe, learner: Learner, tokenizer: Any, folder: Path) -> Sampler:
    """The rollout engine a recipe names; `folder` holds the starting model for vLLM to shape itself by."""
    stops = words.stops(tokenizer)
    if recipe.engine.rollout == "transformers":
        return Transformers(learner, stops, tokenizer.pad_token_id)
    return Vllm(folder, recipe.model.dtype, recipe.grpo.longest_prompt + recipe.grpo.longest_answer, stops,
                recipe.engine.vllm_memory, recipe.engine.vllm_tensor, recipe.seed)


def rollout(recipe: Recipe, sampler: Sampler, tokenizer: Any, examples: Sequence[Example],
            prompts: dict[str, list[int]], seed: int, first: int = 0) -> list[Episode]:
    """Samples and grades `grpo.group` answers to each example."""
    o = recipe.grpo
    draw = Draw(o.group, o.temperature, o.top_p, o.repetition, o.longest_answer)
    out = []
    for i, (example, group) in enumerate(zip(examples, sampler.sample([prompts[e.id] for e in examples], draw, seed),
                                             strict=True)):
        for s in group:
            g = grade(words.answer_text(tokenizer, s.ids), example, recipe.reward, len(s.ids), o.longest_answer)
            out.append(Episode(example.id, first + i, tuple(prompts[example.id]), s.ids, s.logprobs, s.finished,
                               g.total, g.accuracy, g.format))
    return out


def collate(episodes: Sequence[Episode], advantages: Tensor, group: int, pad: int, end: End | None = None,
            weight: float = 1.0) -> Batch:
    """Episodes of whole groups -> tensors. `end` tells where a thought ends, and turns the verdict mask on."""
    prompt, prompt_mask = padded([e.prompt for e in episodes[::group]], pad, left=True)
    answer, answer_mask = padded([e.answer for e in episodes], pad, left=False)
    scores = torch.zeros(answer.shape)
    for i, e in enumerate(episodes):
        scores[i, :len(e.logprobs)] = torch.tensor(e.logprobs)
    heavy = answer_mask.float() * weight
    if end:
        heavy = loss.verdict_mask(heavy, [end(e.answer) for e in episodes])
    return Batch(prompt, prompt_mask, answer, answer_mask, heavy, scores, advantages)


def scored(learner: Learner, b: Batch, temperature: float, share: bool) -> tuple[Tensor, Tensor]:
    """(tempered, plain) log-probs (P*G, A) of a batch's answers."""
    if share:
        return learner.score(b.prompt, b.prompt_mask, b.answer.shape[1], temperature, b.answer, b.answer_mask)
    group = b.answer.shape[0] // b.prompt.shape[0]
    ids = torch.cat([b.prompt.repeat_interleave(group, 0), b.answer], 1)
    mask = torch.cat([b.prompt_mask.repeat_interleave(group, 0), b.answer_mask], 1)
    return learner.score(ids, mask, b.answer.shape[1], temperature)


def learn(recipe: Recipe, learner: Learner, episodes: Sequence[Episode], step: int, lr: float, pad: int,
          end: End | None = None) -> dict[str, float]:
    """One or more optimiser steps on one process's episodes. Groups without signal are counted, not computed.

    Raises:
        Halt: loss not finite, or rollout and training disagree; the weights are untouched then.
    """
    o = recipe.grpo
    rewards = torch.tensor([e.reward for e in episodes])
    gains = loss.advantages(rewards, o.group, o.scale)
    telling = loss.informative(rewards, o.group).tolist()
    end = end if o.verdict_mask else None
    whole = collate(episodes, gains, o.group, pad, end)
    tokens, answers = learner.total(whole.loss_mask.sum()), learner.total(len(episodes))
    chosen = [i for i, t in enumerate(telling) if t or o.kl] or [0]
    chosen.sort(key=lambda i: len(episodes[i * o.group].prompt), reverse=True)
    parts = [chosen[i:i + o.micro] for i in range(0, len(chosen), o.micro)]
    count = int(learner.most(len(parts)))
    parts += [chosen[:1]] * (count - len(parts))
    made = []
    for i, part in enumerate(parts):
        index = [g * o.group + k for g in part for k in range(o.group)]
        b = collate([episodes[j] for j in index], gains[index], o.group, pad, end,
                    1.0 if i < math.ceil(len(chosen) / o.micro) else 0.0)
        made.append(replace(b, **{f: getattr(b, f).to(learner.device) for f in Batch.__slots__}))
    tolerance = o.tolerance or (1e-3 if recipe.model.dtype == "float32" else 0.35)
    old: list[Tensor | None] = [None] * count
    if o.updates > 1:
        with torch.no_grad():
            old = [scored(learner, b, o.temperature, o.share_prefix)[0] for b in made]
    says: dict[str, float] = {}
    for update in range(o.updates):
        value = clipped = drift = gap = 0.0
        for i, b in enumerate(made):
            new, plain = scored(learner, b, o.temperature, o.share_prefix)
            if not update:
                gap = max(gap, sync.gap(b.rollout, plain, b.answer_mask))
            first = None
            if o.kl:
                with torch.no_grad():
                    first = _reference(learner.first, b, o.temperature)
            got = loss.objective(new, old[i] if old[i] is not None else new.detach(), b.advantages, b.loss_mask,
                                 low=o.clip_low, high=o.clip_high, mean=o.mean, longest=o.longest_answer,
                                 tokens=tokens, answers=answers, kl=o.kl, reference=first)
            learner.backward(got.loss, last=i == count - 1)
            value += float(got.loss.detach())
            weight = float(b.loss_mask.sum())       # groups left out clip nothing; with a KL term none is
            clipped, drift = clipped + float(got.clipped) * weight, drift + float(got.kl) * weight
        value = learner.total(value)
        clipped, drift = (learner.total(x) / max(tokens, 1.0) for x in (clipped, drift))
        if not math.isfinite(value):
            names = ", ".join(sorted({e.example for e in episodes})[:8])
            raise Halt(f"the loss is {value}", f"Lower grpo.lr or look at the rows {names}.", step=step)
        if not update:
            says["gap"] = sync.agree(learner.most(gap), tolerance, step)
        norm = learner.step(lr)
        says |= {"loss": value, "norm": norm, "clipped": clipped, "kl": drift}
    return says


def _reference(model: Any, b: Batch, temperature: float) -> Tensor:
    group = b.answer.shape[0] // b.prompt.shape[0]
    ids = torch.cat([b.prompt.repeat_interleave(group, 0), b.answer], 1)
    mask = torch.cat([b.prompt_mask.repeat_interleave(group, 0), b.answer_mask], 1)
    scores: Tensor = model(ids, mask, b.answer.shape[1], temperature)[0]
    return scores


def grpo(recipe: Recipe, learner: Learner, tokenizer: Any, sampler: Sampler, examples: Sequence[Example], out: Path,
         *, look: Look | None = None, bar: bool = True, stop: int = 0) -> dict[str, float]:
    """Reinforced alignment; the last step's metrics, empty if none was left. `examples` are those whose prompt fits.

    Raises:
        Halt: see `learn`; also after `grpo.patience` steps in a row in which no group had any signal.
    """
    o, mine = recipe.grpo, recipe.grpo.prompts // max(1, learner.world)
    steps = o.steps or max(1, round(o.epochs * len(examples) / o.prompts))
    pad, end = tokenizer.pad_token_id, partial(words.thought, tokenizer)
    if o.kl and learner.first is None:
        raise ValueError("grpo.kl needs a Learner that keeps its first weights")
    kept = Checkpoints(out / "grpo", recipe.engine.keep, recipe.steps("grpo"))
    state = kept.resume(learner) or {"step": 0, "cursor": 0, "still": 0}
    start, cursor, still = int(state["step"]), int(state["cursor"]), int(state["still"])
    pace = Pace(o.minutes, steps, state | {"steps": steps})     # a constant rate: it may end at any step
    kept.compare(learner, steps)
    journal = Journal(out, "grpo", steps, start, learner.rank == 0, bar)
    rows = batches(examples, o.prompts, recipe.seed, cursor)
    prompts: dict[str, list[int]] = {}
    values: dict[str, float] = {}
    sync.push(learner, sampler)
    try:
        for step in range(start, min(steps, stop or steps)):
            clock = [time.monotonic()]
            with guarded(step, learner, kept, {"cursor": cursor, "still": still} | pace.state()):
                episodes: list[Episode] = []
                for attempt in range(o.dynamic_tries if o.dynamic else 1):
                    batch = next(rows)[learner.rank::learner.world]
                    cursor += 1
                    prompts |= {e.id: words.prompt(tokenizer, e.case) for e in batch if e.id not in prompts}
                    seed = ((recipe.seed * 1_000_003 + step) * 64 + attempt) * 64 + learner.rank
                    drawn = rollout(recipe, sampler, tokenizer, batch, prompts, seed, len(episodes) // o.group)
                    episodes = _join(episodes, drawn, o.group, mine) if o.dynamic else drawn
                    if not learner.total(mine * o.group - len(episodes)):
                        break
                episodes = episodes or drawn
                clock.append(time.monotonic())
                signal = learner.total(loss.informative(torch.tensor([e.reward for e in episodes]), o.group).sum())
                lr = rate(step, steps, o.lr, o.warmup)
                says = {"loss": 0.0, "norm": 0.0, "clipped": 0.0, "kl": 0.0}
                if signal or o.kl:
                    says = learn(recipe, learner, episodes, step, lr, pad, end)
                still = 0 if signal else still + 1
                if still >= o.patience:
                    raise Halt(f"{still} steps in a row without signal: every group's answers earn the same reward",
                               "Raise grpo.temperature or grpo.group, or start from a model that sometimes succeeds.")
            after = {"cursor": cursor, "still": still}
            clock.append(time.monotonic())
            with guarded(step + 1, learner, kept, after):
                sync.push(learner, sampler)
            clock.append(time.monotonic())
            values = summary(learner, episodes) | says | {
                "signal": signal / (len(episodes) // o.group * learner.world), "lr": lr,
                **{f"{n}_s": b - a for n, a, b in zip(("rollout", "train", "sync"), clock, clock[1:], strict=False)}}
            values |= taught(learner, episodes, o)
            over = pace.done(step, learner)
            after |= pace.state()
            with guarded(step + 1, learner, kept, after):
                if look and recipe.eval.every and (step + 1) % recipe.eval.every == 0:
                    values |= look(learner, step)
                journal.write(step, values)
            if over or (step + 1) % recipe.engine.save_every == 0 or step + 1 == steps:
                kept.save(learner, step + 1, after)
            if over:
                break
    finally:
        journal.close()
    return values


def _join(have: list[Episode], drawn: list[Episode], group: int, most: int) -> list[Episode]:
    """Adds the informative groups of a draw until there are `most` groups."""
    good = loss.informative(torch.tensor([e.reward for e in drawn]), group).tolist()
    for i, g in enumerate(good):
        if g and len(have) < most * group:
            have = have + drawn[i * group:(i + 1) * group]
    return have


def taught(learner: Learner, episodes: Sequence[Episode], o: Grpo) -> dict[str, float]:
    """Tokens of a step: `tokens` that the learner computes forward and backward, `sampled` that the rollout made."""
    answers = sum(len(e.answer) for e in episodes)
    prompts = sum(len(e.prompt) for e in (episodes[::o.group] if o.share_prefix else episodes))
    return {"tokens": learner.total(answers + prompts), "sampled": learner.total(answers)}


def summary(learner: Learner, episodes: Sequence[Episode]) -> dict[str, float]:
    """Means over all processes' episodes."""
    n = learner.total(len(episodes))
    return {name: learner.total(sum(float(f(e)) for e in episodes)) / n for name, f in {
        "reward": lambda e: e.reward, "accuracy": lambda e: e.accuracy, "format": lambda e: e.format,
        "length": lambda e: len(e.answer), "finished": lambda e: e.finished}.items()}
