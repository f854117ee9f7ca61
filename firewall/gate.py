"""The release gate: pure bookkeeping of what may leave. No policies, no JSON, no clock inside.

Theory. Upstream's answer is a sequence of frames. The *mark* of a frame is the number of characters of judged text
that have arrived up to and including it, over all channels in arrival order; the end of the answer counts as one
more character. A *question* is about everything so far and is named by the mark it was asked at. A *clearance* `k`
says: a verdict has seen the first k characters and vouches for them. A frame may leave when its mark is covered,
all frames before it have left, and no tool call is half-way through at the point where we would stop.

    state        push(frame)   question()        clear(k)              refuse()   close()
    -----------  ------------  ----------------  --------------------  ---------  ---------------------
    open, idle   hold          mark -> asked     -                     -> shut    the end counts as 1
    open, asked  hold          None              release; -> idle      -> shut    the end counts as 1
    closed       (an error)    mark (whole)      release; all -> done  -> shut    -
    shut         drop          None              nothing               -          -
    done         (an error)    None              nothing               nothing    -

Laws (tests/laws/test_gate.py), for any frames, any cutting, any order of answers:
1 what left is a prefix of what came, plus at most one ending of ours; 2 no frame with mark m leaves before a
clearance k >= m; 3 if all is cleared, output equals input; 4 cutting the input differently changes timing only;
5 after a refusal, nothing; 6 no answer, no release; 7 held bytes are counted, and `full` asks the reader to stop.

Nothing leaves before the first clearance, not even frames without words: until then a refusal can still be a
proper HTTP answer. `rolling` asks whenever no question is open and new characters came; `whole` asks once, at the
end; `watch` releases at once and asks like `rolling` (monitoring, never called blocking).

Refused: one queue per channel (a prefix per channel is not a prefix of the bytes), locks and tasks (the caller is
one event loop), asking again about what was already asked (a guard that is unsure must see more first).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from firewall.wire.frame import Frame

Release = Literal["rolling", "whole", "watch"]
NOTHING: tuple[Frame, ...] = ()


class Gate:
    """Holds frames until they are cleared.

    Args:
        release: `rolling`, `whole` or `watch`.
        limit: bytes held above which `full` is True and reading upstream must stop.
    """

    __slots__ = ("_asked", "_held", "after", "asking", "cleared", "closed", "held", "limit", "mark", "release", "shut")

    def __init__(self, release: Release = "rolling", limit: int = 262_144) -> None:
        self.release, self.limit = release, limit
        self._held: deque[tuple[int, Frame]] = deque()
        self._asked = 0             # the mark of the last question
        self.asking = False         # a question is open
        self.mark = 0               # characters so far
        self.cleared = -1           # the highest clearance; -1: none yet, so that nothing leaves unasked
        self.held = 0               # bytes held
        self.after: object = None   # what the client has seen open
        self.closed = False         # nothing more will come
        self.shut = False           # refused

    @property
    def full(self) -> bool:
        return self.held > self.limit

    @property
    def done(self) -> bool:
        """Everything came and everything left."""
        return self.closed and not self._held and not self.shut

    def push(self, frame: Frame) -> None:
        """Takes the next frame of the answer."""
        if self.shut:
            return
        if self.closed:
            raise ValueError("a frame after the end")
        for _, text in frame.pieces:
            self.mark += len(text)
        if frame.last:
            self.mark += 1
        self._held.append((self.mark, frame))
        self.held += len(frame.raw)

    def close(self) -> None:
        """Nothing more will come. The end counts as one more character, so that the last verdict is on the whole."""
        if not self.closed and not self.shut:
            self.closed = True
            self.mark += 1

    def question(self) -> int | None:
        """The mark to ask about now, or None. Opens the question: answer it with `clear` or `refuse`."""
        if self.asking or self.shut or self.mark <= self._asked:
            return None
        if self.release == "whole" and not self.closed:
            return None
        self.asking, self._asked = True, self.mark
        return self.mark

    def clear(self, mark: int) -> Sequence[Frame]:
        """Answers the open question: the first `mark` characters are vouched for. Returns the frames that leave."""
        self.asking = False
        if mark > self.cleared:
            self.cleared = mark
        return self.leave()

    def leave(self) -> Sequence[Frame]:
        """The frames that may leave now, in order; they are gone from the gate."""
        held = self._held
        if self.shut or not held:
            return NOTHING
        if self.release == "watch":
            count = len(held)
        else:
            covered = self.cleared
            if held[0][0] > covered or covered < 0:
                return NOTHING
            if len(held) == 1 and not held[0][1].pending:       # a fast guard and a word at a time
                frame = held.popleft()[1]
                self.held, self.after = 0, frame.after
                return (frame,)
            if held[-1][0] <= covered and (not held[-1][1].pending or (self.closed and covered >= self.mark)):
                count = len(held)       # the common case: everything leaves
            else:
                count = seen = 0
                for mark, frame in held:
                    if mark > covered:
                        break
                    seen += 1
                    if not frame.pending:
                        count = seen
        out = []
        for _ in range(count):
            frame = held.popleft()[1]
            self.held -= len(frame.raw)
            self.after = frame.after
            out.append(frame)
        return out

    def refuse(self) -> None:
        """Final: what is held is dropped and nothing leaves any more."""
        self.shut, self.asking = True, False
        self._held.clear()
        self.held = 0

    def rewrite(self, change: Callable[[Frame], Frame]) -> None:
        """Replaces held frames (redaction). Marks stay: they count what was judged, not what is written."""
        frames = [(mark, change(frame)) for mark, frame in self._held]
        self._held = deque(frames)
        self.held = sum(len(frame.raw) for _, frame in frames)
