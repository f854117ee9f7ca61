"""Prompts that come without labels, under labels of our own: ids and codes here, the prompts stay where they are.

A line of a label file is `key code`: the key of a row (here the number at the end of its id), and letters of `CODES`, the
policy that fits best first; `-` = the shipped policies let it pass, `u` = harmful but none of them fits, `?` = would be a
coin's toss. Prompts of one form (imperatives, sensitive questions, homonyms) stand on both sides, which labelled public
sets have little of.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from trainer.encoder.data import Ask, Book, Item, rows, texts
from trainer.encoder.labels import ASIDE, labels, told

FILE = "pool_wildguardtrain_prompts_unlabelled"


def prompts(data: Path) -> dict[str, str]:
    """Number -> prompt of the whole pool."""
    return {str(int(row["id"].rsplit("-", 1)[1])): str(row["messages"][-1]["content"])
            for row in rows(data / "train" / f"{FILE}.jsonl.xz")}


def pool(found: dict[str, str], path: Path, book: Book, seed: int, calm: float) -> list[Item]:
    """Items of the labelled ones of `found` (number -> prompt); at most `calm` innocent ones for each violating one."""
    codes = labels(path)
    bad: list[Item] = []
    good: list[Item] = []
    for number, content in found.items():
        code = codes.get(number, "?")
        if set(code) & ASIDE:
            continue
        hit, clean = told(code, book.shipped)
        item = Item("pool", hashlib.sha256(content.encode()).hexdigest(), texts(content), 0,
                    tuple(Ask(p, 1, weight=1.0 if n == 0 else 0.6) for n, p in enumerate(hit)), clean)
        if item.texts:
            (bad if hit else good).append(item)
    random.Random(f"{seed}/pool").shuffle(good)
    return bad + good[:int(len(bad) * calm)]
