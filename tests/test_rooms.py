"""The house stays easy to see: what the proxy loads, how long files are, what is never committed."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

HEAVY = ("torch", "vllm", "transformers", "deepspeed", "trainer", "benchmarks")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout


def test_serving_loads_no_model_library():
    loaded = python("import sys, firewall.proxy.serve, firewall.proxy.demo, firewall.guards.encoder;"
                    f"print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_the_core_imports_without_any_event_loop():
    loaded = python("import sys, firewall.template, firewall.gate, firewall.exchange, firewall.wire.dialects;"
                    "print([m for m in ('asyncio', 'aiohttp', 'uvloop') if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_no_file_is_longer_than_four_hundred_lines():
    long = {str(path.relative_to(ROOT)): count for room in ("firewall", "trainer", "benchmarks")
            for path in (ROOT / room).rglob("*.py") if (count := path.read_text().count("\n")) > 400}
    assert not long


def test_no_room_is_called_utils():
    names = {path.stem for room in ("firewall", "trainer", "benchmarks") for path in (ROOT / room).rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
