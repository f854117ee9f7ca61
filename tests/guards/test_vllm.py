"""The supervised engine: against a scripted child (fast) and against a real vLLM (marker vllm)."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from firewall.errors import GuardDown, Mistakes
from firewall.guards.child import CAUSES, Child
from firewall.guards.vllm import VllmGuard

from . import tiny
from .cases import asked

# a child that listens where vLLM would; `--say WORDS` makes it print them and end instead
FAKE = """
import asyncio, json, os, sys
from aiohttp import web
args = dict(zip(sys.argv[1:], sys.argv[2:]))
if "--say" in args:
    print(args["--say"], file=sys.stderr); sys.exit(3)
print("secret environment:", [k for k in os.environ if "KEY" in k])
async def answer(request):
    if request.path == "/v1/models":
        return web.json_response({"data": [{"id": "guard", "max_model_len": 2048}]})
    if request.path == "/die":
        os._exit(9)
    if request.path.startswith("/firewall/"):
        return web.Response(status=404)
    if request.method == "POST":
        return web.json_response({"choices": [{"text": "safe", "finish_reason": "length",
            "logprobs": {"top_logprobs": [{"safe": -0.1, "unsafe": -3.0}]}}], "usage": {"prompt_tokens": os.getpid()}})
    return web.Response()
async def main():
    runner = web.ServerRunner(web.Server(answer)); await runner.setup()
    await web.UnixSite(runner, args["--uds"]).start()
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.fixture
def folder() -> Any:
    """Short, because a socket's path may have 107 characters."""
    import tempfile
    with tempfile.TemporaryDirectory(prefix="fw") as name:
        os.chmod(name, 0o700)
        yield Path(name)


class Fake(Child):
    def command(self) -> list[str]:
        return [sys.executable, "-c", textwrap.dedent(FAKE), *super().command()[3:]]


@pytest.fixture
async def child(folder: Path, tmp_path: Path) -> AsyncIterator[Child]:
    child = Fake(tmp_path, folder=folder, patience=20, python="python", backoff=0.05)
    await child.start()
    yield child
    await child.close()


async def test_it_starts_answers_and_ends(child: Child) -> None:
    assert child.ready() == "" and await child._health()
    process = child.process
    assert process is not None and stat.S_IMODE(child.folder.stat().st_mode) == 0o700
    await child.close()
    assert process.returncode is not None and not await child._health()


async def test_it_gets_no_keys(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    await child.close()
    monkeypatch.setenv("UPSTREAM_API_KEY", "x")
    await child.start()
    assert any("secret environment: []" in line for line in child._lines)


async def test_a_crash_is_noticed_and_mended(child: Child) -> None:
    process = child.process
    assert process is not None
    os.killpg(process.pid, signal.SIGKILL)
    for _ in range(100):
        await asyncio.sleep(0.05)
        if child.restarts and child.ready() == "":
            break
    assert child.restarts == 1 and child.ready() == "" and child.process is not process


async def test_two_workers_share_one_engine_and_one_takes_over(child: Child, tmp_path: Path) -> None:
    other = Fake(tmp_path, folder=child.folder, patience=20, python="python", backoff=0.05)
    await other.start()
    assert other.process is None and child.process is not None and other.salt() == child.salt()
    await child.close()
    for _ in range(200):
        await asyncio.sleep(0.05)
        if other.process is not None and other.ready() == "":
            break
    assert other.process is not None and other.ready() == ""
    await other.close()


@pytest.mark.parametrize(("words", "sentence"), [
    ("ModuleNotFoundError: No module named 'vllm'", "pip install"),
    ("RuntimeError: Device string must not be empty", "no CUDA device"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried", "too little memory"),
    ("ValueError: No available memory for the cache blocks", "too little memory"),
    ("api_server.py: error: unrecognized arguments: --nope", "--nope"),
    ("OSError: [Errno 98] Address already in use", "address is taken"),
    ("something else entirely: error 7", "error 7"),
])
async def test_why_it_cannot_start_is_one_sentence(words: str, sentence: str, folder: Path, tmp_path: Path) -> None:
    child = Fake(tmp_path, ("--say", words), folder=folder, patience=20, python="python")
    with pytest.raises(Mistakes) as e:
        await child.start()
    assert len(e.value.lines) == 1 and sentence in e.value.lines[0] and len(CAUSES) > 5


async def test_what_a_child_said_after_serving_is_never_told(child: Child) -> None:
    child._lines.append("Error: the prompt was K")
    assert "K" not in child.cause()


async def test_mistakes_before_any_child(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(Mistakes, match="no folder"):
        VllmGuard(tmp_path / "none")
    with pytest.raises(Mistakes, match=r"config\.json"):
        VllmGuard(tmp_path)
    with pytest.raises(Mistakes, match="unknown dialect"):
        VllmGuard(tmp_path, dialect="nope")
    os.chmod(folder, 0o755)
    with pytest.raises(Mistakes, match="this user alone"):
        await Fake(tmp_path, folder=folder, python="python").start()


async def test_the_guard_on_a_child(tmp_path: Path, folder: Path) -> None:
    tiny.tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    guard = VllmGuard(tmp_path, folder=folder, accept_other_fingerprint=True, python="python", patience=20)
    guard.child = Fake(tmp_path, folder=folder, python="python", patience=20, backoff=5)
    await guard.start()
    verdict = await guard.judge(asked("hello"))
    assert verdict.guard == "vllm" and verdict.findings == () and guard.ready() == ""
    process = guard.child.process
    assert process is not None
    os.killpg(process.pid, signal.SIGKILL)
    for _ in range(100):
        try:
            await guard.judge(asked("hello"))
        except GuardDown as e:
            assert e.code in ("guard_unreachable", "guard_bad_answer")
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("a dead engine went unnoticed")
    await guard.close()
