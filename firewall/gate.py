"""The release gate: pure bookkeeping of what may leave. No policies, no JSON, no clock inside.

Theory. Upstream's answer is a sequence of frames. The *mark* of a frame is the number of characters of judged text
that have arrived up to and including it, over all channels in arrival order; the end of the answer counts as one
more character. A *question* is about everything so far and is named by the mark it was asked at. A *clearance* `k`
says: a verdict has seen the first k characters and vouches for them. A frame may leave when its mark is covered,
all frames before it have left, and no tool call is half-way through at the point where we would stop: the frames of
a call, and the one that completes it, leave together.

The end is the frame that says so (`last`), or else the end of the body. Only a question put as `whole` can cover it
and what follows it. As long as nothing but frames without words follows, that question can be put as soon as the end
has come; words behind the end show that it was none, and wait for the body's.

    state        push(frame)   question()        clear(k)              refuse()   close()
    -----------  ------------  ----------------  --------------------  ---------  -------------------------
    open, idle   hold          mark -> asked     -                     -> shut    it counts as 1, or the end
    open, asked  hold          None              release; -> idle      -> shut    it counts as 1, or the end
    closed       (an error)    mark (whole)      release; all -> done  -> shut    -
    shut         drop          None              nothing               -          -
    done         (an error)    None              nothing               nothing    -

Laws (tests/laws/test_gate.py), for any frames, any cutting, any order of answers:
1 what left is a prefix of what came, plus at most one ending of ours; 2 no frame with mark m leaves before a
clearance k >= m; 3 if all is cleared, output equals input; 4 cutting the input differently changes timing only;
5 after a refusal, nothing; 6 no answer, no release; 7 held bytes are counted, `full` asks the reader to stop while a
question is open, and `over` says that an answer (or call) is too large to be held, the same for every cut; 8 the end
and what follows it leave after a question put as whole.

Nothing leaves before the first clearance, not even frames without words: until then a refusal can still be a
proper HTTP answer. `rolling` asks whenever no question is open and new characters came; `whole` asks at the end;
`watch` releases at once and asks like `rolling` (monitoring, never called blocking).

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
COST = 128          # bytes that a frame costs besides its own: else a flood of empty ones would be held for nothing


class Gate:
    """Holds frames until they are cleared.

    Args:
        release: `rolling`, `whole` or `watch`.
        limit: bytes held (`COST` more for each frame) above which `full` is True: reading upstream must stop while a
            question is open.
        most: bytes that must be held together (a tool call; all, where the release is `whole`) above which `over`.
    """

    __slots__ = ("_asked", "_call", "_end", "_held", "_open", "after", "asking", "cleared", "closed", "held", "limit",
                 "mark", "most", "over", "release", "shut", "whole")

    def __init__(self, release: Release = "rolling", limit: int = 262_144, most: int = 16_777_216) -> None:
        self.release, self.limit, self.most = release, limit, most
        self._held: deque[tuple[int, Sequence[Frame]]] = deque()    # what leaves together, and its mark
        self._call: list[Frame] | None = [] if release == "whole" else None     # what is under way and leaves together
        self._open = 0              # its bytes
        self._asked = 0             # the mark of the last question
        self._end = -1              # the mark of the frame that ends the answer; -1: not seen
        self.whole = True           # the last question was put as whole
        self.mark = 0               # characters so far
        self.cleared = -1           # the highest clearance; -1: none yet, so that nothing leaves unasked
        self.held = 0               # bytes held
        self.after: object = None   # what the client has seen open
        # a question is open; nothing more will come; refused; what must be held together is more than may be held
        self.asking = self.closed = self.shut = self.over = False

    @property
    def full(self) -> bool:
        return self.held > self.limit

    @property
    def done(self) -> bool:
        """Everything came and everything left."""
        return self.closed and not self._held and not self.shut

    @property
    def answered(self) -> bool:
        """No question is open, and there is nothing new to ask about."""
        return not self.asking and self.mark <= self._asked

    def push(self, frame: Frame, mark: int = -1) -> None:
        """Takes the next frame of the answer. `mark`: the characters with it, where they have been counted already."""
        if self.shut:
            return
        if self.closed:
            raise ValueError("a frame after the end")
        if mark < 0:
            mark = self.mark + sum([len(text) for _, text in frame.pieces])
        if frame.last and self._end < 0:
            mark += 1
            self._end = mark
        self.mark = mark
        size = len(frame.raw) + COST
        self.held += size
        call = self._call
        if call is None:
            if not frame.pending or self.release == "watch":
                self._held.append((mark, (frame,)))
                return
            call = self._call = []
        call.append(frame)
        self._open += size
        self.over = self.over or self._open > self.most
        if not frame.pending and (self.release != "whole" or self._end >= 0):
            self._settle()

    def close(self) -> None:
        """Nothing more will come. Without a frame that ended the answer this counts as one more character, so that
        the last verdict is on the whole."""
        if not self.closed and not self.shut:
            self.closed = True
            if self.mark != self._end:
                self.mark += 1
            if self._call:
                self._settle()

    def question(self) -> int | None:
        """The mark to ask about now, or None; `whole` says how. Opens the question: answer with `clear` or `refuse`."""
        mark = self.mark
        if self.asking or mark <= self._asked or self.shut:
            return None
        whole = self.closed or mark == self._end
        if not whole and self.release == "whole":
            return None
        self.asking, self.whole, self._asked = True, whole, mark
        return mark

    def clear(self, mark: int) -> Sequence[Frame]:
        """Answers the open question: the first `mark` characters are vouched for (all, where it was put as whole: unsure
        about a whole answer is no verdict). Returns the frames that leave."""
        self.asking = False
        if mark >= self._end >= 0 and not self.whole:
            mark = self._end - 1            # the end is covered by a verdict on the whole only
        if mark > self.cleared:
            self.cleared = mark
        return self.leave()

    def leave(self) -> Sequence[Frame]:
        """The frames that may leave now, in order; they are gone from the gate."""
        held = self._held
        if not held:
            return NOTHING
        covered = self.cleared if self.release != "watch" else self.mark
        mark, out = held[0]
        if mark > covered:
            return NOTHING
        held.popleft()
        if not held and len(out) == 1:      # a fast guard and a word at a time
            frame = out[0]
            self.held -= len(frame.raw) + COST
            self.after = frame.after
            return out
        if held and held[0][0] <= covered:
            out = list(out)
            while held and held[0][0] <= covered:
                out += held.popleft()[1]
        self.held -= sum([len(frame.raw) + COST for frame in out])
        self.after = out[-1].after
        return out

    def refuse(self) -> None:
        """Final: what is held is dropped and nothing leaves any more."""
        self.shut, self.asking = True, False
        self._held.clear()
        self._call, self._open, self.held = None, 0, 0

    def rewrite(self, change: Callable[[Frame], Frame]) -> None:
        """Replaces held frames (redaction); all or none. Marks stay: they count what was judged, not what is written."""
        held = [(mark, [change(frame) for frame in frames]) for mark, frames in self._held]
        call = [change(frame) for frame in self._call or ()]
        self._held = deque(held)
        self.held = sum([len(frame.raw) + COST for _, frames in held for frame in frames])
        if self._call is not None:
            self._call = call
            self.held += sum([len(frame.raw) + COST for frame in call])

    def _settle(self) -> None:
        """A call is complete (or the body is): its frames can leave, together."""
        self._held.append((self.mark, self._call or ()))
        self._call, self._open = None, 0
