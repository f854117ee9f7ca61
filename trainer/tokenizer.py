"""Segments -> token ids, and a tokenizer of our own where there is no model to bring one.

Trusted segments may hold special tokens. Untrusted ones (evidence) go through a second copy of the tokenizer that has
no added tokens at all, exactly as they are served (firewall/guards/tokens.py): no text can speak as the system or close
a thought. Our own tokenizer holds the template's fixed instructions as one token. Evidence cannot be that token either:
as ids because the copy does not have it, and as text (servers that take no ids) because evidence is JSON on one line
and the instructions hold line ends.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from firewall.case import Case
from firewall.errors import Mistakes
from firewall.template import TASK, Segment, render
from firewall.verdict import CLOSE, OPEN, Depth

END = "<|im_end|>"
PAD = "<|endoftext|>"


def encode(tokenizer: Any, segments: Iterable[Segment]) -> list[int]:
    """Token ids of a rendered case. `tokenizer` is a fast tokenizer of transformers."""
    both = _copies(tokenizer)
    out: list[int] = []
    for text, trusted in segments:
        out += both[not trusted].encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids
    return out


def encode_all(tokenizer: Any, rendered: Iterable[Iterable[Segment]]) -> list[list[int]]:
    """`encode` of many cases at once, on all cores."""
    rows = [list(segments) for segments in rendered]
    texts: tuple[list[str], list[str]] = [], []
    for text, trusted in (s for row in rows for s in row):
        texts[not trusted].append(text.encode("utf-8", "replace").decode())
    made = [iter(copy.encode_batch_fast(t, add_special_tokens=False))
            for copy, t in zip(_copies(tokenizer), texts, strict=True)]
    return [[i for s in row for i in next(made[not s.trusted]).ids] for row in rows]


@lru_cache(maxsize=8)
def _copies(tokenizer: Any) -> tuple[Any, Any]:
    """The tokenizers library's own (trusted, untrusted) copies: no wrapper between, no truncation, no padding."""
    from tokenizers import Tokenizer

    text = tokenizer.backend_tokenizer.to_str()
    plain = json.loads(text)
    plain["added_tokens"], plain["post_processor"] = [], None
    made = Tokenizer.from_str(text), Tokenizer.from_str(json.dumps(plain))
    for t in made:
        t.no_truncation()
        t.no_padding()
    return made


def prompt(tokenizer: Any, case: Case, depth: Depth = "reason") -> list[int]:
    return encode(tokenizer, render(case, depth))


def answer_text(tokenizer: Any, ids: Iterable[int]) -> str:
    """A sampled answer as `firewall.verdict.read` wants it: with the opened thought, without the end of the turn."""
    text = tokenizer.decode(list(ids), skip_special_tokens=False)
    for token in (END, PAD, tokenizer.pad_token, tokenizer.eos_token):
        if token:
            text = text.removesuffix(token)
    return text if text.lstrip().startswith(OPEN) else OPEN + text


def thought(tokenizer: Any, ids: Sequence[int]) -> int:
    """How many of an answer's tokens belong to its thought, up to the one that closes it; 0 where it is never closed.

    Read in the text: a tokenizer that joins punctuation and line ends (Qwen2's) never makes the ids of a lone `</think>`.
    """
    end = bisect_left(range(len(ids) + 1), True, key=lambda n: CLOSE in tokenizer.decode(list(ids[:n])))
    return end if end <= len(ids) else 0


def check(tokenizer: Any, name: str = "tokenizer") -> None:
    """Raises `Mistakes` when the tokenizer cannot carry the template: no turn tokens, no padding, lossy text."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise Mistakes([f"{name}: not a fast tokenizer (no tokenizer.json); evidence cannot be kept apart"])
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
    """Trains a byte-level BPE with the template's tokens and saves it. Deterministic in `texts` and `size`, which
    `size_of` reads back from the folder."""
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
                                   clean_up_tokenization_spaces=False, made_for=size)
    folder.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(folder)
    return made


def size_of(folder: Path) -> int:
    """The size that `make` was asked for; 0 where the folder does not say."""
    config = folder / "tokenizer_config.json"
    return int(json.loads(config.read_bytes()).get("made_for", 0)) if config.is_file() else 0


def fetched(name: str, load: Callable[[], Any]) -> Any:
    """What `load` makes of a folder or of a name on the hub. Raises `Mistakes` where it is neither."""
    if name.startswith(("/", "./", "../", "~")) and not Path(name).is_dir():
        raise Mistakes([f"{name}: no such folder"])
    try:
        return load()
    except (OSError, ValueError) as e:
        why = (str(e).strip().splitlines() or [""])[0][:200]
        raise Mistakes([f"{name}: neither a folder with a model nor a name on the hub that can be reached "
                        f"({type(e).__name__}: {why})"]) from e


def load(folder: str | Path) -> Any:
    """A saved tokenizer, checked. Raises `Mistakes`."""
    from transformers import AutoTokenizer

    tokenizer = fetched(str(folder), lambda: AutoTokenizer.from_pretrained(str(folder)))
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    check(tokenizer, str(folder))
    return tokenizer
