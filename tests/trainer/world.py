"""A small world to learn in: a policy that forbids one trade, sentences about that trade or another."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from firewall.case import Case, Message
from firewall.policy import Policy, PolicySet, Rule
from firewall.template import Segment, render, target
from trainer import recipe as recipes
from trainer import tokenizer as words
from trainer.data import Example

BAD = ("knife", "gun", "bomb", "rifle", "sword", "dagger")
GOOD = ("cake", "apple", "piano", "kite", "lamp", "teapot")
ARMS = PolicySet((Policy("arms", "Weapons", (Rule("arms/1", "Asking for arms."),)),))


def examples(count: int, seed: int = 0) -> list[Example]:
    """Shopping lists: of arms, or of harmless things."""
    rng = random.Random(seed)
    out = []
    for i in range(count):
        unsafe = i % 2 == 0
        text = " ".join(rng.choice(BAD if unsafe else GOOD) for _ in range(8))
        case = Case("input", ARMS, (Message("user", text),), boundary="f00d")
        out.append(Example(f"w{seed}-{i}", case, unsafe, ("arms/1",) if unsafe else (), "world", "CC0-1.0"))
    return out


def rough(count: int, seed: int = 0, right: float = 0.75) -> list[Example]:
    """The same rows with every third label or so wrong: a cold start that knows the form and half the task."""
    rng = random.Random(seed + 1)
    out = []
    for e in examples(count, seed + 7):
        unsafe = e.unsafe == (rng.random() < right)
        out.append(replace(e, unsafe=unsafe, rules=("arms/1",) if unsafe else ()))
    return out


def lesson(e: Example, salt: str) -> tuple[tuple[Segment, ...], str]:
    """The shortest right form."""
    return render(e.case), target("Let me see.", e.rules)


def tokenizer(folder: Path, size: int = 1024) -> Any:
    rows = examples(64)
    texts = ["".join(s.text for s in render(e.case)) + lesson(e, "")[1] for e in rows]
    return words.make(texts, size, folder)


def recipe(out: Path, **changes: Any) -> recipes.Recipe:
    """A recipe for this world; `changes` replace fields of its tables: grpo={"lr": 1e-3}."""
    made = recipes.Recipe(
        name="world", out=str(out), model=recipes.Model(shape="nano", dtype="float32"),
        sft=recipes.Sft(on=True, epochs=1, batch=16, micro=16, lr=3e-3, warmup=5, longest=1024),
        grpo=recipes.Grpo(group=8, prompts=8, micro=8, temperature=1.0, top_p=1.0, repetition=1.0, longest_prompt=512,
                          longest_answer=48, lr=2e-3, steps=40, share_prefix=True),
        reward=recipes.Reward(strict=True), engine=recipes.Engine(zero=0, beta2=0.95, threads=1, save_every=1000))
    return replace(made, **{k: replace(getattr(made, k), **v) if isinstance(v, dict) else v
                            for k, v in changes.items()})
