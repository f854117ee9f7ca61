"""Answers from the policy: by transformers, from the very weights in training, or by vLLM beside them.

Both give the log-probabilities of the *untempered* distribution for the sampled tokens, so that each step can check
that the sampler and the learner are the same model. All randomness comes from the seed of the call: the same seed,
prompts and weights give the same answers, which is what makes a resumed run repeat itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer.episode import Sample
from trainer.learner import Learner


@dataclass(frozen=True, slots=True)
class Draw:
    """How to sample: answers a prompt, temperature (0 is greedy), nucleus, repetition penalty, most tokens."""

    group: int = 4
    temperature: float = 0.7
    top_p: float = 0.8
    repetition: float = 1.05
    longest: int = 512


class Sampler(Protocol):
    """`sample` returns one list of `draw.group` answers a prompt; `sync` takes new weights (name, tensor)."""

    def sample(self, prompts: Sequence[Sequence[int]], draw: Draw, seed: int) -> list[list[Sample]]: ...

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None: ...

    needs_sync: bool


def padded(rows: Sequence[Sequence[int]], pad: int, left: bool, width: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids -> (ids, mask), both (len(rows), longest)."""
    width = max(width, *(len(r) for r in rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, at] = torch.tensor(list(row), dtype=torch.long)
        mask[i, at] = 1
    return ids, mask


class Transformers:
    """Samples from the learner's own module: there is nothing to synchronise.

    Each prompt is computed once and its cache is shared by its group; rows that have ended leave the batch.
    """

    needs_sync = False

    def __init__(self, model: Learner | Any, stops: tuple[int, ...], pad: int, part: int = 16) -> None:
        self.owner, self.stops, self.pad, self.part = model, stops, pad, part

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        pass

    def sample(self, prompts: Sequence[Sequence[int]], draw: Draw, seed: int) -> list[list[Sample]]:
        out: list[list[Sample]] = []
        for start in range(0, len(prompts), self.part):
            part = prompts[start:start + self.part]
            if isinstance(self.owner, Learner):
                with self.owner.whole() as model:
                    out += self._part(model, part, draw, seed + start)
            else:
                with torch.no_grad():
                    out += self._part(self.owner, part, draw, seed + start)
        return out

    def _part(self, model: Any, prompts: Sequence[Sequence[int]], draw: Draw, seed: int) -> list[list[Sample]]:
        device = model.device
        random = torch.Generator(device=device).manual_seed(seed)
        change = processors(draw)
        ids, mask = (t.to(device) for t in padded(prompts, self.pad, left=True))
        out = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                    use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[:, -1].repeat_interleave(draw.group, 0)
        cache.batch_repeat_interleave(draw.group)
        roomy(cache)
        seen, mask = ids.repeat_interleave(draw.group, 0), mask.repeat_interleave(draw.group, 0)
        rows = list(range(len(seen)))               # which answer each living row is
        answers: list[list[int]] = [[] for _ in rows]
        scores: list[list[float]] = [[] for _ in rows]
        ended = [False] * len(rows)
        for step in range(draw.longest):
            logits = logits.float()
            if draw.temperature:
                chances = change(seen, logits.clone()).softmax(-1)
                token = torch.multinomial(chances, 1, generator=random)[:, 0]
            else:
                token = change(seen, logits.clone()).argmax(-1)
            plain = (logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1)).tolist()
            keep = []
            for i, (row, t, score) in enumerate(zip(rows, token.tolist(), plain, strict=True)):
                answers[row].append(t)
                scores[row].append(score)
                ended[row] = t in self.stops
                if not ended[row]:
                    keep.append(i)
            if not keep or step == draw.longest - 1:
                break
            if len(keep) < len(rows):
                index = torch.tensor(keep, device=device)
                cache.batch_select_indices(index)
                seen, mask, token = seen[index], mask[index], token[index]
                rows = [rows[i] for i in keep]
            seen = torch.cat([seen, token[:, None]], 1)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            out = model(input_ids=token[:, None], attention_mask=mask, position_ids=(mask.sum(1) - 1)[:, None],
                        past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, out.logits[:, -1]
        made = [Sample(tuple(a), tuple(s), e) for a, s, e in zip(answers, scores, ended, strict=True)]
        return [made[i:i + draw.group] for i in range(0, len(made), draw.group)]


def roomy(cache: Any, room: int = 64) -> None:
    """Lets a transformers cache write new keys in place; otherwise it copies all of itself at every token."""
    from transformers.cache_utils import DynamicLayer

    class Roomy(DynamicLayer):
        held: tuple[Tensor, Tensor] | None = None

        def update(self, key_states: Tensor, value_states: Tensor, *a: Any, **k: Any) -> tuple[Tensor, Tensor]:
            start, stop = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
            if self.held is None or stop > self.held[0].shape[-2] or self.held[0].data_ptr() != self.keys.data_ptr():
                shape = (*self.keys.shape[:2], stop + room, self.keys.shape[3])
                self.held = self.keys.new_empty(shape), self.values.new_empty(shape)
                self.held[0][:, :, :start], self.held[1][:, :, :start] = self.keys, self.values
            self.held[0][:, :, start:stop], self.held[1][:, :, start:stop] = key_states, value_states
            self.keys, self.values = self.held[0][:, :, :stop], self.held[1][:, :, :stop]
            return self.keys, self.values

    for layer in cache.layers:
        if type(layer) is DynamicLayer:
            layer.__class__ = Roomy


def processors(draw: Draw) -> Any:
    """transformers' own logits processors in its order: repetition penalty, temperature, nucleus."""
    from transformers.generation import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopPLogitsWarper,
    )

    made = LogitsProcessorList()
    if draw.repetition != 1.0:
        made.append(RepetitionPenaltyLogitsProcessor(draw.repetition))
    if draw.temperature not in (0.0, 1.0):
        made.append(TemperatureLogitsWarper(draw.temperature))
    if draw.temperature and draw.top_p < 1.0:
        made.append(TopPLogitsWarper(draw.top_p))
    return made


class Vllm:
    """An engine in this process (no second interpreter, no sockets); weights come through `reload_weights`."""

    needs_sync = True

    def __init__(self, folder: Path, dtype: str, longest: int, stops: tuple[int, ...], memory: float = 0.35,
                 tensor: int = 1, seed: int = 0) -> None:
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        size: dict[str, Any] = {"gpu_memory_utilization": memory}
        if not torch.cuda.is_available():
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(memory))))
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
            size = {"block_size": 32}
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:      # each engine on its process's GPU, not all on cuda:0
            size["distributed_executor_backend"] = "external_launcher"
        from vllm import LLM

        self.stops = stops
        self.llm = LLM(str(folder), dtype=dtype, max_model_len=longest, enforce_eager=True, seed=seed,
                       enable_prefix_caching=True, logprobs_mode="raw_logprobs", tensor_parallel_size=tensor,
                       disable_log_stats=True, **size)

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self.llm.reset_prefix_cache()

    def sample(self, prompts: Sequence[Sequence[int]], draw: Draw, seed: int) -> list[list[Sample]]:
        from vllm import SamplingParams

        asks = [SamplingParams(n=draw.group, temperature=draw.temperature, top_p=draw.top_p, logprobs=0,
                               repetition_penalty=draw.repetition, max_tokens=draw.longest, seed=seed + 1000 * i,
                               stop_token_ids=list(self.stops), detokenize=False) for i in range(len(prompts))]
        made = self.llm.generate([{"prompt_token_ids": list(p)} for p in prompts], asks, use_tqdm=False)
        return [[Sample(tuple(o.token_ids), tuple(step[t].logprob for t, step in zip(o.token_ids, o.logprobs,
                                                                                    strict=True)),
                        o.finish_reason == "stop") for o in sorted(out.outputs, key=lambda o: o.index)]
                for out in made]
