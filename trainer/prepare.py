"""`trainer data`: sources -> hygiene -> policy pairs -> train and validation files, and a report of what was taken."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from firewall.errors import Mistakes
from firewall.template import render
from trainer import hygiene, pairs, sources
from trainer.data import Example, key, read, split, write
from trainer.recipe import Recipe, Source


def gather(recipe: Recipe) -> tuple[list[Example], list[Example], dict[str, Any]]:
    """(train, validation, report). Validation rows are varied like train rows, and no content stands in both.

    Raises:
        Mistakes: rows that do not parse, or nothing left to train on.
    """
    if not recipe.data.sources:
        raise Mistakes(["the recipe names no data: add [[data.sources]] with path and format"])
    found: list[Example] = []
    short: list[str] = []
    for source in recipe.data.sources:
        rows = sources.read(source, recipe.data, recipe.seed)
        for unsafe, asked in ((False, source.safe), (True, source.unsafe)):
            have = sum(e.unsafe == unsafe for e in rows)
            if have < asked:
                short.append(f"{source.path}: {have} of {asked} {'unsafe' if unsafe else 'safe'} rows")
        found += rows
    read_rows = len(found)
    found, same = hygiene.unique(found)
    found, long = hygiene.shorter(found, recipe.data.longest)
    found, overlap = hygiene.refused(found, recipe.data.refuse, recipe.data.minhash)
    found, dropped = hygiene.balanced(found, recipe.data.balance, recipe.seed)
    train, held = split(paired(found), recipe.data.validation)
    train = pairs.expand(train, recipe.pairs, recipe.seed, min(recipe.data.crowd, 6))
    held = pairs.expand(held, recipe.pairs, recipe.seed + 1, min(recipe.data.crowd, 6))
    if not train:
        raise Mistakes(["no row is left to train on: every one was a duplicate, too long, or overlapped a test file"])
    report = {"recipe": recipe.digest, "rows": recipe.rows, "read": read_rows, "duplicates": same, "too_long": long,
              "refused": dict(overlap), "unbalanced": dropped, "short": short, "train": hygiene.report(train),
              "validation": hygiene.report(held)}
    return train, held, report


def paired(examples: list[Example]) -> list[Example]:
    """Rows with the same words under different policies become one group: they are pairs by nature."""
    name = [key(e.words + "".join(m.text for m in e.case.messages)) for e in examples]
    count = Counter(name)
    return [replace(e, group=e.group or n) if count[n] > 1 else e for e, n in zip(examples, name, strict=True)]


def files(out: Path) -> tuple[Path, Path]:
    return out / "data" / "train.jsonl", out / "data" / "validation.jsonl"


def run(recipe: Recipe) -> dict[str, Any]:
    """Gathers and writes. Returns the report, which also lies beside the files. Traces of earlier rows are removed.

    The train rows come last: where they are, all of it is whole and of one recipe.
    """
    train, held, report = gather(recipe)
    out = Path(recipe.out)
    for old in (files(out)[0], out / "data" / "traces.jsonl"):
        old.unlink(missing_ok=True)
    write(files(out)[1], held)
    hygiene.save_report(out / "data" / "report.json", report)
    write(files(out)[0], train)
    return report


def judged(recipe: Recipe, keep: bool = False) -> dict[str, list[Example]]:
    """The rows of `eval.files` by file name. `keep` writes them beside the training rows, where the next call (on a
    machine without the files) finds them."""
    out: dict[str, list[Example]] = {}
    for file in recipe.eval.files:
        here = Path(recipe.out) / "data" / "eval" / f"{Path(file).name.split('.')[0]}.jsonl"
        if here.exists() and not keep:
            out[Path(file).name] = read(here)
            continue
        out[Path(file).name] = sources.read(Source(path=file), recipe.data, recipe.seed)
        if keep:
            write(here, out[Path(file).name])
    return out


def prepared(recipe: Recipe) -> tuple[list[Example], list[Example]]:
    """The rows of `trainer data`, gathered now if it has not been run.

    Raises:
        Mistakes: the rows that are there were made with other data, pairs or seed.
    """
    train, held = files(Path(recipe.out))
    if not train.exists():
        run(recipe)
    report = train.with_name("report.json")
    made = json.loads(report.read_text("utf-8")).get("rows", recipe.rows) if report.exists() else recipe.rows
    if made != recipe.rows:
        raise Mistakes([f"{train}: made with other data, pairs or seed than this recipe's ({made}, not {recipe.rows}): "
                        "make the rows again with `python -m trainer data`, or set `out` elsewhere"])
    return read(train), read(held) if held.stat().st_size else []


def lengths(examples: list[Example], tokenizer: Any, most: int = 400) -> list[int]:
    """Prompt lengths in tokens of a sample of rows; characters / 4 where there is no tokenizer yet."""
    from trainer import tokenizer as words

    step = max(1, len(examples) // most)
    if tokenizer is None:
        return sorted(sum(len(s.text) for s in render(e.case)) // 4 for e in examples[::step])
    return sorted(len(words.prompt(tokenizer, e.case)) for e in examples[::step])


def fitting(examples: list[Example], tokenizer: Any, longest: int) -> tuple[list[Example], Counter[str]]:
    """Rows whose prompt has at most `longest` tokens, and how many of each source were left out."""
    from trainer import tokenizer as words

    kept, out = [], Counter[str]()
    for e in examples:
        if sum(len(s.text) for s in render(e.case)) > longest * 12:
            out[e.source] += 1
        elif len(words.prompt(tokenizer, e.case)) <= longest:
            kept.append(e)
        else:
            out[e.source] += 1
    return kept, out
