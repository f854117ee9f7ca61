"""The table of test sets: what ships, through the code that serves it, beside the floors that give it meaning.

Rows with a policy are judged under it (an ad hoc policy, general calibration); rows without are judged under the
enabled shipped policies at their shipped thresholds. Floors and controls: F1 of "always unsafe"; the base encoder's
plain `max cos(rule, content)`; the same rows with their policies shuffled among them (only where rows bring policies).
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firewall.case import Case, Message, Said
from firewall.guards.encoder.engine import Engine
from firewall.guards.encoder.plan import Plan, compile
from firewall.guards.encoder.rules import ALLOWED, SCOPE, VIOLATES, segments
from firewall.guards.encoder.runtime import ASSETS, pieces
from firewall.guards.encoder.windows import context
from firewall.policy import Policy, PolicySet, load
from trainer.encoder.data import rows
from trainer.encoder.measure import auroc

Score = Callable[[dict[str, Any], PolicySet], float]
POLICIES = Path(__file__).parents[2] / "policies"


def table(bench: Path, out: Path | None, limit: int = 0, files: str = "", cosine: str = "", assets: Path | None = None
          ) -> list[dict[str, Any]]:
    """One row of figures a file; printed, and written to `out`. `cosine`: a base model's folder, scored instead."""
    score: Score = Cosine(cosine) if cosine else Served(assets or ASSETS)
    default = load(POLICIES)
    done = []
    for path in sorted(bench.glob("*.jsonl*")):
        name = path.name.split(".")[0]
        if files and name not in files.split(","):
            continue
        data = [r for r in rows(path) if r["label"] in ("safe", "unsafe")]
        if limit and len(data) > limit:
            data = sorted(data, key=lambda r: hashlib.sha256(str(r["id"]).encode()).hexdigest())[:limit]
        done.append(figures(name, data, score, default))
        print(json.dumps(done[-1]), flush=True)
        if out:
            out.write_text(json.dumps(done, indent=1) + "\n", "utf-8")
    return done


def figures(name: str, data: list[dict[str, Any]], score: Score, default: PolicySet) -> dict[str, Any]:
    """AUROC, F1, recall and FPR at the shipped thresholds (0.5), floors, the shuffled control, milliseconds."""
    policies = [r["policy"] for r in data]
    labels = np.array([int(r["label"] == "unsafe") for r in data])
    began = time.perf_counter()
    got = np.array([score(r, _set(p, r, default)) for r, p in zip(data, policies, strict=True)])
    ms = (time.perf_counter() - began) * 1e3 / max(1, len(data))
    over = got >= 0.5
    true, false = int((over & (labels == 1)).sum()), int((over & (labels == 0)).sum())
    bad, good = int(labels.sum()), int((1 - labels).sum())
    row: dict[str, Any] = {
        "file": name, "rows": len(data), "unsafe": bad, "auroc": _r(auroc(got, labels)),
        "f1": _r(2 * true / (true + false + bad) if bad else float("nan")),
        "floor_f1": _r(2 * bad / (2 * bad + good) if bad else float("nan")),
        "recall": _r(true / bad if bad else float("nan")), "fpr": _r(false / good if good else float("nan")),
        "recall_at_fpr5": _r(_recall_at(got, labels, 0.05)), "ms_mean": round(ms, 2)}
    if all(policies) and len(set(policies)) > 1:
        mixed = policies[:]
        random.Random(0).shuffle(mixed)
        part = range(min(len(data), 1000))
        wrong = np.array([score(data[i], _set(mixed[i], data[i], default)) for i in part])
        row["shuffled_auroc"] = _r(auroc(wrong, labels[:len(wrong)]))
    if isinstance(score, Cosine) and all(policies):
        row["auroc_allowed_negated"] = _r(auroc(np.array([score.away(r, _set(p, r, default))
                                                          for r, p in zip(data, policies, strict=True)]), labels))
    return row


class Served:
    """The shipped guard, without its event loop: same windows, same graphs, same calibration."""

    def __init__(self, assets: Path = ASSETS) -> None:
        self.engine = Engine(assets)
        self.plans: dict[str, Plan] = {}

    def __call__(self, row: dict[str, Any], policies: PolicySet) -> float:
        if policies.digest not in self.plans:
            self.plans[policies.digest] = compile(policies.policies, self.engine.code, self.engine.card["calibration"])
        case = _case(row, policies)
        about = context(next((m.text for m in reversed(case.messages) if m.role == "user"), "")) if case.answer else ""
        way, plan = int(bool(case.answer)), self.plans[policies.digest]
        return max((float(self.engine.score(p.text, about, way, plan).p.max()) for p in pieces(case)), default=0.0)


class Cosine:
    """The floor: the untrained base encoder, highest cosine of any rule with any window."""

    def __init__(self, base: str) -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModel

        torch.set_num_threads(1)
        self.torch, self.model = torch, AutoModel.from_pretrained(base).eval()
        self.tokenizer = Tokenizer.from_file(str(Path(base) / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)
        self.kept: dict[str, NDArray[np.float32]] = {}

    def vector(self, text: str) -> NDArray[np.float32]:
        if text not in self.kept:
            ids = self.torch.tensor([self.tokenizer.encode(text).ids])
            with self.torch.no_grad():
                v = self.model(ids).last_hidden_state[0].mean(0).numpy()
            self.kept[text] = v / np.linalg.norm(v)
        return self.kept[text]

    def _best(self, row: dict[str, Any], policies: PolicySet, roles: tuple[int, ...]) -> float:
        texts = [s.text for p in policies for s in segments(p) if s.role in roles]
        if not texts:
            return 0.0
        rules = np.stack([self.vector(t) for t in texts])
        return max((float((rules @ self.vector(p.text)).max()) for p in pieces(_case(row, policies))), default=0.0)

    def __call__(self, row: dict[str, Any], policies: PolicySet) -> float:
        return self._best(row, policies, (VIOLATES,))

    def away(self, row: dict[str, Any], policies: PolicySet) -> float:
        """Distance from what is allowed: the fair floor for allow-lists."""
        return -self._best(row, policies, (ALLOWED, SCOPE))


_ADHOC: dict[str, PolicySet] = {}


def _set(policy: str | None, row: dict[str, Any], default: PolicySet) -> PolicySet:
    if policy is None:
        return default.side("output" if row["task"] == "response" else "input")
    if policy not in _ADHOC:
        _ADHOC[policy] = PolicySet((Policy.from_text("adhoc", policy),))
    return _ADHOC[policy]


def _case(row: dict[str, Any], policies: PolicySet) -> Case:
    words = [Message(str(m["role"]), str(m["content"] or "")) for m in row["messages"]]
    if row["task"] == "response":
        return Case("output", policies, tuple(words[:-1]), (Said("choice/0/text", words[-1].text),))
    return Case("input", policies, (words[-1],))


def _recall_at(scores: NDArray[np.float64], labels: NDArray[np.int64], fpr: float) -> float:
    """The best recall of any threshold whose false-positive rate is at most `fpr`, as `benchmarks.score` has it."""
    good = np.sort(scores[labels == 0])
    if not len(good) or not labels.sum():
        return float("nan")
    cut = good[len(good) - 1 - int(len(good) * fpr)]
    return float((scores[labels == 1] > cut).mean())


def _r(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
