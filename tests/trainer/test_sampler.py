"""Sampling: the log-probs are the model's, seeds repeat, greedy answers are those of transformers' own `generate`."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.ml, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

from tests.trainer import world  # noqa: E402
from trainer import tiny  # noqa: E402
from trainer import tokenizer as words  # noqa: E402
from trainer.learner import Scorer  # noqa: E402
from trainer.sampler import Draw, Transformers, padded, processors  # noqa: E402


@pytest.fixture(scope="module")
def model(tok):
    return tiny.model("nano", tok, seed=2, positions=1024).eval()


def prompts(tok):
    return [words.prompt(tok, e.case)[: 40 + 5 * i] for i, e in enumerate(world.examples(5))]


def test_logprobs_are_the_models_own(tok, model):
    rows = prompts(tok)
    got = Transformers(model, words.stops(tok), tok.pad_token_id).sample(rows, Draw(3, 0.7, 0.8, 1.05, 12), 5)
    flat = [(p, s) for p, group in zip(rows, got, strict=True) for s in group]
    for p, s in flat:
        ids, mask = padded([list(p) + list(s.ids)], tok.pad_token_id, left=True)
        with torch.no_grad():
            _, plain = Scorer(model)(ids, mask, len(s.ids))
        assert plain[0].tolist() == pytest.approx(list(s.logprobs), abs=1e-4)


def test_seeds_repeat_and_differ(tok, model):
    engine = Transformers(model, words.stops(tok), tok.pad_token_id)
    one, two, three = (engine.sample(prompts(tok), Draw(4, 1.0, 1.0, 1.0, 8), s) for s in (1, 1, 2))
    assert one == two and one != three


@pytest.mark.parametrize("repetition", [1.0, 1.3])
def test_greedy_is_generates(tok, model, repetition):
    rows = prompts(tok)
    got = Transformers(model, words.stops(tok), tok.pad_token_id).sample(rows, Draw(1, 0.0, 1.0, repetition, 10), 0)
    for p, (s,) in zip(rows, got, strict=True):
        out = model.generate(torch.tensor([p]), attention_mask=torch.ones(1, len(p)), do_sample=False,
                             max_new_tokens=10, eos_token_id=list(words.stops(tok)), repetition_penalty=repetition)
        assert out[0, len(p):].tolist() == list(s.ids)


def test_answers_end_where_they_end(tok, model):
    """Every stop token: an answer is finished after one token; none: it is cut at the limit."""
    every = Transformers(model, tuple(range(len(tok))), tok.pad_token_id)
    assert all(s.finished and len(s.ids) == 1 for g in every.sample(prompts(tok), Draw(2, longest=5), 0) for s in g)
    never = Transformers(model, (), tok.pad_token_id)
    assert all(not s.finished and len(s.ids) == 5 for g in never.sample(prompts(tok), Draw(2, longest=5), 0) for s in g)


def test_nucleus_and_temperature():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    kept = processors(Draw(1, 1.0, 0.7, 1.0))(torch.zeros(1, 1, dtype=torch.long), logits.clone())
    assert torch.isinf(kept[0, 2:]).all() and not torch.isinf(kept[0, :2]).any()
    # repetition penalty 2 halves a positive and doubles a negative logit of what was seen
    seen = processors(Draw(1, 1.0, 1.0, 2.0))(torch.tensor([[0, 1]]), torch.tensor([[2.0, -2.0, 1.0, -1.0]]))
    assert seen.tolist() == [[1.0, -4.0, 1.0, -1.0]]
