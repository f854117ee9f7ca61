"""The loss against values computed by hand, and against TRL's trainer on the same tensors."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.ml, pytest.mark.filterwarnings("ignore")]

from trainer import grpo  # noqa: E402


def test_advantages_by_hand():
    # group (1, 0, 0, 1): mean 0.5, unbiased std sqrt(1/3)
    got = grpo.advantages(torch.tensor([1.0, 0.0, 0.0, 1.0, 0.1, 0.1, 0.1, 0.1]), 4, eps=0.0 + 1e-6)
    one = 0.5 / (math.sqrt(1 / 3) + 1e-6)
    assert got.tolist() == pytest.approx([one, -one, -one, one, 0, 0, 0, 0], abs=1e-5)
    assert grpo.advantages(torch.tensor([1.0, 0.0]), 2, "none").tolist() == [0.5, -0.5]


@pytest.mark.parametrize("scale", ["std", "none"])
def test_equal_rewards_teach_nothing(scale):
    got = grpo.advantages(torch.tensor([0.1] * 7 + [0.0, 1.0, 0.9, 0.9, 0.9, 0.9, 0.9]), 7, scale)
    assert got[:7].tolist() == [0.0] * 7 and got[7:].abs().min() > 0


def test_advantages_know_nothing_of_other_groups():
    a = grpo.advantages(torch.tensor([1.0, 0.0, 0.3, 0.2]), 2)
    b = grpo.advantages(torch.tensor([1.0, 0.0, 30.0, 20.0]), 2)
    assert a[:2].tolist() == b[:2].tolist()


def test_informative():
    assert grpo.informative(torch.tensor([1.0, 1.0, 0.1, 1.0]), 2).tolist() == [False, True]


def test_logprobs_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert grpo.logprobs(logits, torch.tensor([1])).item() == pytest.approx(math.log(0.75))
    # temperature 0.5 squares the odds: 9 to 1
    assert grpo.logprobs(logits, torch.tensor([1]), 0.5).item() == pytest.approx(math.log(0.9))


def case():
    """Two answers: ratios (2, 1) with advantage 1, and (0.5, .) with advantage -1; the last token is masked."""
    old = torch.zeros(2, 2)
    new = torch.log(torch.tensor([[2.0, 1.0], [0.5, 7.0]])).requires_grad_()
    return new, old, torch.tensor([1.0, -1.0]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])


def test_clip_by_hand():
    # answer 1: min(2, 1.2) = 1.2 and 1; answer 2: min(-0.5, -0.8) = -0.8
    new, old, gain, mask = case()
    assert grpo.objective(new, old, gain, mask).loss.item() == pytest.approx(-(1.2 + 1 - 0.8) / 3)
    assert grpo.objective(new, old, gain, mask, mean="sequence").loss.item() == pytest.approx(-(2.2 / 2 - 0.8) / 2)
    assert grpo.objective(new, old, gain, mask, mean="drgrpo", longest=10).loss.item() == pytest.approx(-1.4 / 20)
    assert grpo.objective(new, old, gain, mask, high=0.28).loss.item() == pytest.approx(-(1.28 + 1 - 0.8) / 3)
    assert grpo.objective(new, old, gain, mask).clipped.item() == pytest.approx(2 / 3)


def test_clipped_tokens_carry_no_gradient():
    new, old, gain, mask = case()
    grpo.objective(new, old, gain, mask).loss.backward()
    # only the token with ratio 1 moves: d(-w A)/d new = -1, over three tokens; masked tokens never move
    assert new.grad.tolist() == [[pytest.approx(0), pytest.approx(-1 / 3)], [pytest.approx(0), pytest.approx(0)]]


def test_kl_by_hand():
    new, old, gain, mask = torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), torch.ones(1, 1)
    got = grpo.objective(new, old, gain, mask, kl=0.5, reference=torch.full((1, 1), math.log(2.0)))
    assert got.kl.item() == pytest.approx(1 - math.log(2.0), abs=1e-6)
    assert got.loss.item() == pytest.approx(0.5 * (1 - math.log(2.0)), abs=1e-6)


@pytest.mark.parametrize("mean", ["token", "sequence", "drgrpo"])
def test_parts_add_up_to_the_whole(mean):
    torch.manual_seed(1)
    new, old, gain = torch.randn(6, 5) * 0.2, torch.randn(6, 5) * 0.2, torch.randn(6)
    mask = (torch.arange(5) < torch.tensor([5, 2, 1, 4, 3, 5])[:, None]).float()
    whole = grpo.objective(new, old, gain, mask, mean=mean, longest=7).loss
    parts = [grpo.objective(new[i:i + 2], old[i:i + 2], gain[i:i + 2], mask[i:i + 2], mean=mean, longest=7,
                            tokens=float(mask.sum()), answers=6.0).loss for i in (0, 2, 4)]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-6)


def test_verdict_mask_keeps_what_follows_the_thought():
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1.0]])
    assert grpo.verdict_mask(mask, [3, 0]).tolist() == [[0, 0, 0, 1, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize(("theirs", "mean"), [("bnpo", "token"), ("grpo", "sequence"), ("dr_grpo", "drgrpo")])
@pytest.mark.parametrize("high", [0.2, 0.28])
@pytest.mark.parametrize("kl", [0.0, 0.04])
def test_agrees_with_trl(theirs: str, mean: str, high: float, kl: float):
    """TRL's own `_compute_loss` on the same log-probs: value and gradient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    torch.manual_seed(3)
    n, length = 8, 11
    old, reference, gain = torch.randn(n, length) * 0.3, torch.randn(n, length) * 0.3, torch.randn(n)
    mask = (torch.arange(length) < torch.randint(1, length + 1, (n, 1))).long()
    ours, other = (torch.randn(n, length, generator=torch.Generator().manual_seed(4)).mul(0.3).requires_grad_()
                   for _ in range(2))
    grpo.objective(ours, old, gain, mask.float(), low=0.2, high=high, mean=mean, longest=20, kl=kl,
                   reference=reference).loss.backward()
    value = _theirs(trainer, theirs, other, old, reference, gain, mask, high, kl)
    value.backward()
    assert grpo.objective(ours, old, gain, mask.float(), low=0.2, high=high, mean=mean, longest=20, kl=kl,
                          reference=reference).loss.item() == pytest.approx(value.item(), abs=1e-6)
    assert torch.allclose(ours.grad, other.grad, atol=1e-7)


def _theirs(trainer: Any, kind: str, new: Any, old: Any, reference: Any, gain: Any, mask: Any, high: float,
            kl: float) -> Any:
    n, length = new.shape
    gather = SimpleNamespace(gather=lambda t: t, reduce=lambda t, reduction: t, num_processes=1)
    metrics: Any = SimpleNamespace(append=lambda v: None)
    stub = SimpleNamespace(
        aux_loss_enabled=False, _entropy_bonus_enabled=False,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, beta=kl, loss_type=kind,
        importance_sampling_level="token", epsilon_low=0.2, epsilon_high=high, use_vllm=False,
        max_completion_length=20, current_gradient_accumulation_steps=1, vllm_importance_sampling_correction=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        model=SimpleNamespace(training=True), accelerator=gather,
        _metrics={"train": _Any(metrics), "eval": _Any(metrics)},
        _get_per_token_logps_and_entropies=lambda *a, **k: (new, torch.zeros_like(new), None))
    ids = torch.zeros(n, 1, dtype=torch.long)
    return trainer._compute_loss(stub, None, {
        "prompt_ids": ids, "prompt_mask": ids + 1, "completion_ids": torch.zeros(n, length, dtype=torch.long),
        "completion_mask": mask, "advantages": gain, "old_per_token_logps": old, "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum()})


class _Any(dict):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def __missing__(self, name: str) -> Any:
        return self.value
