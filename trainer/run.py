"""What each command does, from a recipe to files under `recipe.out`.

    data/       train.jsonl, validation.jsonl, report.json          trainer data
    tokenizer/  where the recipe names none                         made at the first need
    corpus/ sft/ grpo/   checkpoints                                trainer sft, trainer grpo
    *.jsonl *.png board/                                            metrics
    sft-model/  model/   Hugging Face folders with firewall.json    end of a stage; trainer export
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from firewall.errors import Mistakes
from firewall.template import Segment, render, target
from trainer import prepare, scale, traces
from trainer import tokenizer as words
from trainer.data import Example
from trainer.errors import MissingExtra
from trainer.recipe import Recipe


def tokenizer(recipe: Recipe, examples: Sequence[Example]) -> Any:
    """The recipe's tokenizer; for a new model without one, a tokenizer made from the rows and kept in `out`."""
    named = recipe.model.tokenizer or recipe.model.path
    folder = Path(recipe.out) / "tokenizer"
    if named:
        return words.load(named)
    if (folder / "tokenizer.json").exists():
        if (made := words.size_of(folder)) not in (0, recipe.model.vocab):
            raise Mistakes([f"model.vocab = {recipe.model.vocab}: the tokenizer in {folder}, which the checkpoints beside "
                            f"it speak, was made with {made}. Train in another --set out=FOLDER, or delete {recipe.out}."])
        return words.load(folder)
    step = max(1, len(examples) // 5000)
    texts = ("".join(s.text for s in render(e.case)) + target(*traces.build(e, _rng(e))) for e in examples[::step])
    return words.make(texts, recipe.model.vocab, folder)


def _rng(e: Example) -> random.Random:
    return random.Random(e.id)


def ready(recipe: Recipe) -> tuple[list[Example], list[Example], Any]:
    """(train rows, validation rows, tokenizer), made by the first of several processes and read by the others."""
    from trainer.learner import in_turn

    def work() -> tuple[list[Example], list[Example], Any]:
        rows, held = prepare.prepared(recipe)
        return rows, held, tokenizer(recipe, rows)

    return in_turn(work)


def start(recipe: Recipe, folder: Path | None, tok: Any) -> Any:
    """The model a stage starts from: `folder` if it is there, else what the recipe names."""
    from trainer.learner import build

    model = replace(recipe.model, path=str(folder)) if folder is not None and folder.exists() else recipe.model
    positions = max(recipe.sft.longest, recipe.grpo.longest_prompt + recipe.grpo.longest_answer, 2048)
    return build(model, tok, recipe.seed, positions)


def sft(recipe: Recipe, bar: bool = True) -> dict[str, float]:
    """Stage 1: language modelling where `sft.corpus` asks for it, then traces. Writes `sft-model/`."""
    from trainer import train
    from trainer.learner import Learner, environment, in_turn

    out = Path(recipe.out)
    drawn = out / "data" / "traces.jsonl"
    if recipe.sft.traces == "sampled" and recipe.engine.rollout == "vllm" and environment()[1] > 1 and not drawn.exists():
        raise Mistakes([f"sft.traces = sampled: vLLM draws them in a run of one process (bring its {drawn}); "
                        "engine.rollout = transformers draws them here"])
    rows, held, tok = ready(recipe)
    lesson = in_turn(lambda: sampled_lessons(recipe, rows, tok)) if recipe.sft.traces == "sampled" else None
    if lesson is not None:
        rows = [e for e in rows if e.id in lesson]
        if len(rows) < recipe.sft.batch:
            raise Mistakes([f"{out}/data/traces.jsonl: only {len(rows)} rows have a right answer, a batch is "
                            f"sft.batch = {recipe.sft.batch}: raise sft.samples or use sft.traces = \"built\""])
    learner = Learner(recipe, start(recipe, None, tok), recipe.sft.lr)
    if recipe.sft.corpus:
        train.sft(recipe, learner, tok, rows, out, stage="corpus", bar=bar)
    values = train.sft(recipe, learner, tok, rows, out, bar=bar, look=_look(recipe, tok, held),
                       lesson=None if lesson is None else lambda e, salt: lesson[e.id])
    return _kept(recipe, learner, tok, "sft", values)


def _kept(recipe: Recipe, learner: Any, tok: Any, stage: str, values: dict[str, float]) -> dict[str, float]:
    """Writes a stage's model with its papers, unless no step was taken since; the last step's metrics."""
    from trainer import export, journal
    from trainer.checkpoint import Checkpoints

    out = Path(recipe.out)
    to, told = out / ("sft-model" if stage == "sft" else "model"), Checkpoints(out / stage).told()
    step = told.get("step")
    if not values:
        line = (journal.read(out / f"{stage}.jsonl") or [{}])[-1]
        values = {k: v for k, v in line.items() if k not in ("step", "time")}
        papers = json.loads((to / "firewall.json").read_text("utf-8")) if (to / "firewall.json").exists() else {}
        known = papers.get("metrics", {})
        if learner.most(float((known.get("stage"), known.get("step")) == (stage, step))):
            if learner.rank == 0:
                print(f"{stage}: all {step} steps had been taken; {to} stays as it is", file=sys.stderr)
            return values
    metrics = {"stage": stage, "step": step, "last": values}
    with learner.whole() as model:
        if learner.rank == 0:
            export.folder(model, tok, to, recipe, metrics | {k: v for k, v in told.items() if k == "changed" and v},
                          _report(out))
    return values


def sampled_lessons(recipe: Recipe, rows: Sequence[Example], tok: Any) -> dict[str, tuple[tuple[Segment, ...], str]]:
    """Rejection-sampled answers by row id, drawn once and kept in data/traces.jsonl."""
    from trainer.learner import device, environment
    from trainer.sampler import Draw, Transformers, Vllm

    path = Path(recipe.out) / "data" / "traces.jsonl"
    if not path.exists():
        environment()
        draw = Draw(recipe.sft.samples, recipe.grpo.temperature, recipe.grpo.top_p, recipe.grpo.repetition,
                    recipe.grpo.longest_answer)
        stops = words.stops(tok)
        engine: Any = Vllm(Path(recipe.model.path), recipe.model.dtype,
                           recipe.grpo.longest_prompt + recipe.grpo.longest_answer, stops,
                           recipe.engine.vllm_memory) if recipe.engine.rollout == "vllm" else Transformers(
            start(recipe, None, tok).to(device()).eval(), stops, tok.pad_token_id)
        fit, _ = prepare.fitting(list(rows), tok, recipe.grpo.longest_prompt)
        kept = traces.finish(traces.sampled(fit, engine, tok, recipe.sft.samples, draw, recipe.seed))
        print(f"sampled traces: {len(kept)} of {len(fit)} rows have a right answer in {recipe.sft.samples} tries "
              f"({len(rows) - len(fit)} rows are too long)", file=sys.stderr)
        if not kept:
            raise Mistakes([f"{recipe.model.path}: not one sampled answer was right; use sft.traces = \"built\""])
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps({"id": e.id, "answer": a}) + "\n" for e, a in kept), "utf-8")
        part.replace(path)
    answers = {r["id"]: r["answer"] for r in map(json.loads, path.read_text("utf-8").splitlines())}
    return {e.id: (render(e.case), answers[e.id]) for e in rows if e.id in answers}


def grpo(recipe: Recipe, bar: bool = True) -> dict[str, float]:
    """Stage 2, from `sft-model/` where stage 1 has been run, else from the recipe's model. Writes `model/`."""
    from trainer import export, train
    from trainer.learner import Learner, environment, in_turn

    out = Path(recipe.out)
    _, world = environment()
    if recipe.grpo.prompts % world:
        raise Mistakes([f"grpo.prompts = {recipe.grpo.prompts} do not divide over {world} processes"])
    rows, held, tok = ready(recipe)
    rows, left = prepare.fitting(rows, tok, recipe.grpo.longest_prompt)
    if len(rows) < recipe.grpo.prompts:
        raise Mistakes([f"only {len(rows)} rows have prompts within grpo.longest_prompt = "
                        f"{recipe.grpo.longest_prompt} tokens ({sum(left.values())} are longer)"])
    first = out / "sft-model" if recipe.sft.on else None
    model = start(recipe, first, tok)
    seen = Path(recipe.model.path) if recipe.model.path and not (first and first.exists()) else first
    if recipe.engine.rollout == "vllm" and (seen is None or not seen.exists()):
        seen = in_turn(lambda: export.folder(model, tok, out / "start", recipe))
    learner = Learner(recipe, model, recipe.grpo.lr, recipe.grpo.clip_gradient, bool(recipe.grpo.kl))
    sampler = train.sampler_for(recipe, learner, tok, seen or out)
    values = train.grpo(recipe, learner, tok, sampler, rows, out, bar=bar, look=_look(recipe, tok, held))
    return _kept(recipe, learner, tok, "grpo", values)


def _report(out: Path) -> dict[str, Any]:
    path = out / "data" / "report.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _look(recipe: Recipe, tok: Any, held: Sequence[Example]) -> Any:
    """A quick look at validation rows during training: greedy answers of at most 64 of them."""
    if not recipe.eval.every or not held:
        return None
    from trainer import evaluate
    from trainer.sampler import Transformers

    rows, _ = prepare.fitting(list(held[:200]), tok, recipe.grpo.longest_prompt)
    rows = rows[:64]

    def look(learner: Any, step: int) -> dict[str, float]:
        engine = Transformers(learner, words.stops(tok), tok.pad_token_id)
        scores, broken, cited = evaluate.reasoned(rows, engine, tok, recipe.grpo.longest_answer)
        got = evaluate.figures(scores, [e.unsafe for e in rows], broken)
        return {"held_accuracy": sum((s >= 0.5) == e.unsafe for s, e in zip(scores, rows, strict=True)) / len(rows),
                "held_f1": got["f1"], "held_unreadable": got["unreadable"], "held_cited": cited}

    return look


def evaluate(recipe: Recipe, folder: Path | None = None) -> dict[str, Any]:
    """Figures of `model/` (or the given folder) on validation rows and `eval.files`; also written to eval.json."""
    import torch
    from transformers import AutoModelForCausalLM

    from trainer import evaluate as measure
    from trainer import export
    from trainer.sampler import Transformers

    out = Path(recipe.out)
    folder = folder or next((out / n for n in ("model", "sft-model") if (out / n).exists()), Path(recipe.model.path))
    if folder == Path():
        raise Mistakes([f"no model to evaluate: {out}/model, {out}/sft-model and model.path are not there"])
    if not folder.exists() and folder.is_relative_to(out):
        raise Mistakes([f"{folder}: no such folder"])
    try:
        export.check(folder) if folder.is_relative_to(out) else None
    except ValueError as e:
        raise Mistakes([str(e)]) from e
    _, held = prepare.prepared(recipe)
    tok = words.load(folder)
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    model = words.fetched(str(folder), lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    width = 128 if torch.cuda.is_available() else 16        # cases at a time
    engine = Transformers(model, words.stops(tok), tok.pad_token_id, width)

    def judge(rows: Sequence[Example]) -> tuple[list[float], int]:
        if recipe.eval.depth == "snap":
            return measure.snapped(rows, model, tok, width), 0
        scores, broken, _ = measure.reasoned(rows, engine, tok, recipe.grpo.longest_answer, width)
        return scores, broken

    sets = {"validation": held} | prepare.judged(recipe)
    result: dict[str, Any] = {"folder": str(folder), "depth": recipe.eval.depth}
    for name, rows in sets.items():
        rows, left = prepare.fitting(rows, tok, recipe.grpo.longest_prompt)
        random.Random(recipe.seed).shuffle(rows)        # readers give one class after the other
        rows = rows[:recipe.eval.limit or None]
        if rows:
            result[name] = measure.table(rows, judge) | {"left_out": sum(left.values())}
    (out / f"eval-{recipe.eval.depth}.json").write_text(measure.shown(result) + "\n", "utf-8")
    return result


def exported(recipe: Recipe) -> Path:
    """The newest grpo (or sft) checkpoint as `model/`, without training: for runs that were stopped.

    Raises:
        Mistakes: no checkpoint, or its steps were taken with other options than this recipe's.
    """
    from trainer import export
    from trainer.checkpoint import Checkpoints
    from trainer.learner import Learner

    out = Path(recipe.out)
    rows, _ = prepare.prepared(recipe)
    tok = tokenizer(recipe, rows)
    stage = next((s for s in ("grpo", "sft") if Checkpoints(out / s).last()), None)
    if stage is None:
        raise Mistakes([f"{out}: no checkpoint of sft or grpo to export"])
    learner = Learner(recipe, start(recipe, out / "sft-model" if stage == "grpo" and recipe.sft.on else None, tok), 0.0)
    kept = Checkpoints(out / stage, options={k: v for k, v in recipe.steps(stage).items() if k != "engine.zero"})
    state = kept.resume(learner, weights=True) or {}
    kept.compare(learner, 0)
    with learner.whole() as model:
        if learner.rank == 0:
            export.folder(model, tok, out / "model", recipe, {"stage": stage, "step": state.get("step")}
                          | ({"changed": kept.changed} if kept.changed else {}), _report(out))
    return out / "model"


def plan(recipe: Recipe, command: str, gpus: int = 1) -> str:
    """What a command would do: rows, steps, tokens, memory and time on paper."""
    lines = [f"recipe {recipe.name} ({recipe.digest}), seed {recipe.seed}, out {recipe.out}"]
    try:
        train, held, report = prepare.gather(recipe)
    except (Mistakes, OSError, MissingExtra) as e:
        count = sum(max(0, n) for source in recipe.data.sources for n in (source.safe, source.unsafe))
        if not count or any(Path(source.path).exists() for source in recipe.data.sources):
            raise
        lines.append(f"rows: {count:,} by the recipe's numbers; the data are not here ({type(e).__name__})")
        return "\n".join(lines + _costs(recipe, command, gpus, count, scale.PROMPT, 1500, " (assumed)"))
    refused = sum(report["refused"].values())
    lines.append(f"rows: {report['read']} read, {report['duplicates']} duplicates, {report['too_long']} too long, "
                 f"{refused} refused, {report['unbalanced']} for balance; {len(train)} to train on "
                 f"({report['train']['unsafe']} unsafe), {len(held)} for validation")
    lines += [f"short: {s}" for s in report["short"]]
    try:
        tok = tokenizer(recipe, train) if recipe.model.tokenizer or Path(recipe.model.path or "-").exists() else None
    except ImportError:
        tok = None
    spread = prepare.lengths(train, tok)
    guess = "" if tok else " (characters / 4: no tokenizer here yet)"
    return "\n".join(lines + _costs(recipe, command, gpus, len(train), spread[len(spread) // 2],
                                    spread[int(len(spread) * 0.95)], guess))


def _costs(recipe: Recipe, command: str, gpus: int, rows: int, middle: int, most: int, guess: str) -> list[str]:
    lines = [f"prompt tokens: median {middle}, 95 % within {most}{guess}"]
    answer = min(recipe.grpo.longest_answer, scale.ANSWER)
    if command == "sft":
        steps = round(recipe.sft.epochs * rows / recipe.sft.batch)
        lines.append(f"sft: {steps} steps of {recipe.sft.batch} rows, about "
                     f"{steps * recipe.sft.batch * (middle + answer):,} tokens")
    elif command == "grpo":
        steps = recipe.grpo.steps or round(recipe.grpo.epochs * rows / recipe.grpo.prompts)
        lines.append(f"grpo: {steps} steps of {recipe.grpo.prompts} prompts x {recipe.grpo.group} answers, about "
                     f"{steps * recipe.grpo.prompts * recipe.grpo.group * (middle + answer):,} tokens")
    if command == "sft":
        lines.append("memory and seconds below are those of a GRPO step of this recipe, not of sft")
    made = [scale.plan(recipe, gpus, machine, middle, answer) for machine in scale.MACHINES.values()]
    return lines + [scale.told(p, m, gpus) for p, m in zip(made, scale.MACHINES.values(), strict=True)]
