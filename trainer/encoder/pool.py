"""Labels of our own for prompts that come without: ids and codes here, the prompts stay where they are.

A line is `number code`: the number at the end of a row's id in `pool_wildguardtrain_prompts_unlabelled`, and letters of
`CODES`, the policy that fits best first; `-` = the shipped policies let it pass, `u` = harmful but none of them fits,
`?` = would be a coin's toss. Prompts of one form (imperatives, sensitive questions, homonyms) stand on both sides, which
labelled public sets have little of.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from trainer.encoder.data import Ask, Book, Item, rows, texts
from trainer.encoder.labels import CLEAN, LLM

FILE = "pool_wildguardtrain_prompts_unlabelled"
CODES = {"a": "animal-abuse", "b": "public-safety", "c": "minors", "d": "drugs", "e": "espionage",
         "f": "misinformation", "g": "professional-advice", "h": "harassment", "i": "intellectual-property",
         "j": "jailbreak", "k": "trafficking", "m": "malware", "n": "nonviolent-crime", "p": "privacy",
         "s": "self-harm", "t": "hate", "v": "violence", "w": "weapons", "x": "sexual-content"}
ASIDE = set("u?lq")         # said of a prompt, but nothing that one shipped policy could be taught by


def labels(path: Path) -> dict[str, str]:
    """Number -> code. Raises ValueError naming the line where one does not read, or a number stands twice."""
    out: dict[str, str] = {}
    for at, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        number, _, code = line.partition(" ")
        if not number.isdecimal() or not code or set(code) - set(CODES) - ASIDE - {"-"} or ("-" in code and code != "-"):
            raise ValueError(f"{path}:{at}: expected `number code` with codes of {''.join(CODES)}-u?, not {line!r}")
        if number in out:
            raise ValueError(f"{path}:{at}: {number} is labelled twice")
        out[number] = code
    return out


def pool(data: Path, path: Path, book: Book, seed: int, calm: float) -> list[Item]:
    """Items of the labelled prompts; at most `calm` innocent ones for each violating one."""
    told = labels(path)
    bad: list[Item] = []
    good: list[Item] = []
    for row in rows(data / "train" / f"{FILE}.jsonl.xz"):
        code = told.get(str(int(row["id"].rsplit("-", 1)[1])), "?")
        if set(code) & ASIDE:
            continue
        content = str(row["messages"][-1]["content"])
        hit = [CODES[c] for c in code] if code != "-" else []
        near = {n for p in hit for n in CLEAN.get(p, ())}
        clean = tuple(p for p in book.shipped if p not in hit and p not in near and not (hit and p in LLM))
        item = Item("pool", hashlib.sha256(content.encode()).hexdigest(), texts(content), 0,
                    tuple(Ask(p, 1, weight=1.0 if n == 0 else 0.6) for n, p in enumerate(hit)), clean)
        if item.texts:
            (bad if hit else good).append(item)
    random.Random(f"{seed}/pool").shuffle(good)
    return bad + good[:int(len(bad) * calm)]
