"""A TOML recipe -> one frozen `Recipe`. Every option of a training run, at its default, with its unit.

The defaults are RSafe's exact settings (arXiv 2506.07736 and its public code): group 4, T 0.7, top_p 0.8, repetition
penalty 1.05, 32 prompts a step on-policy, lr 1e-7 constant, clip 0.2, no KL, gradient clip 1.0, token mean, prompts of
2,048 and answers of 512 tokens, 3 epochs. Refinements are options with names; none is on unless a recipe says so.

Reading reports every mistake at once, each with the nearest key that exists.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from firewall.errors import Mistakes
from trainer.tiny import SHAPES

Format = Literal["shared", "toxicchat", "aegis2", "beavertails", "pku-saferlhf", "or-bench", "wildguardmix", "examples"]


@dataclass(frozen=True, slots=True)
class Model:
    path: str = ""                  # a Hugging Face folder or name; empty: a new model of `shape`
    shape: str = "tiny"             # tiny 4M, small 8M, 30m, 60m, 0.5b, 1.5b, 7b (Qwen2 shapes)
    tokenizer: str = ""             # folder; empty: the model's own, or one made from the data
    vocab: int = 4096               # entries of a tokenizer made from the data
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    lora_rank: int = 0              # 0 trains every weight
    lora_alpha: int = 32
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    checkpointing: bool = False     # recompute activations in the backward pass


@dataclass(frozen=True, slots=True)
class Source:
    path: str = ""                  # a local file, or the name of a `datasets` data set
    format: Format = "shared"
    config: str = ""                # the data set's configuration, e.g. toxicchat0124
    split: str = "train"
    safe: int = -1                  # rows to take; -1 takes all
    unsafe: int = -1
    weak: bool = False              # labels known to be noisy: said in the report, left out of validation
    licence: str = ""               # where the rows do not carry one


@dataclass(frozen=True, slots=True)
class Data:
    sources: tuple[Source, ...] = ()
    policies: str = "names"         # general harm rows: names (RSafe's 18), sentences, or a folder of policy files
    crowd: int = 18                 # at most so many policies beside the row's own; smaller makes shorter prompts
    refuse: tuple[str, ...] = ()    # test files: rows that overlap them are refused
    minhash: float = 0.7            # Jaccard similarity of 5-word shingles that counts as the same text
    validation: float = 0.03        # share kept aside, by hash of the content
    balance: float = 0.0            # most unequal class share allowed, e.g. 0.6; 0 leaves the classes alone
    longest: int = 20000            # characters of the words on trial; longer rows are dropped


@dataclass(frozen=True, slots=True)
class Pairs:
    share: float = 0.0              # share of unsafe rows that become a group present/absent/permissive/exception
    shuffle: bool = True            # order of policies and rules
    rename: float = 0.0             # share of rows whose ids are renamed
    reword: float = 0.0             # share of rows whose rules are worded otherwise
    partial: float = 0.0            # share of answers that are also cut at a random mark
    injection: float = 0.0          # share of rows that also come with an order to the guard inside


@dataclass(frozen=True, slots=True)
class Sft:
    on: bool = False
    traces: Literal["built", "sampled"] = "built"   # sampled: rejection sampling from `model.path`
    samples: int = 4                # tries a row for sampled traces
    snap: float = 0.0               # share of rows taught without a thought, for depth snap
    corpus: float = 0.0             # epochs of plain language modelling on the rows' text before the traces
    epochs: float = 1.0
    batch: int = 32                 # sequences a step, over all processes
    micro: int = 8                  # sequences a forward pass
    lr: float = 1e-5
    warmup: int = 20                # steps
    schedule: Literal["constant", "cosine"] = "cosine"
    longest: int = 2560             # tokens of prompt and answer
    prompt_loss: float = 0.0        # weight of the prompt's tokens in the loss
    minutes: float = 0.0            # time for this stage; its steps are cut to fit, by the pace of the first; 0 no limit


@dataclass(frozen=True, slots=True)
class Reward:
    accuracy: float = 0.9
    format: float = 0.1
    strict: bool = False            # one think, one box, nothing after, think not empty; else RSafe's lenient reading
    cited: float = 0.0              # weight of citing the violated rule, taken from accuracy's weight
    overlong: int = 0               # DAPO soft penalty over the last so many tokens before the limit; 0 none


@dataclass(frozen=True, slots=True)
class Grpo:
    on: bool = True
    group: int = 4                  # answers a prompt
    prompts: int = 32               # prompts a step, over all processes
    temperature: float = 0.7
    top_p: float = 0.8
    repetition: float = 1.05
    longest_prompt: int = 2048      # tokens; rows with longer prompts are dropped
    longest_answer: int = 512
    epochs: float = 3.0
    steps: int = 0                  # 0: by epochs
    lr: float = 1e-7
    warmup: int = 0
    clip_low: float = 0.2
    clip_high: float = 0.2          # clip-higher (DAPO): 0.28
    clip_gradient: float = 1.0
    kl: float = 0.0                 # weight of the k3 estimate against the first policy; 0 none
    scale: Literal["std", "none"] = "std"                   # Dr.GRPO: none
    mean: Literal["token", "sequence", "drgrpo"] = "token"
    updates: int = 1                # optimiser steps a batch of answers; 1 is fully on-policy
    micro: int = 8                  # prompts a forward pass
    dynamic: bool = False           # DAPO: draw again until every group has both good and bad answers
    dynamic_tries: int = 4
    verdict_mask: bool = False      # only the tokens after the thought carry loss
    share_prefix: bool = False      # compute each prompt once for its group (CPU, small models)
    patience: int = 50              # steps in a row without any signal before training stops
    minutes: float = 0.0            # time for this stage, after which it ends where it is; 0 no limit
    tolerance: float = 0.0          # |log-prob of rollout - training|; 0: 1e-3 in float32, 0.35 in bfloat16


@dataclass(frozen=True, slots=True)
class Engine:
    zero: Literal[0, 1, 2, 3] = 2
    offload: bool = False           # optimiser state in CPU memory
    weight_decay: float = 0.0
    beta2: float = 0.999
    rollout: Literal["transformers", "vllm"] = "transformers"
    vllm_memory: float = 0.35       # share of the GPU for vLLM beside the trainer; on CPU: GiB of KV cache
    vllm_tensor: int = 1
    threads: int = 0                # torch threads; 0 leaves them alone
    save_every: int = 50            # steps
    keep: int = 2                   # checkpoints


@dataclass(frozen=True, slots=True)
class Eval:
    files: tuple[str, ...] = ()
    limit: int = 0                  # rows a file; 0 all
    every: int = 0                  # steps between looks at the validation rows; 0 never
    depth: Literal["snap", "reason"] = "reason"


# options that may change between the parts of one stage: its length, memory, rounding, what it looks at, when it gives up
ASIDE = {f"{table}.{key}" for table, keys in {
    "model": "checkpointing", "sft": "on corpus epochs minutes micro",
    "grpo": "on epochs steps minutes micro share_prefix patience tolerance",
    "engine": "offload rollout vllm_memory vllm_tensor threads save_every keep"}.items() for key in keys.split()}


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str = "guard"
    seed: int = 0
    out: str = "runs/guard"
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    pairs: Pairs = field(default_factory=Pairs)
    sft: Sft = field(default_factory=Sft)
    grpo: Grpo = field(default_factory=Grpo)
    reward: Reward = field(default_factory=Reward)
    engine: Engine = field(default_factory=Engine)
    eval: Eval = field(default_factory=Eval)

    @property
    def digest(self) -> str:
        """16 hex digits over every option but `out`: the same digest trains the same guard from the same rows."""
        text = json.dumps(dataclasses.asdict(self) | {"out": ""}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def rows(self) -> str:
        """16 hex digits over what makes the rows of `trainer data`: data, pairs and seed."""
        text = json.dumps([dataclasses.asdict(self.data), dataclasses.asdict(self.pairs), self.seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def steps(self, stage: str) -> dict[str, Any]:
        """The options that a step of a stage depends on, by name: not its length, nor how it fits into the machine."""
        sft = stage in ("sft", "corpus")
        told: dict[str, Any] = {"data, pairs or seed": self.rows}
        for name in ("model", "engine", *(("sft",) if sft else ("grpo", "reward"))):
            table = dataclasses.asdict(getattr(self, name))
            told |= {f"{name}.{k}": list(v) if isinstance(v, tuple) else v for k, v in table.items()
                     if f"{name}.{k}" not in ASIDE}
        return told


def load(path: str | Path, settings: typing.Iterable[str] = ()) -> Recipe:
    """Reads a recipe file; `settings` are `key=value` words such as `grpo.group=8`, and win over the file.

    Raises:
        Mistakes: all mistakes of the file and the settings.
    """
    try:
        tree = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise Mistakes([f"{path}: cannot be read ({type(e).__name__})"]) from e
    except tomllib.TOMLDecodeError as e:
        raise Mistakes([f"{path}: not TOML: {e}"]) from e
    wrong: list[str] = []
    for word in settings:
        key, eq, value = word.partition("=")
        if not eq:
            wrong.append(f"--set {word}: write key=value")
            continue
        *parents, last = key.strip().split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                wrong.append(f"--set {word}: {parent!r} is not a table")
                node = {}
        node[last] = _value(value)
    recipe = _table(Recipe, tree, "", str(path), wrong)
    if recipe is not None:
        wrong += [f"{path}: {line}" for line in _sense(recipe)]
    if wrong:
        raise Mistakes(wrong)
    return recipe


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _table(kind: type, tree: Any, at: str, where: str, wrong: list[str]) -> Any:
    if not isinstance(tree, dict):
        wrong.append(f"{where}: {at or 'the recipe'} must be a table")
        return None
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{at}.{key}" if at else key
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            wrong.append(f"{where}: unknown key {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
            continue
        before = len(wrong)
        made = _convert(hints[key], value, name, where, wrong)
        if len(wrong) == before:
            values[key] = made
    return kind(**values)


def _convert(hint: Any, value: Any, name: str, where: str, wrong: list[str]) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _table(typing.cast(type, hint), value, name, where, wrong)
    if origin is tuple:
        if not isinstance(value, list):
            wrong.append(f"{where}: {name} must be a list")
            return ()
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, v, f"{name}[{i}]", where, wrong) for i, v in enumerate(value))
    if origin in (typing.Literal, types.UnionType):
        choices = typing.get_args(hint)
        if value not in choices or isinstance(value, bool):
            near = difflib.get_close_matches(str(value), map(str, choices), 1)
            wrong.append(f"{where}: {name} must be one of {', '.join(map(str, choices))}"
                         + (f"; did you mean {near[0]!r}?" if near else ""))
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        wrong.append(f"{where}: {name} must be {'true or false' if hint is bool else hint.__name__}, not {value!r}")
    return value


def _sense(r: Recipe) -> list[str]:
    """What types cannot say."""
    rules = [
        (r.grpo.group >= 2, "grpo.group must be at least 2: one answer has nothing to be compared with"),
        *((value >= 1, f"{name} must be at least 1") for name, value in (
            ("sft.batch", r.sft.batch), ("sft.micro", r.sft.micro), ("grpo.prompts", r.grpo.prompts),
            ("grpo.micro", r.grpo.micro), ("engine.save_every", r.engine.save_every), ("sft.samples", r.sft.samples),
            ("engine.vllm_tensor", r.engine.vllm_tensor), ("grpo.longest_answer", r.grpo.longest_answer))),
        (r.engine.vllm_tensor < 2 or r.engine.rollout != "vllm" or int(os.environ.get("WORLD_SIZE", "1")) < 2,
         "engine.vllm_tensor must be 1 where several processes train: each has an engine and prompts of its own"),
        (r.model.lora_rank >= 0, "model.lora_rank must not be negative"),
        (bool(r.model.path) or r.model.shape in SHAPES, f"model.shape must be one of {', '.join(SHAPES)}"),
        (r.grpo.micro < 1 or r.grpo.prompts % r.grpo.micro == 0 or r.grpo.micro > r.grpo.prompts,
         "grpo.micro should divide grpo.prompts"),
        (0 < r.grpo.top_p <= 1, "grpo.top_p must be in (0, 1]"),
        (r.grpo.temperature > 0, "grpo.temperature must be positive: greedy answers are all the same"),
        (0 <= r.grpo.clip_low < 1 and r.grpo.clip_high >= 0, "grpo.clip_low must be in [0, 1), clip_high not negative"),
        (r.grpo.kl >= 0, "grpo.kl must not be negative"),
        (0 <= r.reward.cited <= r.reward.accuracy, "reward.cited is taken from reward.accuracy and cannot exceed it"),
        (0 <= r.reward.overlong < r.grpo.longest_answer, "reward.overlong must be shorter than grpo.longest_answer"),
        (r.data.balance == 0 or 0.5 <= r.data.balance < 1, "data.balance must be 0 or in [0.5, 1)"),
        (0 <= r.data.validation < 1, "data.validation must be a share"),
        (not (r.model.checkpointing and r.grpo.share_prefix), "grpo.share_prefix needs model.checkpointing = false"),
        (r.sft.traces == "built" or bool(r.model.path), "sft.traces = sampled needs model.path"),
        (not r.engine.offload or r.engine.zero > 0, "engine.offload needs engine.zero of 1, 2 or 3"),
        (r.grpo.updates >= 1, "grpo.updates must be at least 1"),
        (len({Path(f).name.split(".")[0] for f in r.eval.files}) == len(r.eval.files),
         "eval.files must have different names before the first dot: their figures and copies are kept by it"),
    ]
    rules += [(0 <= getattr(r.pairs, f.name) <= 1, f"pairs.{f.name} must be a share in [0, 1]")
              for f in dataclasses.fields(r.pairs) if f.name != "shuffle"]
    return [text for good, text in rules if not good]
