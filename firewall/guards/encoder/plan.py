"""An active policy set, ready for the model: distinct rule codes, where each slot stands, and each rule's calibration.

A policy whose slots are exactly those it was calibrated with uses its own calibration; any other (edited, custom, ad
hoc) uses the general one. A policy longer than `GROUP` rules is given in several groups, each with its allowed lines,
and a sentence longer than the encoder reads at once takes several slots, so that no rule and no word is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firewall.guards.encoder.rules import ALLOWED, VIOLATES, Slot, segments
from firewall.policy import Policy

GROUP = 16
FLOOR = 0.5             # findings below both this and the policy's threshold are not reported


@dataclass(frozen=True, slots=True)
class Plan:
    """`index` and `role` [P,S] (role -1 = padded); the flat arrays have one entry for each `violates` slot."""

    codes: NDArray[np.float32]
    index: NDArray[np.int64]
    role: NDArray[np.int64]
    flat: NDArray[np.int64]             # positions of the violates slots in [P*S]
    rules: tuple[str, ...]              # rule id of each
    scale: NDArray[np.float32]          # [2, R] by direction
    shift: NDArray[np.float32]          # [2, R]
    report: NDArray[np.float32]         # [R] lowest score that is a finding
    threshold: NDArray[np.float32]      # [R] score that convicts
    wide: tuple[bool, ...]              # [R] evidence is widened to whole lines (what is redacted must cover it)


def digest(slots: Iterable[Slot]) -> str:
    """Names the words of a policy, whatever their order."""
    lines = sorted(f"{s.role}\t{s.rule}\t{s.text}" for s in slots)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def groups(slots: Sequence[Slot]) -> list[tuple[Slot, ...]]:
    """The slots of a policy in groups of at most `GROUP` rules; allowed and scope slots go with each group."""
    bad = [s for s in slots if s.role == VIOLATES]
    rest = [s for s in slots if s.role == ALLOWED] + [s for s in slots if s.role > ALLOWED]
    return [(*bad[i:i + GROUP], *rest) for i in range(0, len(bad), GROUP)]


def compile(policies: Sequence[Policy], encode: Callable[[str], NDArray[np.float32]], calibration: dict[str, Any],
            slots: Callable[[Policy], Sequence[Slot]] = segments) -> Plan:
    """Slots of all policies -> `Plan`. `encode` gives the cached code [c] of one sentence, or [n,c] of its n parts."""
    codes: list[NDArray[np.float32]] = []
    rows: dict[str, range] = {}         # of each sentence in `codes`
    cells: list[tuple[Policy, tuple[Slot, ...]]] = []
    for policy in policies:
        parts: list[Slot] = []
        for slot in sorted(slots(policy), key=lambda s: s.role):
            if slot.text not in rows:
                new = np.atleast_2d(encode(slot.text))
                rows[slot.text] = range(len(codes), len(codes) + len(new))
                codes += list(new)
            parts += [slot._replace(part=k) for k in range(len(rows[slot.text]))]
        cells += [(policy, group) for group in groups(parts)]
    size = max((len(g) for _, g in cells), default=1)
    index = np.zeros((max(len(cells), 1), size), np.int64)
    role = np.full_like(index, -1)
    flat, rules, scale, shift, report, threshold, wide = [], [], [], [], [], [], []
    for p, (policy, group) in enumerate(cells):
        ways = _calibration(policy, calibration)
        for s, slot in enumerate(group):
            index[p, s] = rows[slot.text][slot.part]
            role[p, s] = slot.role
            if slot.role == VIOLATES:
                flat.append(p * size + s)
                rules.append(slot.rule)
                scale.append([w[0] for w in ways])
                shift.append([w[1] for w in ways])
                threshold.append(policy.threshold)
                report.append(min(policy.threshold, FLOOR))
                wide.append(policy.action == "redact")
    table = np.stack(codes) if codes else np.zeros((1, 1), np.float32)
    return Plan(table, index[None], role[None], np.array(flat, np.int64), tuple(rules),
                np.array(scale, np.float32).T, np.array(shift, np.float32).T, np.array(report, np.float32),
                np.array(threshold, np.float32), tuple(wide))


def _calibration(policy: Policy, calibration: dict[str, Any]) -> list[tuple[float, float]]:
    """((scale, shift) for input, (scale, shift) for output): p = sigmoid(scale * logit + shift)."""
    own = calibration.get("policies", {}).get(policy.id)
    if own is None or own["slots"] != digest(segments(policy)):
        own = calibration
    general = calibration["default"]
    return [tuple(own.get(way, general)) for way in ("input", "output")]
