"""AUROC of held-out items by source while training, with the control that shows the policy is read."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from trainer.encoder.bank import Rules
from trainer.encoder.batches import build
from trainer.encoder.data import Ask, Item
from trainer.encoder.measure import auroc
from trainer.encoder.model import GuardNet


@torch.no_grad()
def logits_of(net: GuardNet, rules: Rules, items: list[Item], asks: list[list[Ask]], size: int = 24
              ) -> list[np.ndarray]:
    """Per item: the highest rule logit of each asked policy, over its windows."""
    from trainer.encoder.train import by_item, forward

    order = sorted(range(len(items)), key=lambda i: max(len(rules.texts.tokens(t)[0]) for t in items[i].texts))
    out: list[np.ndarray] = [np.zeros(0)] * len(items)
    for at in range(0, len(order), size):
        part = order[at:at + size]
        batch = build([items[i] for i in part], rules, None, asks=[asks[i] for i in part])
        z = forward(net, rules, batch, [])
        top = by_item(z, batch).masked_fill(batch.role != 0, -1e4).amax(-1).numpy()
        for row, i in zip(top, part, strict=True):
            out[i] = row[:len(asks[i])]
    return out


def held_out(net: GuardNet, rules: Rules, items: list[Item]) -> dict[str, Any]:
    """AUROC by source; for sources with their own policies also with policies shuffled among items."""
    asks: list[list[Ask]] = []
    for item in items:
        own = list(item.asks)
        if item.union or item.clean:
            own += [Ask(p, -1) for p in rules.book.enabled]
        asks.append(own)
    got = logits_of(net, rules, items, asks)
    own: dict[str, list[tuple[float, int]]] = {}
    anyway: dict[str, list[tuple[float, int]]] = {}
    for item, row, z in zip(items, asks, got, strict=True):
        for ask, value in zip(row, z, strict=True):
            if ask.label >= 0:
                own.setdefault(item.source.split("/")[0], []).append((float(value), ask.label))
        if item.union or item.clean:
            bad = int(bool(item.union) or any(a.label == 1 for a in item.asks))
            name = "harm_response" if item.way else "harm_prompt"
            anyway.setdefault("own_any" if item.source.startswith("own/") else name, []).append((float(z.max()), bad))
    out = {k: _auc(v) for k, v in sorted(own.items())}
    out |= {k: _auc(v) for k, v in sorted(anyway.items())}
    swap = [i for i in items if i.source == "polyguard_policy_swap"]
    if len(swap) > 20:
        mixed = [a for i in swap for a in i.asks]
        random.Random(0).shuffle(mixed)
        wrong, at = [], 0
        for i in swap:
            wrong.append([Ask(a.policy, b.label) for a, b in zip(mixed[at:at + len(i.asks)], i.asks, strict=True)])
            at += len(i.asks)
        z = logits_of(net, rules, swap, wrong)
        out["swap_shuffled"] = _auc([(float(v), a.label) for row, r in zip(z, wrong, strict=True)
                                     for v, a in zip(row, r, strict=True)])
    return {"auroc": out}


def _auc(pairs: list[tuple[float, int]]) -> float | None:
    scores, labels = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    value = auroc(scores, labels)
    return None if np.isnan(value) else round(value, 4)
