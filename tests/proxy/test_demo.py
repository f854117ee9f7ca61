"""The demo shows what it says: a pass, a block, and a stream that stops before the threat is out."""

from __future__ import annotations

import subprocess
import sys


def test_the_three_exchanges() -> None:
    done = subprocess.run([sys.executable, "-m", "firewall", "demo", "--once"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
    passed, blocked, stopped = done.stdout.split("╭")[1:]
    assert "sugar a matter of debate" in passed
    assert "HTTP 400 content_policy_violation" in blocked
    assert "Bring a cake" in stopped and "kill him" not in stopped
    assert "stopped here: finish_reason content_filter" in stopped
