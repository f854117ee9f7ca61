"""Rows of ../shared/data/train and of trainer/examples -> items: one content, several policies, each with a label.

What makes the encoder read the policy is that one content stands under several policies whose labels differ, in one
step: swap pairs, allow-list against deny-list over the same topics, an allowed line that copies the violated rule,
a permissive policy. What keeps it calm is innocent text matched in form to violating text, under all shipped policies.

Rows without a policy are labelled against the shipped ones: by their category where it names a policy, else by "at
least one of these" (multiple-instance). Selection uses rows whose content hash falls into the held-out slice; contents,
not rows, are split, so that the two halves of a pair never part.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from firewall.guards.encoder.rules import ALLOWED, SCOPE, VIOLATES, Slot, segments
from firewall.guards.encoder.windows import context, plain, spaced, windows
from firewall.policy import Policy, load
from trainer.encoder.labels import (
    ASIDE,
    CATEGORY,
    CLINC,
    LLM,
    POLICY,
    UNION,
    certain,
    permissive,
    section,
    told,
    topics,
)

# GPTFuzz's answers were given to questions inside jailbreak templates, which its file leaves out: half get one back, so
# that how a question is framed says nothing about its answer.
FRAMED, FRAMES = "gptfuzz_responses_train", "inthewild_jailbreaks"


@dataclass(frozen=True, slots=True)
class Ask:
    """One policy put to a content. `rules`: the rules known to be violated (empty: some rule of the policy)."""

    policy: str
    label: int
    rules: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """`texts` are (window, context) pairs; `clean` are shipped policies it certainly does not violate; a non-empty
    `union` says that at least one of these shipped policies is violated."""

    source: str
    key: str
    texts: tuple[tuple[str, str], ...]
    way: int
    asks: tuple[Ask, ...] = ()
    clean: tuple[str, ...] = ()
    union: tuple[str, ...] = ()
    repeat: float = 1.0

    def held(self, share: float) -> bool:
        return int(self.key[:8], 16) / 0xFFFFFFFF < share


@dataclass
class Book:
    """Every policy that an ask may name -> its slots. Shipped policies by id, ad hoc ones by their text."""

    slots: dict[str, tuple[Slot, ...]] = field(default_factory=dict)
    shipped: tuple[str, ...] = ()
    enabled: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path) -> Book:
        everything = load(folder, enable=[p.stem for p in folder.glob("*.md") if p.stem != "README"])
        book = cls({p.id: segments(p) for p in everything})
        book.shipped = tuple(p.id for p in everything)
        book.enabled = tuple(p.id for p in load(folder))
        return book

    def adhoc(self, text: str) -> str:
        if text not in self.slots:
            self.slots[text] = segments(Policy.from_text("adhoc", text))
        return text

    def derived(self, base: str, mode: str) -> str:
        """A policy made from another: `covered` adds each rule as an allowed line."""
        name = f"{mode}: {base}"
        if name not in self.slots:
            rules = [s for s in self.slots[base] if s.role == VIOLATES]
            extra = [Slot(ALLOWED, f"{_bare(s.text)} is allowed here.") for s in rules]
            self.slots[name] = (*self.slots[base], *extra)
        return name


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of one `.jsonl` or `.jsonl.xz`. Raises ValueError naming file and line where one does not parse."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as e:
                raise ValueError(f"{path}:{number}: not JSON ({e.msg})") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: a row must be an object")
            yield row


def texts(content: str, prompt: str = "", limit: int = 2, rng: random.Random | None = None
          ) -> tuple[tuple[str, str], ...]:
    """Windows of a content as (window, context); at most `limit` of them: the first and random others."""
    cut = [spaced(plain(w.text)) for w in windows(content)]
    if len(cut) > limit:
        rest = range(1, len(cut))
        cut = [cut[0], *(cut[i] for i in sorted((rng or random.Random(0)).sample(rest, limit - 1)))]
    return tuple((t, context(prompt)) for t in cut)


def shared(data: Path, caps: dict[str, int], book: Book, seed: int, repeats: dict[str, float] | None = None,
           codes: dict[str, str] | None = None) -> list[Item]:
    """Items of ../shared/data/train, at most `caps[file]` contents a file (0 = leave out, absent = leave out), each
    seen `repeats[file]` times an epoch (once where absent). `codes`: row id -> which of the shipped policies an unsafe
    row violates (`labels`), where its source does not say."""
    out: list[Item] = []
    framing = rows(data / "train" / f"{FRAMES}.jsonl.xz") if FRAMES in caps else ()
    frames = [str(r["messages"][-1]["content"]) for r in framing]
    for name, cap in caps.items():
        rng = random.Random(f"{seed}/{name}")
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows(data / "train" / f"{name}.jsonl.xz"):
            if row["label"] in ("safe", "unsafe"):
                groups.setdefault(json.dumps(row["messages"]), []).append(row)
        keys = _balanced(groups, cap, rng)
        got = [item for k in keys if (item := _item(name, groups[k], book, rng, frames, codes or {})) is not None]
        times = (repeats or {}).get(name)
        out += [replace(item, repeat=times) for item in got] if times else got
    return out


def examples(folder: Path, book: Book, repeat: float, benign_share: float, repeats: dict[str, float] | None = None,
             prompts: dict[str, str] | None = None) -> tuple[list[Item], list[Item]]:
    """Our own examples -> (items, the part of the benign traffic kept for calibration). `repeats`: as in `shared`.

    An answer has its `prompt`, or the number in the `pool` of one of `prompts`.
    """
    out, kept = [], []
    for path in sorted(folder.glob("*.jsonl")):
        for row in rows(path):
            way = int(row["direction"] == "output")
            prompt = row.get("prompt") or (prompts or {}).get(str(row.get("pool")), "")
            calm = path.stem.startswith("benign")
            got = texts(row["text"], prompt if way else "", limit=8 if calm else 2 + way)
            if not got:
                continue
            key = hashlib.sha256(row["text"].encode()).hexdigest()
            if "expect" not in row:
                raise ValueError(f"{path}: a row says nothing of what it violates (`expect`): {sorted(row)}")
            policy, expect = row.get("policy"), tuple(row["expect"])
            hit = {r.split("/")[0] for r in expect}
            asks = [Ask(p, 1, tuple(r for r in expect if r.startswith(f"{p}/")), 1.5) for p in sorted(hit)
                    if p in book.slots]
            if policy in book.slots and policy not in hit:
                asks.append(Ask(policy, 0, weight=1.5))
            # what attacks the model may ask for anything at all: it says nothing about the other policies
            clean = () if hit & set(LLM) else tuple(p for p in certain(hit, book.shipped, way) if p != policy)
            item = Item(f"own/{path.stem}", key, got, way, tuple(asks), clean,
                        repeat=(repeats or {}).get(path.stem, repeat))
            if calm and int(key[8:16], 16) / 0xFFFFFFFF < benign_share:
                kept.append(item)
            else:
                out.append(item)
    return out, kept


def crossed(folder: Path, book: Book, repeat: float) -> list[Item]:
    """Our own texts under several custom policies each: rows {direction, text, prompt, asks: [[policy text, label]]}."""
    out = []
    for path in sorted(folder.glob("*.jsonl")):
        for row in rows(path):
            way = int(row["direction"] == "output")
            if got := texts(row["text"], row.get("prompt", "") if way else ""):
                asks = tuple(Ask(book.adhoc(policy), int(label)) for policy, label in row["asks"])
                out.append(Item("crossed", hashlib.sha256(row["text"].encode()).hexdigest(), got, way, asks,
                                repeat=repeat))
    return out


def embedded(items: list[Item], count: int, seed: int) -> list[Item]:
    """Short contents inside longer innocent text: what is violating stays so, what is innocent stays so.

    Without these a sentence in the middle of a page is drowned by the page. Half of the `count` items carry a
    violating sentence, half an innocent one of the same sources, so that length says nothing.
    """
    rng = random.Random(f"{seed}/embedded")
    pages = [t for i in items if i.source in ("benign_gpteacher", "own/benign") for t, _ in i.texts if len(t) > 120]
    short = [i for i in items if not i.way and (i.union or i.clean) and len(i.texts) == 1 and len(i.texts[0][0]) < 220]
    bad = [i for i in short if i.union or any(a.label == 1 for a in i.asks)]
    good = [i for i in short if i.source.startswith(("own/", "wildguard", "aegis")) and i.clean
            and not any(a.label == 1 for a in i.asks)]
    own = [i for i in bad if i.source.startswith("own/")]
    out = []
    for n in range(count):
        item = rng.choice(good if n % 2 else (own if rng.random() < 0.6 else bad))
        text = item.texts[0][0].strip()
        room = rng.randint(150, 500 - len(text)) if len(text) < 340 else 0
        page = " ".join(rng.choice(pages).split())
        at = rng.choice((0, room // 2, room))
        before, after = page[:at], page[at:room]
        joint = rng.choice((" ", "\n", "\n\n"))
        whole = joint.join(part for part in (before.rsplit(" ", 1)[0], text, after) if part.strip())
        key = hashlib.sha256(whole.encode()).hexdigest()
        out.append(replace(item, source="embedded", key=key, texts=((spaced(plain(whole))[:512], ""),), repeat=1.0))
    return out


def _item(name: str, group: list[dict[str, Any]], book: Book, rng: random.Random, frames: list[str],
          codes: dict[str, str]) -> Item | None:
    first = group[0]
    messages, way = first["messages"], int(first["task"] == "response")
    content = str(messages[-1]["content"] or "")
    prompt = next((str(m["content"] or "") for m in reversed(messages[:-1]) if m["role"] == "user"), "") if way else ""
    if frames and name == FRAMED and rng.random() < 0.5:
        prompt = f"{rng.choice(frames)}\n{prompt}"
    got = texts(content, prompt, limit=2 + way, rng=rng)       # what a long answer says may stand anywhere
    if not got:
        return None
    item = Item(name, hashlib.sha256(content.encode()).hexdigest(), got, way)
    unsafe = any(r["label"] == "unsafe" for r in group)
    if name == "clinc_topic_policy":
        return replace(item, asks=_clinc(group, book, rng), repeat=1.5)
    asks = [Ask(book.adhoc(r["policy"]), int(r["label"] == "unsafe")) for r in group if r["policy"]][:4]
    if asks:
        asks = _pairs(asks, book, rng)
    categories = {c for r in group for c in r["categories"]}
    if name == "polyguard_social" and len(group) == 1 and (near := section(categories)):
        asks.append(Ask(near, int(unsafe), weight=0.6 if unsafe else 0.8))
    if name in POLICY:                      # sources with their own policy that also speak about a shipped one
        known = POLICY[name](categories, unsafe)
        return replace(item, asks=(*asks, *(Ask(p, y) for p, y in known)))
    if first["policy"]:
        return replace(item, asks=tuple(asks))
    if not unsafe:
        skip = {"professional-advice", "misinformation", "personal-data", "secrets"}
        if name.startswith("benign"):
            skip = {"personal-data"}
        elif first.get("adversarial"):      # an innocent request in a jailbreak's frame
            skip.add("jailbreak")
        return replace(item, clean=tuple(p for p in book.shipped if p not in skip))
    if (code := codes.get(first["id"], "")) and not set(code) & ASIDE:
        hit, clean = told(code, book.shipped, way)
        return replace(item, asks=tuple(Ask(p, 1) for p in hit), clean=clean) if hit else None
    kinds = CATEGORY(name, categories)
    if code or kinds == ():
        return None
    if kinds and len(kinds) == 1:
        return replace(item, asks=(Ask(kinds[0], 1),))
    # a rule about how one asks would take every answer for itself: it is seen in all answers of such a source
    return replace(item, union=tuple(p for p in (kinds or UNION) if p in book.slots and not (way and p in LLM)))


def _pairs(asks: list[Ask], book: Book, rng: random.Random) -> list[Ask]:
    """Adds the same text under a policy that lets it pass: permissive, or with an allowed line that covers it."""
    hit = [a for a in asks if a.label]
    if hit and rng.random() < 0.25:
        asks = [*asks, Ask(book.derived(hit[0].policy, "covered"), 0, weight=0.7)]
    if hit and rng.random() < 0.1:
        asks = [*asks, Ask(book.adhoc(rng.choice(permissive)), 0, weight=0.5)]
    return asks


def _clinc(group: list[dict[str, Any]], book: Book, rng: random.Random) -> tuple[Ask, ...]:
    """One text under allow-lists and deny-lists of its own and of other topics."""
    asks = [Ask(book.adhoc(r["policy"]), int(r["label"] == "unsafe")) for r in group][:3]
    own = {c for r in group for c in r["categories"]} & set(CLINC)
    if len(own) == 1:
        mine = own.pop()
        other = rng.choice([d for d in CLINC if d != mine])
        asks += [Ask(book.adhoc(text), label) for text, label in topics(mine, other, rng)]
    return tuple(asks[:5])


def _balanced(groups: dict[str, list[dict[str, Any]]], cap: int, rng: random.Random) -> list[str]:
    """At most `cap` contents, half of them with an unsafe row where the source has enough."""
    keys = list(groups)
    rng.shuffle(keys)
    bad = [k for k in keys if any(r["label"] == "unsafe" for r in groups[k])]
    good = [k for k in keys if all(r["label"] == "safe" for r in groups[k])]
    if not bad or not good:
        return keys[:cap]
    half = cap // 2
    take = bad[:max(half, cap - len(good))] + good[:max(half, cap - len(bad))]
    return take[:cap] if len(take) > cap else take


def _bare(text: str) -> str:
    text = text.strip().rstrip(".")
    return text[7:].strip().capitalize() if text.lower().startswith("do not ") else text


def split(items: Iterable[Item], share: float) -> tuple[list[Item], list[Item]]:
    """(train, held out) by content hash."""
    train: list[Item] = []
    held: list[Item] = []
    for item in items:
        (held if item.held(share) else train).append(item)
    return train, held


__all__ = ["ALLOWED", "SCOPE", "VIOLATES", "Ask", "Book", "Item", "examples", "rows", "shared", "split", "texts"]
