"""The flame graph shows work, and no thread that waits for some."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.flame import flame
from benchmarks.rows import BadRows


@pytest.mark.skipif(not (shutil.which("py-spy") or (Path(sys.executable).parent / "py-spy").exists()), reason="no py-spy")
async def test_no_idle_thread_is_shown(tmp_path: Path) -> None:
    try:
        await flame("exchange", tmp_path / "f.svg", 2.0)
    except BadRows as error:
        pytest.skip(str(error))         # ptrace is not allowed everywhere
    shown = (tmp_path / "f.svg").read_text("utf-8")
    assert "App.exchange" in shown and "concurrent/futures/thread.py" not in shown
