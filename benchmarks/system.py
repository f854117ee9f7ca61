"""Processes under test: started, pinned, measured, ended. The firewall is always the real one: `python -m firewall`."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil


class NotStarted(Exception):
    """A process under test did not come up; the message holds its last lines."""


ALIVE: set[Process] = set()


@atexit.register
def _end() -> None:
    """An interrupt while something starts leaves nothing behind."""
    for process in list(ALIVE):
        process.stop()


class Process:
    """A child process: `cpu()` and `rss()` over it and its children, `stop()`, the tail of what it says.

    Args:
        core: the one core it and its children may use; None leaves it free.
    """

    def __init__(self, command: Sequence[str], *, core: int | None = None, env: Mapping[str, str] | None = None,
                 cwd: str | None = None) -> None:
        self.said: list[str] = []
        pin = ["taskset", "-c", str(core)] if core is not None else []
        self.child = subprocess.Popen([*pin, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, cwd=cwd, text=True,
                                      errors="replace")
        self.pid, self.program = self.child.pid, Path(command[0]).name
        ALIVE.add(self)
        self.idle = 0           # resident bytes before any load; see `settled`
        self._heard = threading.Condition()
        self._ears = threading.Thread(target=self._listen, daemon=True)
        self._ears.start()

    def _listen(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with self._heard:
                self.said = [*self.said[-200:], line.rstrip()]
                self._heard.notify_all()
        with self._heard:
            self._heard.notify_all()

    def wait_for(self, word: str, seconds: float = 60.0) -> str:
        """The first line that holds `word`. Raises `NotStarted`."""
        end = time.monotonic() + seconds
        with self._heard:
            while True:
                if found := next((line for line in self.said if word in line), None):
                    return found
                if self.child.poll() is not None or time.monotonic() > end:
                    raise NotStarted(f"{' '.join(self.child.args[:6])}: no {word!r}\n" + "\n".join(self.said[-8:]))
                self._heard.wait(0.1)

    def cpu(self) -> float:
        """CPU seconds used so far, children included."""
        return sum(cpu_of(p.pid) for p in self.family())

    def rss(self) -> int:
        """Resident bytes, children included."""
        return sum(p.memory_info().rss for p in self.family())

    def settled(self) -> None:
        """Call once it serves: takes the memory it has before any load."""
        self.idle = self.rss()

    def family(self) -> list[psutil.Process]:
        try:
            one = psutil.Process(self.pid)
            return [one, *one.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        ALIVE.discard(self)
        family = self.family()
        for p in family:
            try:
                p.terminate()
            except psutil.NoSuchProcess:
                pass
        _, alive = psutil.wait_procs(family, timeout=3)
        for p in alive:
            p.kill()
        self.child.wait(timeout=5)
        self._ears.join(2)
        if self.child.stdout is not None and not self._ears.is_alive():
            self.child.stdout.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def cpu_of(pid: int) -> float:
    """Seconds on CPU: nanoseconds of every thread's schedstat where the kernel has it, else clock ticks."""
    try:
        total = 0
        for task in os.scandir(f"/proc/{pid}/task"):
            total += int(Path(task.path, "schedstat").read_bytes().split()[0])
        return total / 1e9
    except (OSError, IndexError, ValueError):
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return times.user + times.system


class Firewall(Process):
    """The real proxy in front of `upstream`, with its records in a file of ours.

    Args:
        guard: as `--guard` takes it; `scripted` is the one that costs nothing and finds nothing.
        policies: folder; None means the shipped ones.
        settings: section -> key -> value, on top of the measuring ones (no verdict memory, long deadlines: a verdict
            that comes late is slow here, not missing).
    """

    def __init__(self, upstream: str, guard: str = "embedded", policies: Path | None = None, *,
                 settings: Mapping[str, Mapping[str, Any]] | None = None, core: int | None = None, workers: int = 1,
                 config: Path | None = None) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bench-")
        here = Path(self.folder.name)
        self.file = here / "records.jsonl"
        values: dict[str, dict[str, Any]] = {
            "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "workers": workers, "drain-wait": 0.0,
                       "drain-timeout": 1.0},
            "upstream": {"url": upstream},
            "policies": {"reload": 3600.0, **({"folder": str(policies)} if policies else {})},
            "guard": {"kind": guard, "memory": 0, "deadline": 60.0, "concurrency": 16, "queue": 16},
            "records": {"file": str(self.file)}}
        if config is not None:
            import tomllib
            for name, section in tomllib.loads(config.read_text("utf-8")).items():
                if name == "guard":
                    values["guard"] |= section
                    if (beside := config.absolute().parent / section.get("model", "")).exists() and "model" in section:
                        values["guard"]["model"] = str(beside)      # relative to that file
        for name, section in (settings or {}).items():
            values.setdefault(name, {}).update(section)
        path = here / "firewall.toml"
        path.write_text("\n".join(f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in section.items())
                                  for name, section in values.items()))
        super().__init__([sys.executable, "-m", "firewall", "--config", str(path)], core=core,
                         env={k: "" for k in os.environ if k.startswith("FIREWALL_")})
        try:
            line = self.wait_for('"serving"', 120)
            for _ in range(workers - 1):
                self.wait_for(f'"worker":{workers - 1}', 60)
        except NotStarted:
            self.stop()
            raise
        self.port = int(json.loads(line)["url"].rpartition(":")[2])
        self._read = 0

    def records(self) -> list[dict[str, Any]]:
        """The records since the last call (worker 0)."""
        with self.file.open("rb") as f:
            f.seek(self._read)
            data = f.read()
        data = data[:data.rfind(b"\n") + 1]
        self._read += len(data)
        return [json.loads(line) for line in data.splitlines()]

    def stop(self) -> None:
        super().stop()
        self.folder.cleanup()
