"""Items -> batches of similar length; what is asked of an item is drawn anew each epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.encoder.bank import Rules, Texts
from trainer.encoder.data import VIOLATES, Ask, Item


@dataclass(slots=True)
class Batch:
    """One step's input. `owner[w]` is the item of window w; targets are by item and policy column."""

    pairs: list[tuple[str, str]]
    owner: Tensor           # [W]
    way: Tensor             # [W]
    rows: np.ndarray        # distinct rule rows, sorted
    index: Tensor           # [B,P,S] into rows
    role: Tensor            # [B,P,S], -1 = pad
    label: Tensor           # [B,P]: 1, 0, or -1 = not asked alone
    weight: Tensor          # [B,P]
    hit: Tensor             # [B,P,S] 1 where this very rule is known to be violated
    union: Tensor           # [B] 1 where at least one of the item's policies is violated
    items: list[Item]
    keys: list[list[str]]


def stream(items: list[Item], texts: Texts, rng: random.Random, budget: int) -> Iterator[list[Item]]:
    """Endless lists of items; each list holds about `budget` tokens with padding and one kind of asks."""
    while True:
        epoch: list[Item] = []
        for item in items:
            times = int(item.repeat) + (rng.random() < item.repeat % 1)
            epoch += [item] * times
        rng.shuffle(epoch)
        for at in range(0, len(epoch), 4000):
            yield from _pack(epoch[at:at + 4000], texts, rng, budget)


def _pack(chunk: list[Item], texts: Texts, rng: random.Random, budget: int) -> list[list[Item]]:
    size = {id(i): max(len(texts.tokens(t)[0]) for t in i.texts) for i in chunk}
    out: list[list[Item]] = []
    for many in (False, True):
        part = sorted((i for i in chunk if bool(i.clean or i.union) == many),
                      key=lambda i: size[id(i)] + rng.random() * 4)
        batch: list[Item] = []
        wins = 0
        for item in part:
            if batch and (wins + len(item.texts)) * size[id(item)] > budget or wins >= 96:
                out.append(batch)
                batch, wins = [], 0
            batch.append(item)
            wins += len(item.texts)
        if batch:
            out.append(batch)
    rng.shuffle(out)
    return out


def draw(item: Item, rng: random.Random, clean: int) -> list[Ask]:
    """The asks of one visit: the item's own, and a sample of the shipped policies that it does not violate."""
    asks = list(item.asks)
    if item.union:
        return asks + [Ask(p, -1) for p in item.union]
    if item.clean:
        weight = 0.5 if any(a.label for a in item.asks) else 1.0
        asks += [Ask(p, 0, weight=weight) for p in rng.sample(item.clean, min(clean, len(item.clean)))]
    return asks


def build(items: list[Item], rules: Rules, rng: random.Random | None, clean: int = 8,
          asks: list[list[Ask]] | None = None) -> Batch:
    """A batch; `asks` overrides the draw (evaluation)."""
    drawn = asks or [draw(i, rng or random.Random(0), clean) for i in items]
    cells = [[rules.policy(a.policy) for a in row] for row in drawn]
    p = max(len(r) for r in cells)
    s = max(len(c[0]) for r in cells for c in r)
    shape = (len(items), p, s)
    raw, role = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    label, weight = np.full(shape[:2], -1, np.int64), np.zeros(shape[:2], np.float32)
    hit = np.zeros(shape, np.float32)
    for i, (row, own) in enumerate(zip(cells, drawn, strict=True)):
        for j, ((at, roles), ask) in enumerate(zip(row, own, strict=True)):
            raw[i, j, :len(at)], role[i, j, :len(at)] = at, roles
            label[i, j], weight[i, j] = ask.label, ask.weight
            if ask.label == 1 and ask.rules:
                for k, slot in enumerate(rules.book.slots[ask.policy]):
                    hit[i, j, k] = slot.role == VIOLATES and slot.rule in ask.rules
    live = role >= 0
    rows = np.unique(raw[live])
    index = np.where(live, np.searchsorted(rows, raw), 0)
    pairs = [t for i in items for t in i.texts]
    owner = [n for n, i in enumerate(items) for _ in i.texts]
    return Batch(pairs, torch.tensor(owner), torch.tensor([items[n].way for n in owner]), rows,
                 torch.from_numpy(index), torch.from_numpy(role), torch.from_numpy(label), torch.from_numpy(weight),
                 torch.from_numpy(hit), torch.tensor([float(bool(i.union)) for i in items]), items,
                 [[a.policy for a in row] for row in drawn])
