"""Rows -> examples: a `Case` as it is served, whether it is unsafe, and which rules it violates.

The prepared set is a file of JSON lines, so that what a run saw can be read afterwards, and a report of what was taken
and refused. Order is a pure function of (examples, seed, epoch): a resumed run sees the rows it would have seen.
Examples that share a `group` (policy pairs) are never split over two batches.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firewall.case import Case, Message, Said
from firewall.errors import Mistakes
from firewall.policy import Policy, PolicySet, Rule


@dataclass(frozen=True, slots=True)
class Example:
    """One case and its truth.

    Args:
        rules: ids a verdict may cite. Empty when safe, and when the row does not say which rule is violated.
        group: examples of one group stay in one batch.
        stands: on a partial answer, the character where the violation is complete; -1 unknown.
    """

    id: str
    case: Case
    unsafe: bool
    rules: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""
    group: str = ""
    weak: bool = False
    stands: int = -1
    kind: str = "row"

    def __post_init__(self) -> None:
        if not self.case.policies.rule_ids:
            raise ValueError("no policy: an empty set forbids nothing, so the row teaches nothing")
        if self.rules and not self.unsafe:
            raise ValueError("a safe row cannot violate a rule")
        if unknown := set(self.rules) - set(self.case.policies.rule_ids):
            raise ValueError(f"violates rules that no policy has: {', '.join(sorted(unknown))}")

    @property
    def words(self) -> str:
        """The words on trial, joined."""
        return "\n".join(text for _, text in self.case.trial())


def key(text: str) -> str:
    """A stable name of a text: lower case, letters and digits only, hashed."""
    plain = "".join(c for c in text.lower() if c.isalnum())
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def split(examples: Iterable[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(train, validation) by hash of the content: a policy pair never straddles it. Weak labels stay in train."""
    train, held = [], []
    for e in examples:
        inside = int(key(e.words), 16) % 10_000 < share * 10_000
        (held if inside and not e.weak else train).append(e)
    return train, held


def order(examples: Sequence[Example], seed: int, epoch: int) -> list[list[int]]:
    """Groups of indices in the order of one epoch."""
    groups: dict[str, list[int]] = {}
    for i, e in enumerate(examples):
        groups.setdefault(e.group or f"#{i}", []).append(i)
    names = list(groups)
    random.Random(f"{seed}/{epoch}").shuffle(names)
    return [groups[n] for n in names]


def batches(examples: Sequence[Example], size: int, seed: int, start: int = 0) -> Iterator[list[Example]]:
    """Endless batches of exactly `size` examples from batch number `start` on; a batch never splits a group.

    A group that no longer fits waits for the next batch. Raises ValueError when there are fewer than `size`.
    """
    if len(examples) < size:
        raise ValueError(f"{len(examples)} examples do not fill one batch of {size}")
    number, epoch, waiting, tries = 0, 0, [], 0
    queue: list[list[int]] = []
    while True:
        batch: list[int] = []
        waiting, queue = [], waiting + queue
        while len(batch) < size:
            if not queue:
                tries += 1
                if tries > 3 and not batch:
                    raise ValueError(f"no group fits a batch of {size}")
                queue, epoch = order(examples, seed, epoch), epoch + 1
            group = queue.pop(0)[:size]
            if len(batch) + len(group) <= size:
                batch += group
            else:
                waiting.append(group)
                if len(waiting) > 64:       # only large groups left: top up with the largest part that fits
                    batch += waiting.pop()[:size - len(batch)]
        tries = 0
        if number >= start:
            yield [examples[i] for i in batch]
        number += 1


def pack(example: Example) -> dict[str, Any]:
    """An example as JSON values."""
    row = {f.name: getattr(example, f.name) for f in dataclasses.fields(example) if f.name != "case"}
    case = example.case
    policies = [{f.name: getattr(p, f.name) for f in dataclasses.fields(p) if getattr(p, f.name) != f.default
                 and f.name != "rules"} | {"rules": [list(dataclasses.astuple(r)) for r in p.rules]}
                for p in case.policies]
    return row | {"rules": list(example.rules), "direction": case.direction, "whole": case.whole,
                  "policies": policies, "boundary": case.boundary,
                  "messages": [list(m) for m in case.messages], "answer": [list(s) for s in case.answer]}


def unpack(row: dict[str, Any]) -> Example:
    """The inverse of `pack`."""
    row = dict(row)
    listed = []
    for p in row.pop("policies"):
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in p.items() if k != "rules"}
        listed.append(Policy(**values, rules=tuple(Rule(*r) for r in p["rules"])))
    case = Case(row.pop("direction"), PolicySet(tuple(listed)), tuple(Message(*m) for m in row.pop("messages")),
                tuple(Said(*s) for s in row.pop("answer")), row.pop("whole"), boundary=row.pop("boundary"))
    return Example(**row | {"case": case, "rules": tuple(row["rules"])})


def write(path: Path, examples: Iterable[Example]) -> None:
    """Writes JSON lines; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as out:
        for e in examples:
            out.write(json.dumps(pack(e), ensure_ascii=True) + "\n")
    part.replace(path)


def read(path: Path) -> list[Example]:
    """Reads what `write` wrote. Raises `Mistakes` naming file and line."""
    out = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                out.append(unpack(json.loads(line)))
            except (ValueError, KeyError, TypeError) as e:
                raise Mistakes([f"{path}:{number}: not a prepared example: {e}"]) from e
    if not out:
        raise Mistakes([f"{path}: no examples"])
    return out
