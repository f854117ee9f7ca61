"""What was removed from a checkout is not in the next build of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[1] / "setup.py"


@pytest.mark.skipif(not SETUP.is_file(), reason="not a checkout")
def test_a_build_begins_empty(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    shutil.copy(SETUP, tmp_path)
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = x\n[options]\npackages = p\n[options.package_data]\np = *.md\n")
    (tmp_path / "p").mkdir()
    built = tmp_path / "build" / "lib" / "p"
    built.mkdir(parents=True)
    for file in (tmp_path / "p" / "__init__.py", tmp_path / "p" / "new.md", built / "gone.py", built / "old.md"):
        file.write_text("")
    subprocess.run([sys.executable, "setup.py", "-q", "build"], cwd=tmp_path, check=True, timeout=60)
    assert {f.name for f in built.iterdir()} == {"__init__.py", "new.md"}
