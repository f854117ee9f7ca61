"""Segments -> token ids, with the two kinds of text kept apart.

Trusted segments (ours) are tokenised with the model's special tokens. Untrusted ones (evidence, and what a model said)
go through a second copy of the tokenizer that has no added tokens at all, so that `<|im_end|>` in a user's text is
letters and never a turn's end, whatever the vocabulary calls special.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from firewall.errors import Mistakes
from firewall.template import END, Segment


class Tokens:
    """A model's tokenizer. `text` is the content of its tokenizer.json."""

    def __init__(self, text: str) -> None:
        try:
            from tokenizers import Tokenizer  # here, since the embedded guard is installed without it
        except ImportError:
            raise Mistakes(["guard: the reasoning guards send token ids and need the tokenizers package: "
                            "pip install '.[remote]'"]) from None
        try:
            self._trusted = Tokenizer.from_str(text)
            plain = json.loads(text)
            plain["added_tokens"], plain["post_processor"] = [], None
            self._untrusted = Tokenizer.from_str(json.dumps(plain))
        except Exception as e:          # the library raises bare Exceptions
            raise Mistakes([f"guard.model: tokenizer.json cannot be read ({type(e).__name__})"]) from None
        for t in (self._trusted, self._untrusted):
            t.no_truncation()
            t.no_padding()
        self.ours = lru_cache(maxsize=64)(self._ours)

    @classmethod
    def of(cls, folder: Path) -> Tokens:
        """Raises `Mistakes` when the folder has no tokenizer.json."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise Mistakes([f"guard.model: {folder} has no tokenizer.json; give the folder of a Hugging Face checkpoint"
                            " with a fast tokenizer"])
        return cls(path.read_text("utf-8"))

    def encode(self, segments: Iterable[Segment]) -> list[int]:
        out: list[int] = []
        for text, trusted in segments:
            if trusted:
                # a special token parts the text, so the long head (the policies) is remembered by itself
                head, mark, tail = text.partition(END.rstrip())
                out += self.ours(head + mark)
                if tail:
                    out += self.ours(tail) if len(tail) < 200 else self._ours(tail)
            else:
                out += self.evidence(text)
        return out

    def evidence(self, text: str) -> list[int]:
        return list(self._untrusted.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids)

    def first(self, word: str) -> int:
        """The first token of a word that stands right after `\\boxed{`."""
        return self.evidence(word)[0]

    def decode(self, ids: list[int]) -> str:
        return str(self._trusted.decode(ids, skip_special_tokens=True))

    def _ours(self, text: str) -> tuple[int, ...]:
        return tuple(self._trusted.encode(text, add_special_tokens=False).ids)


def size(model: Path) -> int:
    """`max_position_embeddings` of the model's config.json, or 0."""
    try:
        return int(json.loads((model / "config.json").read_text("utf-8")).get("max_position_embeddings", 0))
    except (OSError, ValueError):
        return 0
