"""An exported guard: the same weights, its papers, and no other fingerprint's."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.ml, pytest.mark.filterwarnings("ignore")]

from firewall.template import FINGERPRINT  # noqa: E402
from tests.trainer import world  # noqa: E402
from trainer import export, tiny  # noqa: E402
from trainer.learner import build  # noqa: E402


def test_comes_back_the_same(tok, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tiny.model("nano", tok).eval()
    to = export.folder(model, tok, tmp_path / "m", world.recipe(tmp_path), {"f1": 0.5},
                       {"train": {"sources": {"a": {"rows": 3, "unsafe": 1, "licence": "MIT"}}}})
    again = AutoModelForCausalLM.from_pretrained(to, dtype=torch.float32).eval()
    ids = torch.tensor([[1, 5, 9, 30]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)
    assert AutoTokenizer.from_pretrained(to).encode("<think>x</think>") == tok.encode("<think>x</think>")
    papers = export.check(to)
    assert papers["fingerprint"] == FINGERPRINT and papers["parameters"] == sum(p.numel() for p in model.parameters())
    card = (to / "README.md").read_text()
    assert "| a | 3 | 1 | MIT |" in card and FINGERPRINT in card and '"f1": 0.5' in card


def test_lora_is_exported_merged(tok, tmp_path):
    pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    recipe = world.recipe(tmp_path, model={"lora_rank": 4})
    model = build(recipe.model, tok, 0, 1024).eval()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_B" in n:
                p.normal_(std=0.1)
    again = AutoModelForCausalLM.from_pretrained(export.folder(model, tok, tmp_path / "m", recipe),
                                                 dtype=torch.float32).eval()
    ids = torch.tensor([[1, 5, 9, 30]])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, again(ids).logits, atol=1e-5)


def test_another_template_is_refused(tok, tmp_path):
    to = export.folder(tiny.model("nano", tok), tok, tmp_path / "m", world.recipe(tmp_path))
    papers = json.loads((to / "firewall.json").read_text())
    (to / "firewall.json").write_text(json.dumps(papers | {"fingerprint": "feedfacefeedface"}))
    with pytest.raises(ValueError, match="feedfacefeedface"):
        export.check(to)
    (to / "firewall.json").unlink()
    with pytest.raises(ValueError, match="missing"):
        export.check(to)
