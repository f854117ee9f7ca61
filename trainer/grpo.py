"""Group-relative policy optimisation as pure tensor functions: no model, no engine, no options object.

    advantage   A_i = (r_i - mean(group)) / (std(group) + eps)             DeepSeekMath, arXiv 2402.03300, eq. 3
                without the division: Dr.GRPO, arXiv 2503.20783
    objective   min(w A, clip(w, 1 - low, 1 + high) A), w = exp(new - old)  PPO, arXiv 1707.06347; high > low: DAPO's
                clip-higher, arXiv 2503.14476
    mean        token     over all answer tokens of the batch              DAPO and RSafe (verl's `token-mean`)
                sequence  over each answer's tokens, then over answers     DeepSeekMath
                drgrpo    sum over tokens / (answers * longest answer)     Dr.GRPO

Shapes: N answers of at most A tokens; rewards (N,) with the G answers of one prompt next to each other. Checked
against hand-computed values and against TRL's trainer on the same tensors (tests/trainer/test_grpo.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Mean = Literal["token", "sequence", "drgrpo"]


def advantages(rewards: Tensor, group: int, scale: Literal["std", "none"] = "std", eps: float = 1e-6) -> Tensor:
    """Rewards (N,) -> advantages (N,). The standard deviation is the unbiased one, as in verl and TRL."""
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    if scale == "std":
        centred = centred / (grouped.std(1, keepdim=True) + eps)
    return (centred * informative(rewards, group).unsqueeze(1)).reshape(-1)     # equal rewards: 0, not their mean's rounding


def informative(rewards: Tensor, group: int) -> Tensor:
    """Rewards (N,) -> mask (N/G,) of the groups whose rewards differ: DAPO's dynamic sampling keeps only these."""
    grouped = rewards.view(-1, group)
    return grouped.max(1).values - grouped.min(1).values > 1e-8


def logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """Logits (..., V) and ids (...) -> log-probabilities (...) of those ids, in float32."""
    logits = logits.float() / temperature
    return logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


class Objective(NamedTuple):
    """`loss` is differentiable; `clipped` is the share of weighted tokens where the clip held the gradient back."""

    loss: Tensor
    clipped: Tensor
    ratio: Tensor
    kl: Tensor


def objective(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, *, low: float = 0.2, high: float = 0.2,
              mean: Mean = "token", longest: int = 0, tokens: Tensor | float | None = None,
              answers: Tensor | float | None = None, kl: float = 0.0, reference: Tensor | None = None) -> Objective:
    """The clipped loss of N answers.

    Args:
        new, old: log-probabilities (N, A) under the policy in training and the one that sampled.
        advantages: (N,).
        mask: (N, A) weight of each token.
        longest: for `drgrpo`, the token limit of an answer.
        tokens, answers: what to divide by where this is one part of a larger batch (micro-batches, processes);
            by default those of this part. The parts' losses then add up to the whole batch's.
        kl, reference: weight of the k3 estimate (Schulman 2020) against `reference` (N, A).
    """
    mask = mask.to(new.dtype)
    ratio = torch.exp(new - old)
    side = advantages.unsqueeze(1)
    plain, held = ratio * side, ratio.clamp(1 - low, 1 + high) * side
    each = -torch.minimum(plain, held)
    drift = torch.zeros_like(each)
    if kl and reference is not None:
        gap = reference - new
        drift = torch.exp(gap) - gap - 1
        each = each + kl * drift
    count = answers if answers is not None else float(new.shape[0])
    weight = mask.sum()
    if mean == "token":
        loss = (each * mask).sum() / _positive(tokens if tokens is not None else weight)
    elif mean == "sequence":
        loss = ((each * mask).sum(1) / mask.sum(1).clamp(min=1)).sum() / _positive(count)
    else:
        loss = (each * mask).sum() / (_positive(count) * longest)
    with torch.no_grad():
        share = _positive(weight)
        clipped = ((plain > held).to(mask.dtype) * mask).sum() / share
        return Objective(loss, clipped, (ratio * mask).sum() / share, (drift * mask).sum() / share)


def _positive(value: Tensor | float) -> Tensor | float:
    return value.clamp(min=1) if isinstance(value, Tensor) else max(value, 1.0)


def verdict_mask(mask: Tensor, ends: Sequence[int]) -> Tensor:
    """Keeps only the tokens behind the thought, the verdict.

    An answer that never closes its thought keeps all its tokens: it is the format that must change there.

    Args:
        mask: (N, A). ends: for each answer, how many tokens its thought has; 0 where it is never closed.
    """
    kept = mask.clone()
    for row, end in enumerate(ends):
        kept[row, :end] = 0
    return kept
