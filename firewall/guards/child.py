"""One vLLM server as a child process: started, watched, restarted; shared by all workers of this machine.

The child listens on a Unix socket in a private folder (mode 0700) named after the model and the arguments. Whoever
holds the lock in that folder is its keeper; other workers only connect, and one of them becomes the keeper when the
lock is free. A child that ends before it ever answered is a mistake of the configuration, told in one sentence; one
that ends later is restarted, at first after a second, then after ever longer pauses. A child that lives but stops
answering its health check is ended and restarted too. One-token questions have a short way into it (fastlane.py).

Its words go nowhere: vLLM may quote requests when it fails. The last lines are kept in memory to recognise why it
ended, and shown only for a child that never got a request. It inherits no environment variable that looks like a key.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from firewall.errors import Mistakes
from firewall.process import die_with_parent

CAUSES = (
    (r"No module named '?vllm", "vLLM is not installed here: pip install 'llm-firewall[gpu]', or set guard.kind to"
                                " transformers or remote:URL"),
    (r"out of memory|No available memory|not enough memory|memory.{0,40}(?:less than|larger than|exceed)|"
     r"Cannot allocate|KV cache is needed",
     "the engine found too little memory: lower --gpu-memory-utilization or --max-model-len in guard.engine"
     " (CPU: VLLM_CPU_KVCACHE_SPACE)"),
    (r"Device string must not be empty|Failed to infer device|libcuda|No CUDA|CUDA driver|no NVIDIA",
     "vLLM found no CUDA device: run on a GPU machine, install its CPU build, or set guard.kind to transformers"),
    (r"unrecognized arguments?: (?P<what>[-\w =]{1,80})", "guard.engine: vLLM does not know the argument"),
    (r"max_model_len|maximum model length|max seq len", "guard.engine: --max-model-len does not suit this model"),
    (r"Address already in use", "the engine's address is taken: end the other engine or set another TMPDIR"),
    (r"torchvision::nms", "this vLLM build does not fit the installed torch: install the versions of extra [gpu]"),
)
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.I)
HEALTH, STALE = 2.0, 5      # seconds between health checks; failures in a row that mean it hangs


class Child:
    """Args:
        model: the checkpoint's folder.
        arguments: more of vLLM's command line, last (so that they win).
        patience: seconds a start may take.
        python: the interpreter that has vLLM.
        folder: where socket, lock and salt live (default: a private folder under the temporary one).
    """

    def __init__(self, model: Path, arguments: Sequence[str] = (), *, patience: float = 600.0,
                 python: str = sys.executable, folder: Path | None = None, backoff: float = 1.0) -> None:
        self.model, self.arguments, self.patience, self.python = model, tuple(arguments), patience, python
        name = hashlib.sha256(repr((str(model.resolve()), self.arguments)).encode()).hexdigest()[:12]
        self.folder = folder or Path(tempfile.gettempdir()) / f"llm-firewall-{os.getuid()}" / name
        self.socket = self.folder / "engine"
        self.backoff, self.restarts, self.served = backoff, 0, False
        self.process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=400)
        self._lock: int | None = None
        self._watch: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._healthy = False
        self._born = 0.0

    @property
    def url(self) -> str:
        return f"unix:{self.socket}"

    def command(self) -> list[str]:
        return [self.python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.model),
                "--served-model-name", "guard", "--uds", str(self.socket), "--enable-prefix-caching",
                "--enable-prompt-tokens-details", "--scheduling-policy", "priority", "--max-num-queued-reqs", "1024",
                "--generation-config", "vllm", "--disable-uvicorn-access-log", "--uvicorn-log-level", "warning",
                "--middleware", "fastlane.FastLane", *self.arguments]

    def salt(self) -> bytes:
        """A random key that all workers of this engine share."""
        path = self._private() / "salt"
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, secrets.token_bytes(32))
            os.close(fd)
        return path.read_bytes()

    async def start(self) -> None:
        """Returns once the engine answers. Raises `Mistakes` with the cause when it cannot."""
        if not self.model.is_dir():
            raise Mistakes([f"guard.model: no folder {self.model}; give the folder of a checkpoint"])
        if self.python == sys.executable and importlib.util.find_spec("vllm") is None:
            raise Mistakes([f"guard.kind: {CAUSES[0][1]}"])
        self._private()
        end = time.monotonic() + self.patience
        while not await self._health():
            if self.process is None and self._take_lock():
                await self._spawn()
            if self.process is not None and self.process.returncode is not None:
                cause = self.cause()
                await self.close()
                raise Mistakes([f"guard.kind: vllm: {cause}"])
            if time.monotonic() > end:
                await self.close()
                raise Mistakes([f"guard.kind: vllm: not ready after {self.patience:g} s; raise the patience, or look at"
                                " the machine"])
            await asyncio.sleep(0.2)
        self._healthy = self.served = True
        self._watch = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        await self._end()
        if self._session:
            await self._session.close()
            self._session = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._healthy = False

    def ready(self) -> str:
        return "" if self._healthy else f"the vLLM engine is restarting (try {self.restarts})"

    def cause(self) -> str:
        """Why the child ended, in one sentence. Its own last error is added only if it never served."""
        text = "\n".join(self._lines)
        for pattern, sentence in CAUSES:
            if m := re.search(pattern, text, re.I):
                what = m.groupdict().get("what")
                return f"{sentence} {what.strip()!r}" if what else sentence
        errors = [x for x in self._lines if re.search(r"error|exception", x, re.I)]
        last = (errors or list(self._lines) or [""])[-1].strip()[:300]
        status = self.process.returncode if self.process else None
        return f"the engine ended with status {status}" + (f": {last}" if last and not self.served else "")

    async def _keep(self) -> None:
        """Watches, and restarts with growing pauses. Followers watch too, and take over a free lock."""
        pause, missed = self.backoff, 0
        while True:
            await asyncio.sleep(min(HEALTH, pause))
            if await self._health():
                self._healthy, missed, pause = True, 0, self.backoff
                continue
            missed += 1
            alive = self.process is not None and self.process.returncode is None
            loading = not self._healthy and time.monotonic() - self._born < self.patience
            if alive and (loading or (self._healthy and missed < STALE)):
                continue
            self._healthy = False
            if not self._take_lock():
                continue                                # another worker keeps it
            await self._end()
            await asyncio.sleep(pause)
            pause, missed = min(30.0, pause * 2), 0
            self.restarts += 1
            await self._spawn()

    async def _spawn(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._lines.clear()
        self._born = time.monotonic()
        keep = {k: v for k, v in os.environ.items() if not SECRET.search(k)}
        environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"} | keep | {
            "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.folder), keep.get("PYTHONPATH"))))}
        # a copy, alone in its folder: the engine's Python may be another one, without the firewall
        shutil.copyfile(Path(__file__).with_name("fastlane.py"), self._private() / "fastlane.py")
        self.process = await asyncio.create_subprocess_exec(
            *self.command(), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env=environment, start_new_session=True, preexec_fn=die_with_parent)
        self._reader = asyncio.create_task(self._read(self.process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Keeps the last lines, and never lets the pipe fill up."""
        assert process.stdout
        rest = b""
        while data := await process.stdout.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-4096:]
            self._lines.extend(x[:1000].decode("utf-8", "replace") for x in lines)
        await process.wait()

    async def _end(self) -> None:
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            for how, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, how)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), seconds)
                    break
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)      # workers of the engine that outlived it
        if self._reader:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None

    async def _health(self) -> bool:
        if not self.socket.exists():
            return False
        if self._session is None:
            self._session = aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(str(self.socket)),
                                                  timeout=aiohttp.ClientTimeout(total=HEALTH))
        try:
            async with self._session.get("/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def _take_lock(self) -> bool:
        if self._lock is not None:
            return True
        fd = os.open(self._private() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._lock = fd
        return True

    def _private(self) -> Path:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = self.folder.stat()
        if state.st_uid != os.getuid() or state.st_mode & 0o077:
            raise Mistakes([f"{self.folder}: must belong to this user alone (mode 0700); remove it or set TMPDIR"])
        return self.folder
