"""A tiny checkpoint of our own making: Qwen2 shape, random weights, its own tokenizer. Made in seconds, kept nowhere.

`python -m tests.guards.tiny FOLDER [shape]` writes one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from firewall.template import FINGERPRINT, TASK

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# hidden, layers, heads, kv heads, inner; vLLM's CPU attention wants heads of 32, 64 or more
SHAPES = {"nano": (128, 2, 2, 1, 352), "tiny": (256, 4, 4, 2, 688), "q30m": (512, 8, 8, 4, 1408)}


def tokenizer(folder: Path, size: int = 1024) -> Path:
    """Writes tokenizer.json (byte-level BPE in Qwen's form) and its config. Deterministic."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    words = [TASK, "safe unsafe weapons/1 weapons/2 fraud/1 boxed evidence role user text answer " * 20]
    bpe.train_from_iterator([*words, *TASK.split()] * 4, trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    bpe.add_tokens([AddedToken(t, normalized=False, special=False) for t in ("<think>", "</think>")])
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False}))
    return folder


def checkpoint(folder: Path, shape: str = "nano", context: int = 4096, seed: int = 0, fingerprint: str = FINGERPRINT,
               ) -> Path:
    """Writes a whole checkpoint with `firewall.json`. Needs torch and transformers."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config
    tokenizer(folder)
    vocab = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) + 2
    hidden, layers, heads, kv, inner = SHAPES[shape]
    config = Qwen2Config(vocab_size=-(-vocab // 64) * 64, hidden_size=hidden, num_hidden_layers=layers,
                         num_attention_heads=heads, num_key_value_heads=kv, intermediate_size=inner,
                         max_position_embeddings=context, rope_theta=1e6, tie_word_embeddings=False,
                         bos_token_id=None, eos_token_id=2, pad_token_id=0, initializer_range=0.5 * hidden ** -0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    (folder / "firewall.json").write_text(json.dumps({"fingerprint": fingerprint, "scale": {"snap": [1.0, 0.0]}}))
    return folder


if __name__ == "__main__":
    print(checkpoint(Path(sys.argv[1]), *sys.argv[2:]))
