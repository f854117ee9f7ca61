"""The ONNX graphs behind two calls: the code of a rule, and the scores of a window. Synchronous, thread-safe.

Every call runs one text alone, unpadded: with dynamic int8 a text's result then depends on nothing else.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from firewall.guards.encoder.plan import Plan
from firewall.guards.encoder.rules import parts
from firewall.guards.encoder.windows import spaced
from firewall.guards.encoder.wordpiece import Encoding, WordPiece

CLS, SEP = 101, 102
MAX_TOKENS, RULE_TOKENS, CONTEXT_TOKENS = 160, 64, 56
PIECE = MAX_TOKENS - 2
RULES_KEPT = 4096
STRONG, SPANS = 0.35, 3     # evidence: tokens with at least this share of the highest attention; at most so many spans


class Scores(NamedTuple):
    """Of one window: calibrated probability of each rule of the plan; (rule position, start, end) of evidence."""

    p: NDArray[np.float32]
    spans: tuple[tuple[int, int, int], ...]
    tokens: int


def name(text: str) -> str:
    """The key of a sentence in codes.npz."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Engine:
    """Loads graphs, tokenizer and card from a folder. Raises OSError or ValueError when they are not whole.

    `check`: the files must be the ones that the card was calibrated with.
    """

    def __init__(self, assets: Path, check: bool = False) -> None:
        self.card: dict[str, Any] = json.loads((assets / "card.json").read_text("utf-8"))
        for file, digest in self.card.get("sha256", {}).items() if check else ():
            if hashlib.sha256((assets / file).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{file} is not the file its card was made for")
        self.tokenizer = WordPiece.from_file(assets / "tokenizer.json")
        self.encoder, self.rules, self.head, self.evidence = (
            self._session(assets / f"{name}.onnx") for name in ("encoder", "rules", "head", "evidence"))
        self._codes: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._shipped: dict[str, NDArray[np.float32]] = {}
        if (known := assets / "codes.npz").exists():        # shipped policies cost nothing at the first question
            with np.load(known, allow_pickle=False) as saved:
                self._shipped = dict(zip(saved["keys"].tolist(), saved["codes"], strict=True))
        self._lock = threading.Lock()

    @staticmethod
    def _session(path: Path) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = True
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def code(self, text: str) -> NDArray[np.float32]:
        """What the head needs of one rule sentence, [c]; those of shipped policies come with the weights. A sentence
        of more than `RULE_TOKENS` is read in parts: [n,c]."""
        if self._shipped and (ready := self._shipped.get(name(text))) is not None:
            return ready
        with self._lock:
            if (kept := self._codes.get(text)) is not None:
                self._codes.move_to_end(text)
                return kept
        read = self._read(text)
        made = [self._code(read.ids[a:b]) for a, b in parts(text, read.offsets, RULE_TOKENS - 2)]
        code = made[0] if len(made) == 1 else np.stack(made)
        with self._lock:
            self._codes[text] = code
            while len(self._codes) > RULES_KEPT:
                self._codes.popitem(last=False)
        return code

    def _code(self, part: list[int]) -> NDArray[np.float32]:
        ids = [CLS, *part, SEP]
        states = self._states(ids, len(ids))[0]
        pooled = np.concatenate((states.mean(0), states[0]))[None]
        code: NDArray[np.float32] = self.rules.run(None, {"pooled": pooled})[0][0]
        return code

    def score(self, text: str, context: str, way: int, plan: Plan) -> Scores:
        """Scores of one window. A window of more than `PIECE` tokens (dense scripts) is read in pieces."""
        broken = spaced(text)
        read = self._read(broken)
        ids, places = read.ids, read.offsets if broken == text else [(0, len(text))] * len(read.ids)
        about = self._read(context).ids[:CONTEXT_TOKENS] if context else []
        best: NDArray[np.float32] | None = None
        spans: list[tuple[int, int, int]] = []
        count = 0
        for at in range(0, max(len(ids), 1), PIECE * 3 // 4):
            part, where = ids[at:at + PIECE], places[at:at + PIECE]
            own = [CLS, *part, SEP]
            z, seen = self._judge([*own, *about, SEP] if about else own, len(own), way, plan)
            count += len(own) + len(about)
            p = 1 / (1 + np.exp(-(z * plan.scale[way] + plan.shift[way])))
            if len(hit := np.flatnonzero(p >= plan.report)):
                seen["codes"] = plan.codes[plan.index.reshape(-1)[plan.flat[hit]]]
                attention = self.evidence.run(None, seen)[0]
                for row, r in zip(attention, hit, strict=True):
                    spans += [(int(r), a, b) for a, b in _evidence(row, where, text, plan.wide[r])]
            best = p if best is None else np.maximum(best, p)
            if at + PIECE >= len(ids):
                break
        assert best is not None
        return Scores(best, tuple(dict.fromkeys(spans)), count)

    def logits(self, text: str, context: str, way: int, plan: Plan) -> NDArray[np.float32]:
        """Uncalibrated logits [R] of one window's first piece: what calibration is fitted on."""
        own = [CLS, *self._read(spaced(text)).ids[:PIECE], SEP]
        about = self._read(context).ids[:CONTEXT_TOKENS] if context else []
        return self._judge([*own, *about, SEP] if about else own, len(own), way, plan)[0]

    def _read(self, text: str) -> Encoding:
        """Ids and character offsets, no special tokens. A lone surrogate reads as a question mark."""
        return self.tokenizer.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False)

    def _judge(self, ids: list[int], own: int, way: int, plan: Plan
               ) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
        """Logits of the violates slots, and what the head saw of the content."""
        states = self._states(ids, own)
        judged = np.zeros((1, len(ids)), np.float32)
        judged[0, :own] = 1
        seen: dict[str, NDArray[Any]] = {"states": states, "mask": np.ones((1, len(ids)), np.float32), "judged": judged,
                "way": np.array([way], np.int64)}
        z = self.head.run(None, seen | {"codes": plan.codes, "index": plan.index, "role": plan.role})[0]
        return z.reshape(-1)[plan.flat], seen

    def _states(self, ids: list[int], own: int) -> NDArray[np.float32]:
        types = np.zeros((1, len(ids)), np.int64)
        types[0, own:] = 1
        states: NDArray[np.float32] = self.encoder.run(None, {
            "ids": np.array([ids], np.int64), "types": types, "mask": np.ones((1, len(ids)), np.float32)})[0]
        return states


def _evidence(attention: NDArray[np.float32], where: list[tuple[int, int]], text: str, wide: bool
              ) -> list[tuple[int, int]]:
    """Character spans under the strongest attention, widened to words (to lines and sentences when `wide`)."""
    weights = attention[1:1 + len(where)]
    if not len(weights):
        return []
    strong = np.flatnonzero(weights >= STRONG * weights.max())
    runs: list[list[int]] = []
    for t in strong:
        if runs and t - runs[-1][1] <= 2:
            runs[-1][1] = int(t)
        else:
            runs.append([int(t), int(t)])
    runs.sort(key=lambda r: -float(weights[r[0]:r[1] + 1].sum()))
    ends = "\n" if wide else " \t\n\r"
    out = []
    for first, last in runs[:SPANS]:
        a, b = where[first][0], where[last][1]
        while a > 0 and text[a - 1] not in ends:
            a -= 1
        while b < len(text) and text[b] not in ends:
            b += 1
        out.append((a, b))
    return sorted(out)
