"""A case too long for a model becomes several that fit. Every character on trial stands in at least one of them.

Never truncation: a guard that reads the first N tokens and says `safe` has judged nothing (AISVS 2.1.4; a semantic
router answered `fine, confidence 1.000` past 512 tokens). Neighbouring windows overlap, so that what violates at a cut
is whole in one of them. Context that is not on trial (the request, when an answer is judged) is shortened from its
old end: it was judged itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from firewall.case import Case, Message, Said
from firewall.errors import GuardDown

OVERLAP = 256           # characters
LEAST = 64              # the smallest window worth asking about, in characters


def windows(case: Case, fits: Callable[[Case], bool], most: int = 256) -> list[Case]:
    """Cases that fit, covering all that is on trial. Raises `GuardDown("guard_too_long")` if none can be made to fit.

    Args:
        fits: whether a case fits into one question, answer included.
        most: windows at most; a longer text is refused rather than judged in part.
    """
    if fits(case):
        return [case]
    if case.direction == "output":
        case = _shortened(case, fits)
        if fits(case):
            return [case]
    runs: Sequence[Message | Said] = case.messages if case.direction == "input" else case.answer
    total = sum(len(r.text) for r in runs)
    out: list[Case] = []
    start, step = 0, total
    while True:
        if len(out) == most:
            raise GuardDown("guard_too_long", f"the text needs more than {most} windows")
        end = min(total, start + step)
        while not fits(part := _part(case, runs, start, end, end == total)):
            if end - start <= LEAST:
                raise GuardDown("guard_too_long", "the policies leave no room for the text in the guard's context")
            end = start + max(LEAST, (end - start) * 3 // 4)
        out.append(part)
        if end == total:
            return out
        step = (end - start) * 9 // 8           # about what fitted, a little more
        start = max(start + 1, end - min(OVERLAP, (end - start) // 4))


def _part(case: Case, runs: Sequence[Message | Said], start: int, end: int, last: bool) -> Case:
    kept = []
    at = 0
    for run in runs:
        a, b = max(0, start - at), min(len(run.text), end - at)
        if a < b:
            kept.append(run._replace(text=run.text[a:b]))
        at += len(run.text)
    whole = case.whole or not last
    if case.direction == "input":
        return case._replace(messages=tuple(kept), whole=whole)             # type: ignore[arg-type]
    return case._replace(answer=tuple(kept), whole=whole)                   # type: ignore[arg-type]


def _shortened(case: Case, fits: Callable[[Case], bool]) -> Case:
    """The request cut down to what leaves the answer most of the room: its newest turns, then the end of the newest."""
    messages = case.messages
    probe = (Said("probe", "".join(s.text for s in case.answer)[:2000]),)
    while messages and not fits(case._replace(messages=messages, answer=probe)):
        first = messages[0]
        if len(messages) > 1:
            messages = messages[1:]
        elif len(first.text) > LEAST:
            messages = (first._replace(text=first.text[-len(first.text) // 2:]),)
        else:
            messages = ()
    return case._replace(messages=messages)
