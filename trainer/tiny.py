"""Qwen2-shaped models of any size, with random weights: for tests, for guards of our own, for scale estimates."""

from __future__ import annotations

from typing import Any, NamedTuple


class Shape(NamedTuple):
    """Numbers of one Qwen2 model. `vocab` 0 takes the tokenizer's."""

    hidden: int
    layers: int
    heads: int
    kv: int
    inner: int
    vocab: int = 0
    tied: bool = True


SHAPES: dict[str, Shape] = {
    "nano": Shape(64, 2, 4, 2, 176),
    "mini": Shape(128, 3, 4, 2, 352),
    "tiny": Shape(256, 4, 4, 2, 688),               # 4.0M with 4,096 tokens
    "small": Shape(320, 5, 5, 5, 864),              # about 8M
    "30m": Shape(512, 8, 8, 4, 1408),
    "60m": Shape(640, 10, 10, 5, 1728),
    "0.5b": Shape(896, 24, 14, 2, 4864, 151936),    # Qwen2.5's own
    "1.5b": Shape(1536, 28, 12, 2, 8960, 151936),
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, False),
}


def config(shape: str, tokenizer: Any = None, positions: int = 4096) -> Any:
    """The `Qwen2Config` of a shape. Raises KeyError with the known names."""
    from transformers import Qwen2Config

    if shape not in SHAPES:
        raise KeyError(f"no shape {shape!r}; there are {', '.join(SHAPES)}")
    s = SHAPES[shape]
    ends = {} if tokenizer is None else {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
                                         "pad_token_id": tokenizer.pad_token_id}
    return Qwen2Config(vocab_size=s.vocab or len(tokenizer), hidden_size=s.hidden, num_hidden_layers=s.layers,
                       num_attention_heads=s.heads, num_key_value_heads=s.kv, intermediate_size=s.inner,
                       tie_word_embeddings=s.tied, max_position_embeddings=positions, rope_theta=1e6,
                       initializer_range=0.5 * s.hidden ** -0.5, **ends)


def model(shape: str, tokenizer: Any, seed: int = 0, positions: int = 4096) -> Any:
    """A new model, float32, random weights from `seed`."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config(shape, tokenizer, positions), dtype=torch.float32)


def parameters(s: Shape, vocab: int = 0) -> int:
    """Weights of a shape."""
    v, head = s.vocab or vocab, s.hidden // s.heads
    attention = s.hidden * head * (2 * s.heads + 2 * s.kv) + head * (s.heads + 2 * s.kv)
    layer = attention + 3 * s.hidden * s.inner + 2 * s.hidden
    return s.layers * layer + s.hidden + v * s.hidden * (1 if s.tied else 2)
