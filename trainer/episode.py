"""The waist: everything the sampler makes and the learner eats passes through these types (as in GRPO-Zero)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer as sampled. `logprobs` are those of the untempered distribution, one a token of `ids`."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Episode:
    """One answer to one case, graded. Episodes of one prompt follow each other and share `group`."""

    example: str                    # the row's id
    group: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool
    reward: float
    accuracy: float
    format: float


@dataclass(frozen=True, slots=True)
class Batch:
    """P prompts of at most T tokens, left-padded, and P*G answers of at most A tokens, right-padded.

    prompt, prompt_mask (P, T); answer, answer_mask, loss_mask, rollout (P*G, A); advantages (P*G,).
    `rollout` are the sampler's log-probs, `loss_mask` the weight of each answer token in the loss.
    """

    prompt: Tensor
    prompt_mask: Tensor
    answer: Tensor
    answer_mask: Tensor
    loss_mask: Tensor
    rollout: Tensor
    advantages: Tensor
