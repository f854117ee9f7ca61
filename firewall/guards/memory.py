"""Exact verdict memory: the same question to the same guard is not asked twice. Never by similarity.

A similarity cache answers for texts nobody judged (arXiv 2601.23088 hijacks such caches in 86 % of tries). The key is a
keyed BLAKE2b over the tenant, the policies' digest, the guard's fingerprint and every word of the case with its length
in front, so that no two cases share a spelling; the key of the hash is random per process. The boundary is left out: it
is random per exchange and says nothing about the case.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import replace

from firewall.case import Case
from firewall.verdict import Verdict


class Memory:
    """LRU of verdicts, bounded in entries and in bytes (estimated: strings and spans of each verdict)."""

    def __init__(self, entries: int = 4096, size: int = 8 << 20) -> None:
        self.entries, self.size, self.held = entries, size, 0
        self.hits = self.misses = 0
        self._key = secrets.token_bytes(32)
        self._kept: OrderedDict[bytes, tuple[Verdict, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def key(self, case: Case, fingerprint: str) -> bytes:
        h = hashlib.blake2b(key=self._key, digest_size=32)
        parts = [case.tenant, case.policies.digest, fingerprint, case.direction, "whole" if case.whole else "part",
                 str(len(case.messages))]
        for m in case.messages:
            parts += m
        for said in case.answer:
            parts += said
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            h.update(len(data).to_bytes(8, "little"))
            h.update(data)
        return h.digest()

    def get(self, key: bytes) -> Verdict | None:
        """The verdict as remembered: it took no time and no tokens, and its path says so."""
        if (kept := self._kept.get(key)) is None:
            self.misses += 1
            return None
        self._kept.move_to_end(key)
        self.hits += 1
        return kept[0]

    def put(self, key: bytes, verdict: Verdict) -> None:
        cost = _size(verdict)
        if not self.entries or cost > self.size:
            return
        if old := self._kept.pop(key, None):
            self.held -= old[1]
        self._kept[key] = replace(verdict, ms=0.0, tokens=0, path=(*verdict.path, "memory")), cost
        self.held += cost
        while len(self._kept) > self.entries or self.held > self.size:
            _, (_, freed) = self._kept.popitem(last=False)
            self.held -= freed


def _size(v: Verdict) -> int:
    words = len(v.reason) * 4 + sum(len(s) for s in v.path) + sum(len(c) + 32 for c, _ in v.unsure)
    return 512 + words + sum(128 + len(f.rule) + 96 * len(f.spans) for f in v.findings)
