"""Segments -> token ids, and a tokenizer of our own where there is no model to bring one.

Trusted segments may hold special tokens. Untrusted ones (evidence) never do: every added token that is written in them
is broken after its first character before it is encoded, so that no text can speak as the system or close a thought.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from firewall.case import Case
from firewall.errors import Mistakes
from firewall.template import TASK, Segment, render
from firewall.verdict import CLOSE, OPEN, Depth

END = "<|im_end|>"
PAD = "<|endoftext|>"


def encode(tokenizer: Any, segments: Iterable[Segment]) -> list[int]:
    """Token ids of a rendered case."""
    out: list[int] = []
    for text, trusted in segments:
        for part in [text] if trusted else _broken(tokenizer, text):
            out += tokenizer.encode(part, add_special_tokens=False)
    return out


def prompt(tokenizer: Any, case: Case, depth: Depth = "reason") -> list[int]:
    return encode(tokenizer, render(case, depth))


def answer_text(tokenizer: Any, ids: Iterable[int]) -> str:
    """A sampled answer as `firewall.verdict.read` wants it: with the opened thought, without the end of the turn."""
    text = tokenizer.decode(list(ids), skip_special_tokens=False)
    for token in (END, PAD, tokenizer.pad_token, tokenizer.eos_token):
        if token:
            text = text.removesuffix(token)
    return text if text.lstrip().startswith(OPEN) else OPEN + text


def check(tokenizer: Any, name: str = "tokenizer") -> None:
    """Raises `Mistakes` when the tokenizer cannot carry the template: no turn tokens, no padding, lossy text."""
    wrong = [f"{name}: {token!r} is not one token; the template needs it" for token in ("<|im_start|>", END)
             if len(tokenizer.encode(token, add_special_tokens=False)) != 1]
    if tokenizer.pad_token_id is None:
        wrong.append(f"{name}: no padding token")
    probe = f"{OPEN}\nwéird ☂ text {CLOSE}"
    if tokenizer.decode(tokenizer.encode(probe, add_special_tokens=False)) != probe:
        wrong.append(f"{name}: does not give back the tags and text it encodes ({OPEN}, {CLOSE})")
    if wrong:
        raise Mistakes(wrong)


def stops(tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer."""
    ids = {tokenizer.convert_tokens_to_ids(END), tokenizer.eos_token_id}
    return tuple(sorted(i for i in ids if i is not None))


def make(texts: Iterator[str] | Iterable[str], size: int, folder: Path) -> Any:
    """Trains a byte-level BPE with the template's tokens and saves it. Deterministic in `texts` and `size`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    # GPT-2's split: punctuation never joins letters, so the word after `\boxed{` is always its own token
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = [PAD, "<|im_start|>", END]
    bpe.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size - 3, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    bpe.add_tokens([AddedToken(t, normalized=False, special=False) for t in (OPEN, CLOSE)])
    # the fixed instructions are one token: a small guard spends its context on policies and evidence
    bpe.add_special_tokens([AddedToken(TASK, normalized=False, special=True)])
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PAD, eos_token=END,
                                   clean_up_tokenization_spaces=False)
    folder.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(folder)
    return made


def load(folder: str | Path) -> Any:
    """A saved tokenizer, checked. Raises `Mistakes`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    check(tokenizer, str(folder))
    return tokenizer


def _broken(tokenizer: Any, text: str) -> list[str]:
    """`text` cut after the first character of every added token spelled in it, longest tokens first."""
    parts = [text]
    for name in sorted((str(t) for t in tokenizer.added_tokens_decoder.values()), key=len, reverse=True):
        cut: list[str] = []
        for part in parts:
            first, *more = part.split(name)
            cut.append(first)
            for piece in more:
                cut[-1] += name[0]
                cut.append(name[1:] + piece)
        parts = cut
    return [p for p in parts if p]
