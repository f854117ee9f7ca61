"""The network and the loop, on a tiny random BERT: starts at the cosine, learns, resumes, ignores order and padding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.ml

from trainer.encoder.batches import build  # noqa: E402
from trainer.encoder.model import FEATURES, GuardNet, Head, Shape, pool  # noqa: E402
from trainer.encoder.train import by_item, corpus, forward, loss_of, merge, soft, train  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
SHAPE = Shape(hidden=32, width=16, heads=4, frozen=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with a word-level vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel

    to = tmp_path_factory.mktemp("base")
    words = "build a gun bread bake sell how to the do not weapons food about talk allowed is are rules".split()
    vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 101, "[SEP]": 102} | {w: 10 + i for i, w in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.save(str(to / "tokenizer.json"))
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                         intermediate_size=64, max_position_embeddings=256)).save_pretrained(to)
    return to


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> dict[str, Any]:
    """Texts about guns and bread under policies that forbid one of them."""
    import lzma
    folder = tmp_path / "shared" / "train"
    folder.mkdir(parents=True)
    lines = []
    for i in range(160):
        gun = i % 2
        text = ("build a gun " if gun else "bake the bread ") + " ".join(["how", "to"] * (i % 5 + 1)) + " x" * (i // 10)
        for topic, rule in ((1, "- do not talk about weapons gun"), (0, "- do not talk about food bread")):
            lines.append({"id": str(i), "task": "prompt", "messages": [{"role": "user", "content": text}],
                          "label": "unsafe" if topic == gun else "safe", "categories": [], "policy": rule})
    with lzma.open(folder / "polyguard_policy_swap.jsonl.xz", "wt") as file:
        file.writelines(json.dumps(x) + "\n" for x in lines)
    (tmp_path / "examples").mkdir()
    return {"seed": 3, "base": str(base), "shared": str(tmp_path / "shared"), "policies": str(ROOT / "policies"),
            "examples": str(tmp_path / "examples"), "out": str(tmp_path / "out"), "threads": 1,
            "model": {"hidden": 32, "width": 16, "heads": 4, "frozen": 1},
            "train": {"minutes": 9, "steps": 260, "lr": 1e-3, "head_lr": 3e-3, "warmup": 3, "tokens": 600,
                      "fresh": 6, "refresh": 50, "clean": 4, "evaluate_every": 1e9},
            "data": {"held_out": 0.2, "examples_held_out": 0.1, "examples_repeat": 1.0, "benign_calibration": 0.5,
                     "embedded": 0, "answers": 0, "crossed_repeat": 1.0, "caps": {"polyguard_policy_swap": 200}}}


def head_input(b: int = 2, t: int = 7, p: int = 3, s: int = 4) -> dict[str, Any]:
    g = torch.Generator().manual_seed(1)
    role = torch.zeros(b, p, s, dtype=torch.long)
    role[:, :, -1] = 1
    return {"tokens": torch.randn(b, t, 32, generator=g), "mask": torch.ones(b, t), "judged": torch.ones(b, t),
            "way": torch.zeros(b, dtype=torch.long), "rules": torch.randn(9, 64, generator=g),
            "index": torch.randint(0, 9, (b, p, s), generator=g), "role": role}


def run(head: Head, x: dict[str, Any]) -> Any:
    return head(x["tokens"], x["mask"], x["judged"], x["way"], head.code(x["rules"]), x["index"], x["role"])


def trained_head() -> Head:
    """A head away from its starting point, so that every path counts."""
    torch.manual_seed(5)
    head = Head(SHAPE)
    for p in head.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return head.eval()


def test_it_starts_at_the_plain_cosine() -> None:
    head, x = Head(SHAPE), head_input()
    z = run(head, x)
    mean = x["tokens"].mean(1)
    for b in range(2):
        rules = x["rules"][x["index"][b], :32]
        cos = torch.cosine_similarity(rules, mean[b].expand_as(rules), dim=-1)
        assert torch.allclose(z[b], 10 * cos - 3, atol=1e-4)


def test_the_order_of_rules_and_policies_changes_nothing() -> None:
    head, x = trained_head(), head_input()
    z = run(head, x)

    def turn(v: Any) -> Any:
        return v[:, [2, 0, 1]][:, :, [3, 1, 0, 2]]
    assert torch.allclose(run(head, dict(x, index=turn(x["index"]), role=turn(x["role"]))), turn(z), atol=1e-4)


def test_padding_changes_nothing() -> None:
    head, x = trained_head(), head_input()
    z = run(head, x)
    pad, real = torch.nn.functional.pad, torch.tensor([[1.0] * 7 + [0] * 3] * 2)
    more = dict(x, tokens=torch.cat((x["tokens"], torch.randn(2, 3, 32)), 1), mask=real, judged=real,
                index=pad(x["index"], (0, 2)), role=pad(x["role"], (0, 2), value=-1))
    assert torch.allclose(run(head, more)[:, :, :4], z, atol=1e-4)


def test_an_allowed_line_reaches_only_its_own_policy() -> None:
    head, x = trained_head(), head_input()
    z = run(head, x)
    index = x["index"].clone()
    index[:, 0, -1] = (index[:, 0, -1] + 1) % 9
    other = run(head, dict(x, index=index))
    assert torch.allclose(other[:, 1:], z[:, 1:], atol=1e-5) and not torch.allclose(other[:, 0, :-1], z[:, 0, :-1])


def test_the_soft_maximum_does_not_grow_with_the_number_of_rules() -> None:
    z = torch.tensor([[2.0, -3.0]])
    many = torch.cat([z] * 20, -1)
    live = torch.ones_like
    assert soft(many, live(many).bool()).item() == pytest.approx(soft(z, live(z).bool()).item(), abs=1e-5)
    assert -3 < soft(z, live(z).bool()).item() <= 2


def test_features_and_pooling_have_the_shapes_they_promise() -> None:
    head = Head(SHAPE)
    assert head.code(torch.randn(5, 64)).shape == (5, 16 + FEATURES + 32)
    pooled = pool(torch.ones(2, 3, 32), torch.tensor([[1.0, 1, 0], [1, 1, 1]]))
    assert pooled.shape == (2, 64) and torch.allclose(pooled, torch.ones(2, 64))


def test_it_learns_to_follow_the_policy_and_resumes(recipe: dict[str, Any]) -> None:
    last = train(recipe)
    lines = [json.loads(x) for x in (Path(recipe["out"]) / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["event"] == "end" and lines[-1]["auroc"]["polyguard_policy_swap"] > 0.95
    assert abs(lines[-1]["auroc"]["swap_shuffled"] - 0.5) < 0.3
    before = torch.load(last, weights_only=True)["state"]
    train(recipe | {"train": recipe["train"] | {"steps": 280}})
    after = torch.load(last, weights_only=True)["state"]
    assert (before["step"], after["step"]) == (260, 280) and after["seconds"] > before["seconds"]


def test_a_gradient_reaches_encoder_head_and_rules(recipe: dict[str, Any]) -> None:
    from tokenizers import Tokenizer

    from trainer.encoder.bank import Rules, Texts
    net = GuardNet(recipe["base"], SHAPE)
    items, _, _, book = corpus(recipe)
    rules = Rules(net, Texts(net.encoder, Tokenizer.from_file(str(Path(recipe["base"]) / "tokenizer.json"))), book)
    rules.use(items)
    rules.refresh()
    batch = build(items[:6], rules, None)
    for p in net.head.parameters():
        torch.nn.init.normal_(p, std=0.1)
    logits = forward(net, rules, batch, [int(r) for r in batch.rows])
    loss_of(logits, batch).backward()
    assert by_item(logits, batch).shape[0] == 6
    upper = [p for p in net.encoder.layers[1].parameters() if p.requires_grad]
    assert upper and all(p.grad is not None for p in upper) and sum(p.grad.abs().sum() for p in upper) > 0
    assert all(p.grad is None for p in net.encoder.layers[0].parameters())
    assert all(p.grad is not None for p in net.head.parameters())


def test_merged_runs_are_the_mean_of_their_weights(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["train"]["steps"] = 4
    one = train(recipe)
    two = train(recipe | {"seed": 4, "out": str(tmp_path / "two")})
    nets = [torch.load(p, weights_only=True)["net"] for p in (one, two)]
    with pytest.raises(ValueError, match=r"narrow.pt: not the same network"):
        torch.save({"net": {"a": torch.zeros(1)}, "state": {}}, tmp_path / "narrow.pt")
        merge(one.parent, [tmp_path / "narrow.pt"])
    got = torch.load(merge(one.parent, [two]), weights_only=True)
    key = "head.score1.weight"
    assert not torch.equal(nets[0][key], nets[1][key])
    assert torch.allclose(got["net"][key], (nets[0][key] + nets[1][key]) / 2)
    assert got["state"]["runs"] == 2 and (one.parent / "alone.pt").exists()


def test_a_further_round_begins_with_the_weights_of_the_one_before(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["train"]["steps"] = 4
    one = train(recipe)
    more = {**recipe["train"], "begin": str(one), "lr": 0.0, "head_lr": 0.0}
    two = train(recipe | {"out": str(tmp_path / "two"), "train": more})
    first, second = (torch.load(p, weights_only=True) for p in (one, two))
    assert all(torch.equal(first["net"][k], second["net"][k]) for k in first["net"])
    assert second["state"]["step"] == 4
    torch.save({"net": {"a": torch.zeros(1)}, "state": {}}, tmp_path / "narrow.pt")
    more["begin"] = str(tmp_path / "narrow.pt")
    with pytest.raises(ValueError, match=r"narrow.pt: not the network of this recipe"):
        train(recipe | {"out": str(tmp_path / "three"), "train": more})
