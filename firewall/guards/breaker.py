"""Circuit breaker: after enough failures in a row nobody waits for a guard that is down.

    closed --(failures in a row)--> open --(cooldown)--> half-open --(one probe: success)--> closed
                                     ^                        |
                                     +------(failure)---------+

Pure: the clock is passed in. A probe that is cancelled proves nothing and lets the next one try. A slow question (one
whose time its own length may eat) is a probe that can only prove that the guard is back: it goes beside the other.
"""

from __future__ import annotations


class Breaker:
    """Args: `failures` in a row that open it, `cooldown` seconds until a probe may pass."""

    def __init__(self, failures: int = 5, cooldown: float = 5.0) -> None:
        self.failures, self.cooldown = failures, cooldown
        self.row = 0
        self.until = 0.0
        self.probing: set[bool] = set()      # which kinds of probe are on their way: slow or not

    def state(self, now: float) -> str:
        if self.row < self.failures:
            return "closed"
        return "open" if now < self.until else "half-open"

    def admit(self, now: float, slow: bool = False) -> float:
        """0.0: go on (and report back); else the seconds to wait. In half-open, one call of a kind passes as the probe."""
        if self.row < self.failures:
            return 0.0
        if now < self.until:
            return self.until - now
        if slow in self.probing:
            return max(0.1, min(1.0, self.cooldown))
        self.probing.add(slow)
        return 0.0

    def succeeded(self) -> None:
        self.row = 0
        self.probing.clear()

    def failed(self, now: float, slow: bool = False) -> None:
        self.row += 1
        self.probing.discard(slow)
        if self.row >= self.failures:
            self.until = now + self.cooldown

    def dropped(self, slow: bool = False) -> None:
        """The call ended without telling anything about the guard."""
        self.probing.discard(slow)
