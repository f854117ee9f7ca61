"""The house stays easy to see: what the proxy loads, how long files are, what is never committed."""

from __future__ import annotations

import re
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


def room(lines: list[str], name: str) -> list[str]:
    """The lines under `name/` in the picture: the one that begins with it, and those further in."""
    at = next((i for i, line in enumerate(lines) if line.lstrip().startswith(f"{name}/")), len(lines))
    deep = len(lines[at]) - len(lines[at].lstrip()) if at < len(lines) else 0
    end = next((i for i in range(at + 1, len(lines)) if len(lines[i]) - len(lines[i].lstrip()) <= deep), len(lines))
    return lines[at:end]


def test_every_module_has_its_place_in_the_picture_of_the_rooms():
    picture = (ROOT / "docs" / "architecture.md").read_text().partition("## The rooms")[2].split("```")[1].splitlines()
    missing = []
    for path in sorted((ROOT / "firewall").rglob("*.py")):
        *rooms, name = path.relative_to(ROOT).with_suffix("").parts
        lines = picture
        for part in rooms:
            lines = room(lines, part)
        if not lines or name != "__init__" and name not in re.findall(r"\w+", "\n".join(lines)):
            missing.append("/".join((*rooms, name)))
    assert not missing, f"name them in docs/architecture.md, The rooms: {missing}"


def test_every_metric_and_log_line_is_explained():
    told = (ROOT / "docs" / "operating.md").read_text()
    code = "".join(path.read_text() for path in sorted((ROOT / "firewall").rglob("*.py")))
    names = re.findall(r'"(firewall_[a-z_]+)",', (ROOT / "firewall" / "proxy" / "metrics.py").read_text())
    names += re.findall(r'(?:get_logger\(\)|\blog)\.(?:info|warning|error)\("([a-z_]+)"', code)
    assert len(names) > 25 and not [name for name in names if f"`{name}`" not in told]
