"""`trainer export`: a checkpoint -> a folder the firewall serves: weights, tokenizer, firewall.json, model card.

`firewall.json` carries the fingerprint of the template and the reader the weights were trained with. A guard whose
fingerprint is not the running firewall's is refused at start-up, because it would be asked in words it never saw.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from firewall.template import FINGERPRINT
from trainer import sync
from trainer.recipe import Recipe


def folder(model: Any, tokenizer: Any, to: Path, recipe: Recipe, metrics: dict[str, Any] | None = None,
           data: dict[str, Any] | None = None) -> Path:
    """Writes a Hugging Face folder of the plain model (LoRA merged), with its papers. Returns `to`."""
    to.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), sync.merged(model) as whole:
        state = {k: v.detach().cpu().contiguous() for k, v in sync.weights(whole)}
        plain = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
        if plain.config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        _save(plain.config, state, to)
        plain.generation_config.save_pretrained(to)
    tokenizer.save_pretrained(to)
    weights = to / "model.safetensors"
    papers = {
        "fingerprint": FINGERPRINT, "recipe": dataclasses.asdict(recipe), "recipe_digest": recipe.digest,
        "seed": recipe.seed, "dtype": str(next(iter(state.values())).dtype).removeprefix("torch."),
        "parameters": sum(v.numel() for v in state.values()), "bytes": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "metrics": metrics or {}, "data": data or {}}
    (to / "firewall.json").write_text(json.dumps(papers, indent=1, default=str) + "\n", "utf-8")
    (to / "README.md").write_text(card(papers, recipe.name), "utf-8")
    return to


def _save(config: Any, state: dict[str, torch.Tensor], to: Path) -> None:
    from safetensors.torch import save_file

    config.save_pretrained(to)
    part = to / "model.safetensors.part"
    save_file(state, str(part), metadata={"format": "pt"})
    part.replace(to / "model.safetensors")


def check(source: Path) -> dict[str, Any]:
    """The papers of an exported guard. Raises ValueError when they are missing or the fingerprint is another's."""
    path = source / "firewall.json"
    if not path.exists():
        raise ValueError(f"{path} is missing: this folder was not written by `trainer export`")
    papers: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if papers.get("fingerprint") != FINGERPRINT:
        raise ValueError(f"{source} was trained for template {papers.get('fingerprint')}, this is {FINGERPRINT}")
    return papers


def card(papers: dict[str, Any], name: str) -> str:
    """The model card: what it is, from what, how good, how large."""
    sources = (papers["data"].get("train") or {}).get("sources", {})
    rows = "\n".join(f"| {n} | {s['rows']} | {s['unsafe']} | {s['licence']} |" for n, s in sorted(sources.items()))
    size = f"{papers['parameters']:,}; {papers['dtype']}; {papers['bytes'] / 1e6:.1f} MB"
    measured = {k: v for k, v in papers["metrics"].items() if not str(k).startswith(("source:", "kind:"))}
    return f"""# {name}

A policy-reading content guard: it thinks inside `<think>`, then answers with one box that cites the violated rules.
Made by `python -m trainer` (recipe {papers['recipe_digest']}, seed {papers['seed']}) for the prompt template
{papers['fingerprint']}; use it with that template only.

- Parameters: {size}; sha256 `{papers['sha256'][:16]}`
- Intended use: judging prompts and answers against the policies given to it. Not a judge of people.
- Limits: what the metrics below show; figures on one language and public data do not promise yours.

## Data
| source | rows | unsafe | licence |
|---|---|---|---|
{rows}

## Metrics
```json
{json.dumps(measured, indent=1, default=str)}
```
"""
