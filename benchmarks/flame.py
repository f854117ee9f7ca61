"""`flame`: where the data plane's time goes, as a flame graph (py-spy, Apache-2.0/MIT, an outside program).

The real firewall with the zero-cost guard is put under one of the loads of `speed` while py-spy samples it: whoever holds
the GIL, as a worker thread that waits for its next task looks busy otherwise.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.flood import flood, streams, whole
from benchmarks.rows import BadRows
from benchmarks.system import Firewall, Process

LOADS = ("exchange", "stream")


async def flame(load: str, svg: Path, seconds: float = 8.0) -> None:
    """Writes the SVG. Raises `BadRows` when py-spy is missing or cannot attach."""
    beside = Path(sys.executable).parent / "py-spy"
    program = str(beside) if beside.is_file() else shutil.which("py-spy")
    if program is None:
        raise BadRows("flame: py-spy is not installed (pip install py-spy)")
    loop = asyncio.get_running_loop()
    with Process([sys.executable, "-m", "benchmarks.upstream"]) as upstream:
        port = int(upstream.wait_for("", 20))
        with await loop.run_in_executor(None, lambda: Firewall(f"http://127.0.0.1:{port}", "scripted")) as firewall:
            await flood(firewall.port, "/v1/chat/completions", whole(), 300, 16)
            spy = subprocess.Popen([program, "record", "-p", str(firewall.pid), "-d", str(int(seconds)), "-r", "250",
                                    "--gil", "-f", "flamegraph", "-o", str(svg)], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
            await asyncio.sleep(0.5)
            if load == "exchange":
                busy = asyncio.create_task(flood(firewall.port, "/v1/chat/completions", whole(), 10 ** 6, 16))
                await loop.run_in_executor(None, spy.wait)
                busy.cancel()
                await asyncio.wait([busy])
            else:
                await streams(firewall.port, 200, firewall, seconds=seconds)
                await loop.run_in_executor(None, spy.wait)
    if spy.returncode:
        assert spy.stdout is not None
        raise BadRows(f"flame: py-spy: {spy.stdout.read().decode(errors='replace').strip().splitlines()[-1]}")
    text = svg.read_text("utf-8")
    title = "A whole exchange" if load == "exchange" else "A streamed token"
    text = re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\1{title}: where the firewall's time goes", text)
    svg.write_text(text, "utf-8")
