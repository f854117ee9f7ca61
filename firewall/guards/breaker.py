"""Circuit breaker: after enough failures in a row nobody waits for a guard that is down.

    closed --(failures in a row)--> open --(cooldown)--> half-open --(one probe: success)--> closed
                                     ^                        |
                                     +------(failure)---------+

Pure: the clock is passed in. A probe that is cancelled proves nothing and lets the next one try.
"""

from __future__ import annotations


class Breaker:
    """Args: `failures` in a row that open it, `cooldown` seconds until a probe may pass."""

    def __init__(self, failures: int = 5, cooldown: float = 5.0) -> None:
        self.failures, self.cooldown = failures, cooldown
        self.row = 0
        self.until = 0.0
        self.probing = False

    def state(self, now: float) -> str:
        if self.row < self.failures:
            return "closed"
        return "open" if now < self.until else "half-open"

    def admit(self, now: float) -> float:
        """0.0: go on (and report back); else the seconds to wait. In half-open, one call passes as the probe."""
        if self.row < self.failures:
            return 0.0
        if now < self.until:
            return self.until - now
        if self.probing:
            return max(0.1, min(1.0, self.cooldown))
        self.probing = True
        return 0.0

    def succeeded(self) -> None:
        self.row, self.probing = 0, False

    def failed(self, now: float) -> None:
        self.row += 1
        self.probing = False
        if self.row >= self.failures:
            self.until = now + self.cooldown

    def dropped(self) -> None:
        """The call ended without telling anything about the guard."""
        self.probing = False
