"""DeepSpeed behind one wall: ZeRO 0-3, bf16, offload, LoRA; one process, torchrun or the `deepspeed` launcher.

A `Learner` scores answers, takes steps and saves itself; it knows no rewards and no data. The parts of a batch
(micro-batches, processes) carry losses that add up to the batch's loss, so that cutting a batch differently changes
nothing but rounding: a part's loss is divided by the batch's counts, and DeepSpeed's average over processes is undone.
"""

from __future__ import annotations

import copy
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trainer import tiny
from trainer import tokenizer as words
from trainer.errors import Halt, full
from trainer.grpo import logprobs
from trainer.recipe import Model, Recipe

Made = TypeVar("Made")


def environment() -> tuple[int, int]:
    """(rank, processes). Fills in what a launcher would have set, so that one process needs no launcher and no MPI."""
    if "RANK" not in os.environ:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": str(port)}
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def device() -> str:
    """Where this process computes."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def deepspeed() -> Any:
    """The library, ready to start without a compiler, and the group of processes it runs in.

    Its shared-memory op for CPU processes is a speed-up that costs minutes of compilation: it stays off. The time limit
    on waiting for another process is long, because the first one prepares data and samples traces for all.
    """
    import deepspeed as ds

    getattr(ds.ops, "__compatible_ops__", {})["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        ds.init_distributed("nccl" if torch.cuda.is_available() else "gloo", verbose=False,
                            timeout=timedelta(hours=6))
    return ds


def in_turn(work: Callable[[], Made]) -> Made:
    """What `work` makes, made by the first process of all, then by the first of each machine, then by the rest.

    For work that leaves files behind for whoever comes next (rows, a tokenizer, traces): nobody reads half a file,
    on a shared disk or on one disk a machine.
    """
    rank, world = environment()
    if world == 1:
        return work()
    deepspeed()
    mine = 0 if rank == 0 else 1 if os.environ["LOCAL_RANK"] == "0" else 2
    made: list[Made] = []
    for turn in range(3):
        if turn == mine:
            made.append(work())
        torch.distributed.barrier()
    return made[0]


class Scorer(nn.Module):
    """A causal language model that gives log-probabilities, so that no (B, L, V) block of logits outlives it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, keep: int, temperature: float = 1.0,
                tails: Tensor | None = None, tail_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the last `keep` tokens of each row: (tempered, plain and detached), both (B, keep).

        With `tails` (P*G, keep), `ids` are P prompts and each is followed by its G tails; the prompt is computed once
        and its keys and values are shared by the group, which gives the same numbers and the same gradients.
        """
        places = (mask.cumsum(1) - 1).clamp(min=0)
        if tails is None or tail_mask is None:
            out = self.model(input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=keep + 1,
                             use_cache=False)
            return self._score(out.logits[:, :-1], ids[:, -keep:], temperature)
        group = tails.shape[0] // ids.shape[0]
        head = self.model(input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=1, use_cache=True)
        cache = head.past_key_values
        cache.batch_repeat_interleave(group)
        logits = head.logits.repeat_interleave(group, 0)
        if keep > 1:
            whole = torch.cat([mask.repeat_interleave(group, 0), tail_mask[:, :-1]], 1)
            after = (whole.cumsum(1) - 1).clamp(min=0)[:, ids.shape[1]:]
            out = self.model(input_ids=tails[:, :-1], attention_mask=whole, position_ids=after, past_key_values=cache,
                             use_cache=True)
            logits = torch.cat([logits, out.logits], 1)
        return self._score(logits, tails, temperature)

    @staticmethod
    def _score(logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        tempered = logprobs(logits, ids, temperature)
        if temperature == 1.0:
            return tempered, tempered.detach()
        with torch.no_grad():
            return tempered, logprobs(logits.detach(), ids)


def build(model: Model, tokenizer: Any, seed: int, positions: int) -> Any:
    """The model a recipe names, on CPU: loaded or new, with LoRA adapters where it asks for them."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, model.dtype)
    if model.path:
        made = words.fetched(model.path, lambda: AutoModelForCausalLM.from_pretrained(model.path, dtype=dtype))
        if made.get_input_embeddings().weight.shape[0] < len(tokenizer):
            raise Halt(f"the model in {model.path} has fewer embeddings than the tokenizer has tokens",
                       "Use the tokenizer it was trained with.")
    else:
        made = tiny.model(model.shape, tokenizer, seed, positions).to(dtype)
    made.generation_config.pad_token_id = tokenizer.pad_token_id
    if model.lora_rank:
        from peft import LoraConfig, get_peft_model

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = get_peft_model(made, LoraConfig(r=model.lora_rank, lora_alpha=model.lora_alpha, lora_dropout=0.0,
                                                   target_modules=list(model.lora_targets), task_type="CAUSAL_LM"))
    if model.checkpointing:
        made.gradient_checkpointing_enable({"use_reentrant": False})
        made.enable_input_require_grads()
    return made


def settings(recipe: Recipe, clip: float) -> dict[str, Any]:
    """DeepSpeed's configuration for a recipe."""
    zero: dict[str, Any] = {"stage": recipe.engine.zero}
    if recipe.engine.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "gradient_clipping": clip,
            "zero_optimization": zero, "bf16": {"enabled": recipe.model.dtype == "bfloat16"}, "steps_per_print": 10**9,
            "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False, "wall_clock_breakdown": False}


def frozen(recipe: Recipe, scorer: Scorer) -> Any:
    """A scorer that is never trained, on this process's device; with ZeRO-3 its weights are partitioned like the others."""
    scorer.requires_grad_(False).eval()
    if recipe.engine.zero < 3:
        return scorer.to(device())
    told = settings(recipe, 0.0)
    told["zero_optimization"] = {"stage": 3}
    engine, *_ = deepspeed().initialize(model=scorer, config=told)
    engine.eval()
    return engine


class Learner:
    """A model in training. `lr` is set before every step; the schedule lives with the loop.

    Args:
        model: its weights are trained in place.
        first: keep a copy of the weights as they come, as `self.first`: the policy that a KL term stays near to.

    Raises:
        Halt: on a loss or gradient that is not finite, naming the step; nothing was changed then.
    """

    def __init__(self, recipe: Recipe, model: Any, lr: float, clip: float = 1.0, first: bool = False) -> None:
        self.rank, self.world = environment()
        ds = deepspeed()
        if recipe.engine.threads:
            torch.set_num_threads(recipe.engine.threads)
        scorer = Scorer(model)
        # a copy now: ZeRO-3 leaves no whole weights behind to copy
        self.first = frozen(recipe, copy.deepcopy(scorer)) if first else None
        trained = [p for p in scorer.parameters() if p.requires_grad]
        fused = {"fused": True} if torch.cuda.is_available() else {}
        optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, recipe.engine.beta2),
                                      weight_decay=recipe.engine.weight_decay, **fused)
        self.engine, self.optimizer, _, _ = ds.initialize(
            model=scorer, model_parameters=trained, optimizer=optimizer, config=settings(recipe, clip))
        self.zero, self.ds = recipe.engine.zero, ds
        self.engine.train()

    @property
    def device(self) -> torch.device:
        return torch.device(self.engine.device)

    @property
    def model(self) -> Any:
        return self.engine.module.model

    def score(self, ids: Tensor, mask: Tensor, keep: int, temperature: float = 1.0, tails: Tensor | None = None,
              tail_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`Scorer.forward` on this process's device."""
        parts = [None if t is None else t.to(self.device) for t in (ids, mask, tails, tail_mask)]
        result: tuple[Tensor, Tensor] = self.engine(parts[0], parts[1], keep, temperature, parts[2], parts[3])
        return result

    def backward(self, loss: Tensor, last: bool) -> None:
        """One part's loss, already divided by the whole batch's counts. `last` closes the batch on this process."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.world)
        if not last:
            self.engine.step()

    def step(self, lr: float) -> float:
        """Takes the step; the gradient's norm before clipping. Raises `Halt`, spoiled, when it was not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = None
        if not self.zero and not self.engine.bfloat16_enabled():      # DeepSpeed tells no norm here
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.engine.module.parameters()
                                                  if p.grad is not None])
        try:
            self.engine.step()
        except (MemoryError, RuntimeError) as e:
            if not full(e):
                raise
            raise Halt("out of memory in the optimiser's step", "Raise engine.zero or set engine.offload.",
                       spoiled=True) from e
        norm = self.engine.get_global_grad_norm() if norm is None else norm
        if norm is not None and not math.isfinite(norm):
            raise Halt(f"the gradient's norm is {float(norm)}", "Lower the learning rate.", spoiled=True)
        return 0.0 if norm is None else float(norm)

    def total(self, value: float | Tensor) -> float:
        """The sum over all processes."""
        t = torch.as_tensor(value, dtype=torch.float64).detach().clone().reshape(1).to(self.device)
        if self.world > 1:
            torch.distributed.all_reduce(t)
        return float(t[0])

    def most(self, value: float) -> float:
        """The largest value of all processes."""
        t = torch.tensor([float(value)], dtype=torch.float64, device=self.device)
        if self.world > 1:
            torch.distributed.all_reduce(t, torch.distributed.ReduceOp.MAX)
        return float(t[0])

    @contextmanager
    def whole(self) -> Iterator[Any]:
        """The model with all its weights in place (ZeRO-3 gathers them), in evaluation mode, without gradients."""
        context = self.ds.zero.GatheredParameters(list(self.model.parameters()), modifier_rank=None) \
            if self.zero == 3 else torch.no_grad()
        self.engine.eval()
        try:
            with context, torch.no_grad():
                yield self.model
        finally:
            self.engine.train()

    def save(self, folder: Path, tag: str, state: dict[str, Any]) -> None:
        """Weights, optimiser and `state` to folder/tag, on every process."""
        self.engine.save_checkpoint(str(folder), tag=tag, client_state=state, save_latest=False)

    def load(self, folder: Path, tag: str, weights: bool = False) -> dict[str, Any]:
        """Back from folder/tag, with the state saved there; `weights` leaves the optimiser's state aside, whose cut
        depends on `engine.zero` and the number of processes; ZeRO-3 keeps the weights in it. Raises `Halt` when it cannot
        be read."""
        try:
            path, state = self.engine.load_checkpoint(str(folder), tag=tag, load_module_only=weights and self.zero < 3)
        except Exception as e:
            raise Halt(f"checkpoint {folder / tag} cannot be read ({type(e).__name__}: {e})",
                       "Remove it to resume from the one before.") from e
        if path is None:
            raise Halt(f"checkpoint {folder / tag} is incomplete", "Remove it to resume from the one before.")
        return dict(state)


def tokenizer_of(recipe: Recipe) -> Any:
    """The tokenizer a recipe names. Raises `Mistakes` when it cannot carry the template."""
    return words.load(recipe.model.tokenizer or recipe.model.path)
