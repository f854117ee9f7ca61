"""`TransformersGuard`: the reasoning guard in this process, on CPU or GPU, for machines without vLLM and for tests.

One thread does all the work, so that questions never fight for cores and the event loop never waits. Prefixes are
shared: the key-value cache of recent prompts is kept, a new prompt continues from the longest beginning it has in
common with one of them (never across tenants), and only the rest is computed. A prompt that continues most of a kept
one takes its cache over (a growing answer); one that shares only the policies copies that part.

Torch and transformers are imported here and nowhere else in `firewall.guards`, when the guard starts.
"""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from firewall.errors import GuardDown, Mistakes
from firewall.guards.card import Card
from firewall.guards.engine import Ask, Reply
from firewall.guards.reasoner import Reasoner, Settings
from firewall.guards.tokens import Tokens, size
from firewall.verdict import Depth

KEPT = 8                # key-value caches
TAKE = 0.8              # a prompt that continues this share of a kept one takes its cache over


class Prefix(NamedTuple):
    """Computed tokens and their key-value cache."""

    salt: str
    ids: list[int]
    cache: Any


class LocalEngine:
    """Args: `model` folder; `device` "cpu", "cuda" or "" (what there is); `dtype` a torch name; `threads` of torch."""

    def __init__(self, model: Path, tokens: Tokens, *, device: str = "", dtype: str = "", threads: int = 1) -> None:
        self.folder, self.tokens, self.device, self.dtype, self.threads = model, tokens, device, dtype, threads
        self.context = size(model)
        self._pool: ThreadPoolExecutor | None = None
        self._model: Any = None
        self._ends: frozenset[int] = frozenset()
        self._kept: list[Prefix] = []

    async def start(self) -> None:
        """Loads the model. Raises `Mistakes`."""
        if self._model is None:
            self._pool = ThreadPoolExecutor(1, "guard")
            await asyncio.get_running_loop().run_in_executor(self._pool, self._load)

    async def close(self) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool, self._model, self._kept = None, None, []

    def ready(self) -> str:
        return "" if self._model is not None else "the model is not loaded"

    async def complete(self, ask: Ask) -> Reply:
        if self._pool is None or self._model is None:
            raise GuardDown("guard_unavailable", "the model is not loaded")
        gone = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, ask, gone)
        except asyncio.CancelledError:
            gone.set()                  # the thread sees it before its next token
            raise
        except (RuntimeError, MemoryError) as e:
            self._kept = []
            raise GuardDown("guard_error", f"the model failed: {type(e).__name__}") from None

    def _load(self) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        try:
            import torch
            from transformers import AutoModelForCausalLM
        except ImportError as e:
            raise Mistakes([f"guard.kind: transformers needs {e.name}: pip install 'llm-firewall[transformers]'"]
                           ) from None
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device == "cuda" and not torch.cuda.is_available():
            raise Mistakes(["guard.kind: transformers: there is no CUDA device here"])
        torch.set_num_threads(self.threads)
        kind = getattr(torch, self.dtype or ("bfloat16" if device == "cuda" else "float32"))
        try:
            model = AutoModelForCausalLM.from_pretrained(str(self.folder), dtype=kind, local_files_only=True)
            self._model = model.to(device).eval()
        except (OSError, ValueError, RuntimeError) as e:
            words = str(e).splitlines()[0][:200]
            raise Mistakes([f"guard.model: {self.folder} cannot be loaded ({type(e).__name__}: {words})"]) from None
        ends = self._model.generation_config.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or ()) | {
            t for t in (self._model.config.eos_token_id,) if isinstance(t, int)}

    def _work(self, ask: Ask, gone: threading.Event) -> Reply:
        """Runs in the one thread."""
        import torch
        ids = ask.prompt if isinstance(ask.prompt, list) else self.tokens.evidence(ask.prompt)
        if self.context and len(ids) + ask.limit > self.context:
            raise GuardDown("guard_too_long", f"{len(ids)} + {ask.limit} tokens, the model reads {self.context}")
        if gone.is_set():
            raise GuardDown("guard_unavailable", "nobody waits any more")
        with torch.inference_mode():
            cached, cache = self._reuse(ids, ask.salt)
            logits = self._step(ids[cached:], cache)
            first = self._first(logits, ask.watch)
            made: list[int] = []
            text, done = "", False
            while not done and len(made) < ask.limit and not gone.is_set():
                token = self._pick(logits, text, ask)
                done = token in self._ends or token < 0
                if not done:
                    made.append(token)
                    text = self.tokens.decode(made)
                    done = any(s in text for s in ask.stop)
                if not done and len(made) < ask.limit:
                    logits = self._step([token], cache)
        computed = [*ids, *made][:cache.get_seq_length()]
        self._kept = [*self._kept, Prefix(ask.salt, computed, cache)][-KEPT:]
        for mark in ask.stop:
            text = text.partition(mark)[0]
        return Reply(text, first, len(ids), cached, len(made), not done)

    def _reuse(self, ids: list[int], salt: str) -> tuple[int, Any]:
        """(tokens already computed, a cache of exactly those). At least one token is always left to compute."""
        from transformers import DynamicCache
        best, shared = None, 0
        for prefix in self._kept:
            if prefix.salt == salt and (n := _common(prefix.ids, ids)) > shared:
                best, shared = prefix, n
        shared = min(shared, len(ids) - 1)
        if best is None or shared < 1:
            return 0, DynamicCache()
        if shared >= TAKE * len(best.ids):
            self._kept = [p for p in self._kept if p is not best]
            cache = best.cache
        else:
            cache = copy.deepcopy(best.cache)
        if extra := cache.get_seq_length() - shared:
            cache.crop(-extra)          # negative: how many to drop (a positive length raises in transformers 5)
        return shared, cache

    def _step(self, ids: Sequence[int], cache: Any) -> Any:
        import torch
        rows = torch.tensor([list(ids)], device=self._model.device)
        out = self._model(input_ids=rows, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[0, -1].float()

    def _first(self, logits: Any, watch: Sequence[int]) -> dict[int | str, float]:
        import torch
        likely = torch.log_softmax(logits, -1)
        wanted = list(watch) or torch.topk(likely, min(20, likely.numel())).indices.tolist()
        return {int(t): float(likely[t]) for t in wanted}

    def _pick(self, logits: Any, text: str, ask: Ask) -> int:
        """The likeliest token, or the likeliest that the pattern allows; -1 ends the answer."""
        if not ask.pattern:
            return int(logits.argmax())
        import regex  # comes with transformers; knows partial matches
        pattern = regex.compile(ask.pattern)
        complete = pattern.fullmatch(text) is not None
        for token in logits.argsort(descending=True).tolist():
            if token in self._ends:
                if complete:
                    return -1
                continue
            more = text + self.tokens.decode([token])
            if more != text and pattern.fullmatch(more, partial=True):
                return int(token)
        return -1


class TransformersGuard(Reasoner):
    """Args as `VllmGuard`; `device` and `dtype` as torch names them ("" chooses)."""

    def __init__(self, model: Path, depth: Depth | str = "snap", *, accept_other_fingerprint: bool = False,
                 think: int = 192, device: str = "", dtype: str = "", threads: int = 1) -> None:
        card, tokens = Card.of(model, accept_other_fingerprint), Tokens.of(model)
        engine = LocalEngine(model, tokens, device=device, dtype=dtype, threads=threads)
        super().__init__("transformers", engine, tokens,
                         Settings(depth, think, True, card.scale, card.name))       # type: ignore[arg-type]


def _common(one: Sequence[int], two: Sequence[int]) -> int:
    """Length of the common beginning."""
    n = min(len(one), len(two))
    if one[:n] == two[:n]:
        return n
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[:middle] == two[:middle] else (low, middle)
    return low
