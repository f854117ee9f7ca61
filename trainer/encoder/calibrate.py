"""Scores of the int8 graphs -> probabilities where 0.5 is the shipped operating point. Held-out data only.

Two calibrations. *General* (custom, edited and ad hoc policies): the slope of Platt scaling (Platt 1999) with both
classes weighing the same, on held-out rows under their own policies, and the threshold at which `CUSTOM` of their
innocent rows are flagged. *Per shipped policy and direction*: the same slope, and the higher of two thresholds: the
equal-error point between the policy's held-out violating and matched innocent examples of that direction (two normal
distributions, drawn towards the mean over policies, for there are few), and mean + k deviations of the upper tail of its
scores on natural traffic, where one k for all is the smallest that keeps the false positives of all enabled policies
together at `TARGET` of the natural traffic.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firewall.guards.encoder.engine import Engine
from firewall.guards.encoder.plan import Plan, compile, digest
from firewall.guards.encoder.rules import segments
from firewall.policy import Policy, load
from trainer.encoder.data import Book, Item, shared
from trainer.encoder.export import ASSETS, GRAPHS, sha256
from trainer.encoder.measure import auroc
from trainer.encoder.train import corpus

TARGET = 0.03
CUSTOM = 0.05           # a custom policy has not been calibrated: it should rather miss than cry wolf
TAIL = 0.10             # share of innocent scores that describes a policy's upper tail
ABOVE = 0.3             # logits over the highest natural score at which a threshold ends
SHRINK = 0.3            # weight of the mean over policies in a policy's equal-error point
GOOD = 0.93             # held-out AUROC against matched innocents from which a policy may stand alone in a cascade
STEPS = np.arange(-2.0, 6.01, 0.1)
FOLDS = 10
NATURAL = ("benign_gpteacher", "benign_gsm8k", "benign_glaive_toolcall")     # their held-out slice, uncapped
FLAT: dict[str, Any] = {"default": [1.0, 0.0]}


def calibrate(recipe: dict[str, Any], assets: Path = ASSETS) -> dict[str, Any]:
    """Writes `calibration`, `validated`, held-out figures and file hashes into `assets/card.json`; returns the card.

    `held_out.frontier`: k -> (false positives on natural traffic, violating texts missed, matched innocents flagged).
    """
    card = json.loads((assets / "card.json").read_text("utf-8"))
    engine = Engine(assets)
    with ThreadPoolExecutor(int(recipe.get("threads", 1))) as threads:      # onnxruntime releases the GIL
        return _calibrate(recipe, assets, card, engine, threads)


def _calibrate(recipe: dict[str, Any], assets: Path, card: dict[str, Any], engine: Engine, threads: ThreadPoolExecutor
               ) -> dict[str, Any]:
    _, held, benign, book = corpus(recipe)
    more = shared(Path(recipe["shared"]), dict.fromkeys(NATURAL, 1_000_000), book, recipe["seed"])
    natural = benign + [i for i in more if i.clean and i.held(recipe["data"]["held_out"])]
    folder = Path(recipe["policies"])
    shipped = load(folder, enable=book.shipped)
    plan = compile(shipped.policies, engine.code, FLAT)
    own = [i for i in held if i.source.startswith("own/")]
    others = [i for i in held if not i.source.startswith("own/")]
    slope, shift, general = _general(engine, others, book, threads)

    scored = {way: _matrix(engine, [i for i in natural if i.way == way], plan, threads) for way in (0, 1)}
    pairs = [*zip(own, _matrix(engine, own, plan, threads), strict=True)]
    owner = [shipped.owner[r].id for r in plan.rules]
    names = list(book.shipped)
    enabled = np.array([n in book.enabled for n in names])
    calm = {way: _by_policy(m, owner, names) for way, m in scored.items()}

    equal = _equal(pairs, owner, names)

    def cuts(k: float, way: int) -> NDArray[np.float64]:
        return np.maximum(equal[way], _quiet(calm[way], k))

    def wrong(k: float) -> tuple[float, float, float]:
        """(false positives on natural traffic, misses, false positives on matched innocents)."""
        natural_fp = [(calm[w][:, enabled] > cuts(k, w)[enabled]).any(1) for w in (0, 1)]
        miss, fp = [], []
        for item, z in pairs:
            over = _by_policy(z[None], owner, names)[0] > cuts(k, item.way)
            hit = [names.index(a.policy) for a in item.asks if a.label]
            if hit:
                miss.append(not over[hit].any())
            else:
                fp.append(over[enabled].any() or any(over[names.index(a.policy)] for a in item.asks))
        return float(np.concatenate(natural_fp).mean()), float(np.mean(miss)), float(np.mean(fp))

    table = {round(float(k), 2): wrong(float(k)) for k in STEPS}
    best = min((k for k, (fp, _, _) in table.items() if fp <= TARGET), default=max(table))
    policies: dict[str, Any] = {}
    for n, name in enumerate(names):
        entry: dict[str, Any] = {"slots": digest(segments(shipped.owner[name]))}
        for way, word in ((0, "input"), (1, "output")):
            cut = float(cuts(best, way)[n])
            entry[word] = [round(slope, 4), round(-slope * cut, 4)]
        policies[name] = entry
    each, near = _policy_auroc(pairs, owner, names), _policy_auroc(pairs, owner, names, matched=True)
    card["calibration"] = {"default": [round(slope, 4), round(shift, 4)], "policies": policies}
    card["validated"] = sorted(n for n, v in near.items() if v is not None and v >= GOOD)
    fp, miss, flagged = table[best]
    card["held_out"] = {
        "general": general, "policies_auroc": each, "matched_auroc": near, "k": best,
        "natural_false_positives_unseen": round(_unseen(list(calm.values()), equal, enabled), 4),
        "natural_texts": int(sum(len(m) for m in scored.values())),
        "natural_false_positives": round(fp, 4), "contrast_missed": round(miss, 4),
        "contrast_innocent_flagged": round(flagged, 4), "contrast_texts": len(pairs),
        "frontier": {str(k): [round(v, 4) for v in table[k]] for k in sorted(table) if k * 2 == int(k * 2)}}
    card["sha256"] = {name: sha256(assets / name) for name in (*GRAPHS, "tokenizer.json")}
    (assets / "card.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
    print(json.dumps(card["held_out"]))
    return card


def _best(engine: Engine, item: Item, plan: Plan) -> NDArray[np.float32]:
    """The highest logit of each rule over an item's windows."""
    return np.max([engine.logits(text, about, item.way, plan) for text, about in item.texts], axis=0)


def _matrix(engine: Engine, items: list[Item], plan: Plan, threads: ThreadPoolExecutor) -> NDArray[np.float32]:
    rows = [*threads.map(lambda item: _best(engine, item, plan), items)]
    return np.stack(rows) if rows else np.zeros((0, len(plan.rules)), np.float32)


def _by_policy(z: NDArray[np.float32], owner: list[str], names: list[str]) -> NDArray[np.float32]:
    """[N,R] -> [N,policies]: each policy's highest rule."""
    where = np.array(owner)
    return np.stack([z[:, where == n].max(1) for n in names], 1)


def _quiet(z: NDArray[np.float32], k: float) -> NDArray[np.float32]:
    """Per policy: mean + k deviations of the upper tail of natural scores [N,policies], both drawn towards the mean
    over policies (few texts each), and at most `ABOVE` over the highest."""
    top = np.sort(z, 0)[-max(3, int(len(z) * TAIL)):]
    mean, spread = top.mean(0), top.std(0)
    mean, spread = 0.85 * mean + 0.15 * mean.mean(), 0.5 * spread + 0.5 * spread.mean()
    return np.minimum(mean + k * spread, top[-1] + ABOVE)


def _equal(pairs: list[tuple[Item, NDArray[np.float32]]], owner: list[str], names: list[str]
           ) -> dict[int, NDArray[np.float64]]:
    """Per direction and policy: the score at which as many violating examples are missed as matched innocent ones are
    flagged. A direction with few examples of a policy goes by those of both."""
    both = _moments(pairs, owner, names, 3)
    out = {}
    for way in (0, 1):
        own = _moments([(i, z) for i, z in pairs if i.way == way], owner, names, 8)
        moments = np.where(np.isnan(own).any((1, 2), keepdims=True), both, own)
        mean = np.nanmean(moments, 0)
        moments = np.where(np.isnan(moments), mean, SHRINK * mean + (1 - SHRINK) * moments)
        (low, low_dev), (high, high_dev) = moments[:, 0].T, moments[:, 1].T
        out[way] = (high * low_dev + low * high_dev) / (low_dev + high_dev)
    return out


def _moments(pairs: list[tuple[Item, NDArray[np.float32]]], owner: list[str], names: list[str], least: int
             ) -> NDArray[np.float64]:
    """[policies, 2 labels, (mean, deviation)] of the scores; NaN where a policy has fewer than `least` texts."""
    moments = np.full((len(names), 2, 2), np.nan)
    for n, name in enumerate(names):
        for label in (0, 1):
            z = [float(_by_policy(z[None], owner, names)[0, n]) for i, z in pairs
                 if any(a.policy == name and a.label == label for a in i.asks)]
            if len(z) >= least:
                moments[n, label] = np.mean(z), np.std(z)
    return moments


def _general(engine: Engine, items: list[Item], book: Book, threads: ThreadPoolExecutor
             ) -> tuple[float, float, dict[str, Any]]:
    """Slope and shift for any policy, and AUROC by source (int8)."""
    asked = [(item, ask) for item in items for ask in item.asks if ask.label >= 0 and ask.policy not in book.shipped]

    def highest(item: Item, policy: str) -> float:
        return float(_best(engine, item, _adhoc(policy, book, engine.code)).max())

    groups: dict[str, list[tuple[float, int]]] = {}
    for (item, ask), best in zip(asked, threads.map(lambda one: highest(one[0], one[1].policy), asked), strict=True):
        groups.setdefault(item.source, []).append((best, ask.label))
    z = np.array([v for g in groups.values() for v, _ in g])
    y = np.array([v for g in groups.values() for _, v in g])
    slope, _ = platt(z, y)
    shift = -slope * float(np.quantile(z[y == 0], 1 - CUSTOM))
    table = {k: _round(auroc(np.array([a for a, _ in g]), np.array([b for _, b in g]))) for k, g in groups.items()}
    return slope, shift, table


def _adhoc(key: str, book: Book, encode: Callable[[str], NDArray[np.float32]]) -> Plan:
    """The plan of an ad hoc policy of the book (derived ones have no text of their own, only slots)."""
    return compile([Policy("adhoc", "adhoc", ())], encode, FLAT, lambda _: book.slots[key])


def platt(z: NDArray[np.float64], y: NDArray[np.int64], steps: int = 200) -> tuple[float, float]:
    """Balanced logistic fit p(y=1) = sigmoid(a z + b) by Newton's method; a is kept positive."""
    w = np.where(y == 1, 0.5 / max(1, y.sum()), 0.5 / max(1, (1 - y).sum()))
    a, b = 1.0, 0.0
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(a * z + b, -30, 30)))
        g = w * (p - y)
        h = w * p * (1 - p) + 1e-9
        grad = np.array([(g * z).sum() + 1e-4 * (a - 1), g.sum()])
        hess = np.array([[(h * z * z).sum() + 1e-4, (h * z).sum()], [(h * z).sum(), h.sum()]])
        step = np.linalg.solve(hess, grad)
        a, b = a - step[0], b - step[1]
        if np.abs(step).max() < 1e-7:
            break
    return float(max(a, 0.05)), float(b)


def _unseen(natural: list[NDArray[np.float32]], equal: dict[int, NDArray[np.float64]], enabled: NDArray[np.bool_]) -> float:
    """False positives of natural texts under thresholds that were set without them ([N,policies] by direction): the
    share at the operating point itself is measured on the texts that chose it."""
    fold = [np.random.default_rng(way).permutation(len(z)) % FOLDS for way, z in enumerate(natural)]

    def flagged(out: int, k: float, inside: bool) -> list[NDArray[np.bool_]]:
        got = []
        for way, z in enumerate(natural):
            cut = np.maximum(equal[way], _quiet(z[fold[way] != out], k))
            rows = z[(fold[way] != out) == inside]
            got.append((rows[:, enabled] > cut[enabled]).any(1))
        return got

    hits: list[NDArray[np.bool_]] = []
    for out in range(FOLDS):
        k = next((k for k in STEPS if np.concatenate(flagged(out, k, True)).mean() <= TARGET), STEPS[-1])
        hits += flagged(out, k, False)
    return float(np.concatenate(hits).mean())


def _policy_auroc(pairs: list[tuple[Item, NDArray[np.float32]]], owner: list[str], names: list[str],
                  matched: bool = False) -> dict[str, float | None]:
    """Per policy: its violating held-out examples against all others that do not violate it; `matched`: against those
    that were written to resemble them only."""
    out: dict[str, float | None] = {}
    for n, name in enumerate(names):
        scores, labels = [], []
        for item, z in pairs:
            hit = {a.policy for a in item.asks if a.label}
            if name in hit or (name in item.clean and not matched) or any(a.policy == name for a in item.asks):
                scores.append(float(_by_policy(z[None], owner, names)[0, n]))
                labels.append(int(name in hit))
        out[name] = _round(auroc(np.array(scores), np.array(labels)))
    return out


def _round(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
