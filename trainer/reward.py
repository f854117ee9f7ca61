"""What an answer is worth. RSafe's rule: 0.9 for the right verdict and 0.1 for the form, nothing without the form.

The answer is understood by `firewall.verdict.read`, the same function that serves. RSafe's own reading is laxer (an
empty thought passes, the last of several boxes wins, text after the box passes): `strict = false` reproduces it by
tidying the answer before `read` sees it, so that there is one reader and the laxness is written down in one place.
Refinements (reference: DAPO, SingGuard, GSPR): strict form, a share for citing the violated rule, soft overlong
penalty, each off by default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from firewall.verdict import BOX, CLOSE, OPEN, Answer, Unreadable, read
from trainer.data import Example
from trainer.recipe import Reward

_BOXES = re.compile(re.escape(BOX) + r"([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Grade:
    """`total` is the reward; `accuracy`, `format` and `cited` are 0 or 1; `overlong` is in [-1, 0]."""

    total: float
    accuracy: float = 0.0
    format: float = 0.0
    cited: float = 0.0
    overlong: float = 0.0


def grade(text: str, example: Example, options: Reward = Reward(), length: int = 0, limit: int = 0) -> Grade:  # noqa: B008
    """Grades one answer.

    Args:
        text: the whole answer, from `<think>` on, without the end-of-turn token.
        length, limit: tokens of the answer and the most it may have, for the overlong penalty.
    """
    late = overlong(length, limit, options.overlong)
    try:
        answer = understood(text, example, options.strict)
    except Unreadable:
        return Grade(late, overlong=late)
    right = float(answer.safe == (not example.unsafe))
    cited = float(bool(right) and (answer.safe or not example.rules or set(answer.rules) <= set(example.rules)))
    total = (options.accuracy - options.cited) * right + options.cited * cited + options.format + late
    return Grade(total, right, 1.0, cited, late)


def understood(text: str, example: Example, strict: bool = True) -> Answer:
    """Reads one answer to one example. Raises `Unreadable`."""
    ids = example.case.policies.rule_ids
    return read(text if strict else loosened(text, ids), ids)


def loosened(text: str, ids: tuple[str, ...]) -> str:
    """RSafe's lax form made strict: last box wins, what follows it is dropped, an unnamed or unknown rule is the first.

    Raises:
        Unreadable: no thought opened and closed at the start, or no box after it.
    """
    text = text.strip()
    think, close, rest = text.removeprefix(OPEN).partition(CLOSE)
    boxes = _BOXES.findall(rest)
    if not text.startswith(OPEN) or not close or not boxes or not ids:
        raise Unreadable("no thought followed by a box")
    inside = boxes[-1].strip()
    if inside.startswith("unsafe"):
        named = sorted({r.strip() for r in inside[len("unsafe"):].lstrip(":").split(",")} & set(ids))
        inside = "unsafe: " + ", ".join(named or ids[:1])
    for token in (OPEN, CLOSE, BOX):
        think = think.replace(token, " ")
    return f"{OPEN}{think.strip() or '-'}{CLOSE}{BOX}{inside}}}"


def overlong(length: int, limit: int, buffer: int) -> float:
    """DAPO's soft penalty (arXiv 2503.14476, eq. 13): 0 until `limit - buffer`, then linear to -1 at `limit`."""
    if not buffer or not limit:
        return 0.0
    return -min(1.0, max(0.0, (length - (limit - buffer)) / buffer))
