"""`VllmGuard`: the reasoning guard on a co-located vLLM engine that the firewall starts, watches and restarts.

The engine is a child process (child.py): its crash never takes the proxy down, and any number of proxy workers share
it. Automatic prefix caching makes streams cheap: policies come first and the transcript only grows, so a question about
400 more characters computes those and the tail. Until a restarted engine answers again, there is no verdict.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from firewall.case import Case
from firewall.errors import GuardDown, Mistakes
from firewall.guards.card import Card
from firewall.guards.child import Child
from firewall.guards.endpoints import Endpoints
from firewall.guards.guard import Guard
from firewall.guards.reasoner import Reasoner, Settings
from firewall.guards.tokens import Tokens
from firewall.verdict import Depth, Verdict


class VllmGuard:
    """Args:
        model: folder of a Hugging Face checkpoint with `firewall.json` (see card.py).
        depth: how hard it thinks where no policy asks for more.
        dialect: `ours`, or the name of a guard people already run (dialects/).
        engine: more of vLLM's command line, e.g. `("--max-model-len", "8192")`.
        accept_other_fingerprint: serve a checkpoint that was trained on other prompts.
        think: tokens a thought may have.
        python, folder, patience: see `Child`.

    Raises:
        Mistakes: no such folder, no card, another fingerprint; `start` raises it for an engine that cannot run.
    """

    name = "vllm"

    def __init__(self, model: Path, depth: Depth | str = "snap", dialect: str = "ours", engine: Sequence[str] = (), *,
                 accept_other_fingerprint: bool = False, think: int = 192, deadline: float = 30.0,
                 patience: float = 600.0, python: str = sys.executable, folder: Path | None = None) -> None:
        self.child = Child(model, engine, patience=patience, python=python, folder=folder)
        self.inner: Guard
        self.patience = patience
        if dialect == "ours":
            card = Card.of(model, accept_other_fingerprint)
            settings = Settings(depth, think, True, card.scale, card.name)      # type: ignore[arg-type]
            there = Endpoints([self.child.url], "guard", deadline=deadline, priority=True, lane=True)
            self.inner = Reasoner(self.name, there, Tokens.of(model), settings)
        else:
            if not model.is_dir():
                raise Mistakes([f"guard.model: no folder {model}; give the folder of a checkpoint"])
            from firewall.guards.dialects import chat
            self.inner = chat(dialect, [self.child.url], "guard", deadline=deadline)
        self.fingerprint = self.inner.fingerprint
        self.depth = depth

    async def start(self) -> None:
        await self.child.start()
        if isinstance(self.inner, Reasoner):
            self.inner.share_salt(self.child.salt())
        await self.inner.start()
        engine = getattr(self.inner, "engine", None)
        if isinstance(engine, Endpoints):
            await engine.warm(self.patience)

    async def close(self) -> None:
        await self.inner.close()
        await self.child.close()

    def ready(self) -> str:
        return self.child.ready() or self.inner.ready()

    def known(self, case: Case) -> Verdict | None:
        return None

    async def judge(self, case: Case) -> Verdict:
        if problem := self.child.ready():
            raise GuardDown("guard_unreachable", problem)
        return await self.inner.judge(case)
