"""The network: a shared encoder, and a head that scores every slot of every policy against one content.

Content and rule sentences go through the same pre-trained encoder, each once. A rule is kept as two vectors (mean of
its token states, and its first token's state), so that serving can cache it. The head then sees, for each slot of each
policy, plain similarities (`cos(rule, content)`, the highest token similarity) and a cross-attention of the slot over
the content's tokens; slots of the same policy look at each other (an allowed line can speak against a rule), and a
`violates` slot gets a logit.

The head starts *at* the plain cosine: everything learned is added through layers that are zero at first. An untrained
cosine follows policies better (policy swap AUROC .755) than a fine-tune that starts without it; see docs/guards.md.

The lower layers of the encoder are frozen, and `lower` can be computed once per text and kept: a training step costs
only the upper layers.

Source: late interaction as in ColBERT (arXiv 2004.12832); gated residuals as in ReZero (arXiv 2003.04887).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROLES = 3
FEATURES = 7            # s_mean, s_max, allowed mean/max, scope mean/max, has an allowed slot
NONE = -0.2             # similarity reported where a policy has no slot of a role


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the head. `frozen` lower encoder layers are never trained."""

    hidden: int = 384
    width: int = 128
    heads: int = 4
    frozen: int = 3


class Head(nn.Module):
    """Similarities and cross-attention -> one logit per slot (meaningful for `violates` slots)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        h, d = shape.hidden, shape.width
        self.heads, self.width = shape.heads, d
        self.query = nn.Linear(2 * h, d)
        self.role = nn.Embedding(ROLES, d)
        self.way = nn.Embedding(2, d)                    # direction: 0 input, 1 output
        self.sims = nn.Linear(2, d)
        self.key, self.value, self.out = nn.Linear(h, d), nn.Linear(h, d), nn.Linear(d, d)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.peer = nn.Linear(d, 3 * d)
        self.peer_out = nn.Linear(d, d)
        self.ff1, self.ff2 = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
        self.topic = nn.Linear(h, d)
        self.score1, self.score2 = nn.Linear(3 * d, d), nn.Linear(d, 1)
        self.mix = nn.Linear(2 * h, FEATURES)            # rule-dependent weights of the plain similarities
        self.scale, self.bias = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(-3.0))
        for layer in (self.score2, self.mix):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("base", torch.tensor([1.0] + [0.0] * (FEATURES - 1)), persistent=False)

    def code(self, rules: Tensor) -> Tensor:
        """Pooled rules [N,2h] -> [N, d + FEATURES + h]: all that the head needs of a rule, cacheable by its text."""
        h = rules.shape[-1] // 2
        return torch.cat((self.query(rules), self.mix(rules), F.normalize(rules[:, :h], dim=-1)), -1)

    def forward(self, tokens: Tensor, mask: Tensor, judged: Tensor, way: Tensor, codes: Tensor, index: Tensor,
                role: Tensor) -> Tensor:
        """Scores every slot: logits [B,P,S].

        Args:
            tokens: [B,T,h] last states; `mask` and `judged` [B,T]: 1 = real, 1 = on trial (not context).
            way: [B] 0 input, 1 output.
            codes: [N, d + FEATURES + h] of the distinct rules.
            index: [B,P,S] row of `codes` for each slot (0 where padded); `role` [B,P,S], -1 = padded.
        """
        b, p, s = index.shape
        d, n = self.width, p * s
        live = role >= 0
        x, attention, mean, s_mean, s_max, mix = self._look(tokens, mask, judged, way, codes, index.reshape(b, n),
                                                            role.clamp(min=0).reshape(b, n))
        v = self.value(tokens).view(b, -1, self.heads, d // self.heads).transpose(1, 2)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(b, n, d))

        y = self.norm2(x).view(b * p, s, d)
        q, k, v = self.peer(y).view(b * p, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        logits = q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5
        among = (logits + (live.reshape(b * p, 1, 1, s).to(x.dtype) - 1.0) * 1e4).softmax(-1)
        x = x + self.peer_out((among @ v).transpose(1, 2).reshape(b, n, d))
        x = x + self.ff2(F.gelu(self.ff1(self.norm3(x))))

        topic = self.topic(mean).unsqueeze(1).expand(b, n, d)
        learned = self.score2(F.gelu(self.score1(torch.cat((x, topic, x * topic), -1)))).squeeze(-1)
        features = self._features(s_mean.view(b, p, s), s_max.view(b, p, s), role)
        plain = ((self.base + mix) * features.view(b, n, FEATURES)).sum(-1)
        return (self.scale * plain + self.bias + learned).view(b, p, s)

    def evidence(self, tokens: Tensor, mask: Tensor, judged: Tensor, way: Tensor, codes: Tensor) -> Tensor:
        """Attention over tokens [N,T] of `violates` slots with these codes [N,c], for one content (B = 1)."""
        flat = torch.arange(codes.shape[0]).unsqueeze(0)
        return self._look(tokens, mask, judged, way, codes, flat, torch.zeros_like(flat))[1].mean(1)[0]

    def _look(self, tokens: Tensor, mask: Tensor, judged: Tensor, way: Tensor, codes: Tensor, flat: Tensor,
              kind: Tensor) -> tuple[Tensor, ...]:
        """Each slot looks at the content: its state [B,n,d], attention [B,heads,n,T], and plain similarities."""
        (b, n), d = flat.shape, self.width
        weight = judged.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        unit = codes[:, d + FEATURES:]
        s_mean = torch.gather(F.normalize(mean, dim=-1) @ unit.T, 1, flat)
        near = F.normalize(tokens, dim=-1) @ unit.T + (judged.unsqueeze(-1).to(tokens.dtype) - 1.0) * 3.0
        s_max = torch.gather(near.amax(1), 1, flat)
        x = codes[:, :d][flat] + self.role(kind) + self.way(way).unsqueeze(1)
        x = x + self.sims(torch.stack((s_mean, s_max), -1))
        q = self.norm1(x).view(b, n, self.heads, -1).transpose(1, 2)
        k = self.key(tokens).view(b, -1, self.heads, d // self.heads).transpose(1, 2)
        logits = q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5
        attention = (logits + (mask[:, None, None, :].to(x.dtype) - 1.0) * 1e4).softmax(-1)
        return x, attention, mean, s_mean, s_max, codes[:, d:d + FEATURES][flat]

    @staticmethod
    def _features(s_mean: Tensor, s_max: Tensor, role: Tensor) -> Tensor:
        """[B,P,S] similarities -> [B,P,S,FEATURES]: a slot's own, and the best of its policy's other roles."""
        out = [s_mean, s_max]
        for r in (1, 2):
            has = role == r
            for sim in (s_mean, s_max):
                best = torch.where(has, sim, NONE).amax(-1, keepdim=True)
                out.append(best.expand_as(sim))
        out.append((role == 1).any(-1, keepdim=True).to(s_mean.dtype).expand_as(s_mean))
        return torch.stack(out, -1)


class Encoder(nn.Module):
    """A BERT-like encoder cut in two: `lower` (frozen, cacheable) and `upper` (trained)."""

    def __init__(self, path: str, frozen: int) -> None:
        super().__init__()
        from transformers import AutoModel

        self.bert = AutoModel.from_pretrained(path, attn_implementation="eager")
        self.frozen = frozen
        for module in self.bert.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.bert.pooler = None
        for part in (self.bert.embeddings, *self.bert.encoder.layer[:frozen]):
            part.requires_grad_(False)

    @property
    def layers(self) -> nn.ModuleList:
        return self.bert.encoder.layer

    @torch.no_grad()
    def lower(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """ids, types, mask [B,T] -> states [B,T,h] after the frozen layers."""
        x = self.bert.embeddings(input_ids=ids, token_type_ids=types)
        return run(self.layers[:self.frozen], x, mask)

    def upper(self, x: Tensor, mask: Tensor) -> Tensor:
        """States after the frozen layers -> last states [B,T,h]."""
        return run(self.layers[self.frozen:], x, mask)


class GuardNet(nn.Module):
    """Encoder and head together."""

    def __init__(self, path: str, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(path, shape.frozen)
        self.head = Head(shape)


def run(layers: nn.ModuleList, x: Tensor, mask: Tensor) -> Tensor:
    """Post-norm BERT layers, written out so that they export and run fast on a CPU."""
    bias = torch.where(mask[:, None, None, :] > 0, 0.0, -1e4).to(x.dtype)
    for layer in layers:
        own = layer.attention.self
        b, t, h = x.shape
        shape = (b, t, own.num_attention_heads, h // own.num_attention_heads)
        q, k, v = (f(x).view(shape).transpose(1, 2) for f in (own.query, own.key, own.value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(b, 1, t, t))
        x = layer.attention.output.LayerNorm(layer.attention.output.dense(y.transpose(1, 2).reshape(b, t, h)) + x)
        x = layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(x))) + x)
    return x


def pool(x: Tensor, mask: Tensor) -> Tensor:
    """Rule states [N,T,h] -> [N,2h]: mean over real tokens, and the first token's state."""
    w = mask.unsqueeze(-1).to(x.dtype)
    return torch.cat(((x * w).sum(1) / w.sum(1).clamp(min=1.0), x[:, 0]), -1)
