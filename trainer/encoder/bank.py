"""Texts -> token ids -> states after the frozen layers, computed once; and rule vectors, kept and refreshed.

`Texts` keeps the frozen layers' states (float16, about 0.8 kB a token) of every content window and every slot, lazily.
`Rules` keeps one pooled vector for every slot of every policy. A training step re-encodes a few of the slots it uses
with gradient and takes the others from the bank, where they are at most `refresh` steps old: the encoder moves slowly.
"""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from trainer.encoder.data import Book, Item
from trainer.encoder.model import Encoder, GuardNet, pool

MAX_TOKENS, RULE_TOKENS, CONTEXT_TOKENS = 160, 64, 56
CLS, SEP = 101, 102


class Texts:
    """Content windows and rule sentences, as frozen-layer states."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer) -> None:
        self.encoder, self.tokenizer = encoder, tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.ids: dict[tuple[str, str], tuple[list[int], int]] = {}
        self.states: dict[tuple[str, str], Tensor] = {}

    def tokens(self, pair: tuple[str, str], limit: int = MAX_TOKENS) -> tuple[list[int], int]:
        """(ids, number of ids on trial): `[CLS] text [SEP]`, then the context and `[SEP]` where there is one."""
        got = self.ids.get(pair)
        if got is None:
            own = self.tokenizer.encode(pair[0], add_special_tokens=False).ids[:limit - 2]
            ids = [CLS, *own, SEP]
            if pair[1]:
                ids += [*self.tokenizer.encode(pair[1], add_special_tokens=False).ids[:CONTEXT_TOKENS], SEP]
            got = self.ids[pair] = (ids, len(own) + 2)
        return got

    def batch(self, pairs: list[tuple[str, str]], limit: int = MAX_TOKENS) -> tuple[Tensor, Tensor, Tensor]:
        """(states after the frozen layers [B,T,h] float32, mask [B,T], judged [B,T])."""
        todo = [p for p in dict.fromkeys(pairs) if p not in self.states]
        todo.sort(key=lambda p: len(self.tokens(p, limit)[0]))
        for at in range(0, len(todo), 32):
            self._fill(todo[at:at + 32], limit)
        size = max(len(self.tokens(p, limit)[0]) for p in pairs)
        first = self.states[pairs[0]]
        states = torch.zeros(len(pairs), size, first.shape[-1])
        mask, judged = torch.zeros(len(pairs), size), torch.zeros(len(pairs), size)
        for i, pair in enumerate(pairs):
            ids, own = self.tokens(pair, limit)
            states[i, :len(ids)] = self.states[pair].float()
            mask[i, :len(ids)], judged[i, :own] = 1, 1
        return states, mask, judged

    def _fill(self, pairs: list[tuple[str, str]], limit: int) -> None:
        rows = [self.tokens(p, limit) for p in pairs]
        size = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(len(rows), size, dtype=torch.long)
        types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for i, (tokens, own) in enumerate(rows):
            ids[i, :len(tokens)], mask[i, :len(tokens)] = torch.tensor(tokens), 1
            types[i, own:len(tokens)] = 1
        states = self.encoder.lower(ids, types, mask).half()
        for i, (pair, (tokens, _)) in enumerate(zip(pairs, rows, strict=True)):
            self.states[pair] = states[i, :len(tokens)].clone()


class Rules:
    """Pooled vectors [2h] of all slots, by row number."""

    def __init__(self, net: GuardNet, texts: Texts, book: Book) -> None:
        self.net, self.texts, self.book = net, texts, book
        self.row: dict[str, int] = {}
        self.pairs: list[tuple[str, str]] = []
        self.policies: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.table = torch.zeros(0, 2 * net.shape.hidden)

    def policy(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(rows, roles) of a policy's slots."""
        got = self.policies.get(key)
        if got is None:
            slots = self.book.slots[key]
            for s in slots:
                if s.text not in self.row:
                    self.row[s.text] = len(self.pairs)
                    self.pairs.append((s.text, ""))
            got = (np.array([self.row[s.text] for s in slots]), np.array([s.role for s in slots]))
            self.policies[key] = got
        return got

    def use(self, items: list[Item]) -> None:
        """Registers every policy that the items may ask about."""
        for item in items:
            for key in (*(a.policy for a in item.asks), *item.clean, *item.union):
                self.policy(key)

    @torch.no_grad()
    def refresh(self) -> None:
        """Encodes every registered slot again."""
        out = torch.zeros(len(self.pairs), 2 * self.net.shape.hidden)
        order = sorted(range(len(self.pairs)), key=lambda i: len(self.texts.tokens(self.pairs[i], RULE_TOKENS)[0]))
        for at in range(0, len(order), 64):
            part = order[at:at + 64]
            out[part] = self.encode(part)
        self.table = out

    def encode(self, rows: list[int]) -> Tensor:
        states, mask, _ = self.texts.batch([self.pairs[i] for i in rows], RULE_TOKENS)
        return pool(self.net.encoder.upper(states, mask), mask)

    def gather(self, rows: np.ndarray, fresh: list[int]) -> Tensor:
        """Vectors [N,2h] of distinct rows; those in `fresh` are encoded now, with gradient, and kept."""
        base = self.table[torch.from_numpy(rows)].clone()
        if not fresh:
            return base
        new = self.encode(fresh)
        with torch.no_grad():
            self.table[fresh] = new.detach()
        where = torch.from_numpy(np.searchsorted(rows, np.array(fresh)))
        return base.index_copy(0, where, new)
