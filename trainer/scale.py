"""What a run needs, on paper: memory a GPU and seconds a step. Used by `--dry-run` and docs/training.md.

Model states come from DeepSpeed's own estimators where it is installed (ZeRO, arXiv 1910.02054: 2 + 2 + 12 bytes a
weight for bf16 AdamW, divided by what the stage partitions), the rest from formulas:

    activations   layers * tokens * hidden * 34 bytes, or hidden * 2 a layer with recomputation   (Korthikanti 2022)
    logits        tokens * vocab * 10 bytes of the micro-batch's answers (bf16 logits, float32 copy and gradient)
    training      6 * weights FLOP a token, 8 with recomputation
    prefill       2 * weights FLOP a token;  decoding: weights + cache read once a token over the memory bus
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from trainer.recipe import Recipe
from trainer.tiny import SHAPES, Shape, parameters

GB = 1e9
PROMPT, ANSWER = 700, 130       # tokens of a row on average, where no data are at hand


@dataclass(frozen=True, slots=True)
class Machine:
    """One kind of accelerator: memory in bytes, dense bf16 FLOP/s, memory bytes/s, and the share of FLOP/s reached."""

    name: str = "A100-80GB"
    memory: float = 80 * GB
    flops: float = 312e12
    bus: float = 2.0e12
    mfu: float = 0.40
    link: float = 100e9


MACHINES = {"a100": Machine(), "h100": Machine("H100-80GB", 80 * GB, 989e12, 3.35e12, 0.38, 200e9)}


@dataclass(frozen=True, slots=True)
class Plan:
    """Memory in bytes a GPU, time in seconds a step. `source` says where the model states' figure comes from."""

    weights: int
    states: float
    host: float
    activations: float
    logits: float
    engine: float
    gathered: float      # the whole weights, before a rollout: not at the same time as activations and logits
    rollout: float
    training: float
    sync: float
    tokens: int
    source: str

    @property
    def memory(self) -> float:
        return self.states + max(self.activations + self.logits, self.gathered) + self.engine

    @property
    def step(self) -> float:
        return self.rollout + self.training + self.sync


def states(weights: int, largest: int, gpus: int, zero: int, offload: bool, trained: int | None = None) -> tuple[
        float, float, str]:
    """(bytes a GPU, bytes of CPU memory, source) of weights, gradients and optimiser."""
    if trained is not None and trained < weights:           # LoRA: frozen weights, states of the adapters only
        held = 2 * weights / (gpus if zero == 3 else 1)
        return held + 16 * trained / (gpus if zero else 1), 0.0, "formula"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as third
            from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as second
        if zero == 3:       # no zero.Init: each process builds the whole model before it is partitioned
            cpu, gpu, _ = third(weights, largest, gpus, 1, cpu_offload=offload, cpu_offload_params=False,
                                zero_init=False)
            return gpu, cpu, "deepspeed"
        if zero == 2:
            cpu, gpu = second(weights, gpus, 1, cpu_offload=offload)
            return gpu, cpu, "deepspeed"
    except ImportError:
        pass
    per = {0: 16.0, 1: 4 + 12 / gpus, 2: 2 + 14 / gpus, 3: 16 / gpus}[zero]
    return weights * per, 0.0, "formula"


def plan(recipe: Recipe, gpus: int, machine: Machine = MACHINES["a100"], prompt: int = PROMPT,
         answer: int = ANSWER) -> Plan:
    """One GRPO step of a recipe on `gpus` of a machine, for prompts and answers of that many tokens on average."""
    s = shape(recipe)
    n = parameters(s, recipe.model.vocab)
    layer = (parameters(s, recipe.model.vocab) - (1 if s.tied else 2) * (s.vocab or recipe.model.vocab) * s.hidden
             ) // s.layers
    largest = max(layer, (s.vocab or recipe.model.vocab) * s.hidden)
    o, m = recipe.grpo, recipe.model
    trained = None
    if m.lora_rank:
        trained = s.layers * m.lora_rank * (4 * 2 * s.hidden + 3 * (s.hidden + s.inner))
    gpu, cpu, source = states(n, largest, gpus, recipe.engine.zero, recipe.engine.offload, trained)
    if o.kl:        # the frozen first model
        gpu += 2 * n / (gpus if recipe.engine.zero == 3 else 1)
    rows = o.prompts * o.group
    held = min(o.micro, -(-o.prompts // gpus)) * o.group * (prompt + answer)
    activations = s.layers * held * s.hidden * (2 if m.checkpointing else 34) + (
        held * s.hidden * 34 if m.checkpointing else 0)
    logits = min(o.micro, -(-o.prompts // gpus)) * o.group * (answer + 1) * (s.vocab or m.vocab) * 10
    engine = machine.memory * recipe.engine.vllm_memory if recipe.engine.rollout == "vllm" else 0.0
    tokens = rows * (prompt + answer)
    training = tokens * n * (8 if m.checkpointing else 6) / (gpus * machine.flops * machine.mfu)
    if recipe.engine.zero == 3:     # gather weights for forward and backward, scatter gradients
        training += 3 * 2 * n / machine.link * max(1, -(-o.prompts // (gpus * o.micro)))
    elif gpus > 1:
        training += 2 * 2 * n / machine.link
    copies = max(1, gpus // recipe.engine.vllm_tensor)
    prefill = o.prompts * prompt * 2 * n / (gpus * machine.flops * machine.mfu)
    cache = rows / copies * prompt * 2 * s.layers * (s.hidden // s.heads) * s.kv * 2
    longest = min(o.longest_answer, 2 * answer)             # a step ends with its longest answer
    decode = longest * ((2 * n + cache) / (machine.bus * 0.6 * recipe.engine.vllm_tensor) + 2e-3)
    whole = 2.0 * n if recipe.engine.zero == 3 else 0.0     # `Learner.whole`: at every push, look and export
    sync = 2 * n / machine.bus + whole / machine.link + 0.5
    return Plan(n, gpu, cpu, activations, logits, engine, whole, prefill + decode, training, sync, tokens, source)


def shape(recipe: Recipe) -> Shape:
    """The shape of a recipe's model; a path is matched by the size in its name (Qwen2.5-7B -> 7b)."""
    if recipe.model.path:
        low = recipe.model.path.lower()
        for name in ("1.5b", "0.5b", "7b"):
            if name in low:
                return SHAPES[name]
    return SHAPES[recipe.model.shape]


def told(p: Plan, machine: Machine, gpus: int) -> str:
    """A plan in words."""
    fits = "fits" if p.memory < 0.94 * machine.memory else "DOES NOT FIT"
    return (f"{gpus} x {machine.name}: {p.weights / 1e6:,.1f} M weights; memory a GPU {p.memory / GB:.1f} GB ({fits}): "
            f"states {p.states / GB:.1f} ({p.source}), activations {p.activations / GB:.1f}, logits "
            f"{p.logits / GB:.1f} (then {p.gathered / GB:.1f} gathered for the rollouts), rollout engine "
            f"{p.engine / GB:.1f}; CPU {p.host / GB:.0f} GB; step {p.step:.1f} s: rollout {p.rollout:.1f}, "
            f"training {p.training:.1f}, sync {p.sync:.1f}; {p.tokens:,} tokens a step")
