"""The embedded guard calls nobody: onnxruntime's own telemetry is off before that library is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, time, pathlib
sys.path.insert(0, {root!r})
from firewall.guards.encoder.engine import Engine
from firewall.guards.encoder.runtime import ASSETS
Engine(ASSETS).code("Do not talk about bridges.")
time.sleep(0.3)
"""


def test_nothing_is_kept_or_sent_about_its_use(tmp_path: Path) -> None:
    """Telemetry begins with a device id and a store of events under the home folder."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))} | {"HOME": str(tmp_path)}
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(root=root)], env=clean, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
