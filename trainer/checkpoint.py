"""Checkpoints that a kill -9 cannot break: written beside, renamed when whole, and only then named as the latest.

A checkpoint holds weights, optimiser, the next step, the data position, the random state, and the options its steps were
taken with: a stage that goes on with others says so, in its model's papers too. The last `keep` stay.
A disk that is too small is noticed before writing; one that fills up while writing leaves the one before untouched.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from firewall.errors import Mistakes
from trainer.errors import Halt
from trainer.learner import Learner

LATEST, OPTIONS = "latest", "options.json"


class Checkpoints:
    """Of one stage. `options` are those that its steps depend on (`Recipe.steps`)."""

    def __init__(self, folder: Path, keep: int = 2, options: dict[str, Any] | None = None) -> None:
        self.folder, self.keep, self.options = folder, max(1, keep), options or {}
        self.changed: list[str] = []        # a line for each time that the stage went on with other options

    def save(self, learner: Learner, step: int, state: dict[str, Any]) -> Path:
        """Saves the state in which `step` is the next step. Raises `Halt` when it cannot be written."""
        tag, part = f"step-{step:08d}", f"step-{step:08d}.part"
        self.folder.mkdir(parents=True, exist_ok=True)
        free, need = shutil.disk_usage(self.folder).free, self._need(learner)
        if free < need:
            raise Halt(f"the disk of {self.folder} has {free / 1e6:,.0f} MB free and a checkpoint needs about "
                       f"{need / 1e6:,.0f} MB", "Make room or set `out` elsewhere.", step=step, saved=self.last())
        try:
            learner.save(self.folder, part, state | {"step": step, "random": torch.get_rng_state()})
            if learner.rank == 0:
                told = {"step": step, "processes": learner.world, "options": self.options, "changed": self.changed}
                (self.folder / part / OPTIONS).write_text(json.dumps(told, indent=1) + "\n", "utf-8")
        except (OSError, RuntimeError) as e:
            if learner.rank == 0:
                shutil.rmtree(self.folder / part, ignore_errors=True)
            raise Halt(f"the checkpoint could not be written ({type(e).__name__}: {str(e).splitlines()[0][:160]})",
                       "Make room or set `out` elsewhere.", step=step, saved=self.last()) from e
        learner.total(0)                                # every process has written its part
        if learner.rank == 0:
            before = self.folder / f"{tag}.old"
            shutil.rmtree(before, ignore_errors=True)
            if (self.folder / tag).exists():            # at no moment is there none
                os.replace(self.folder / tag, before)
            os.replace(self.folder / part, self.folder / tag)
            shutil.rmtree(before, ignore_errors=True)
            pointer = self.folder / f"{LATEST}.part"
            pointer.write_text(tag, "utf-8")
            os.replace(pointer, self.folder / LATEST)
            for old in [*self.folder.glob("step-*.part"), *self._whole()[:-self.keep]]:
                if old.name != tag:
                    shutil.rmtree(old, ignore_errors=True)
        learner.total(0)
        return self.folder / tag

    def last(self) -> Path | None:
        """The newest whole checkpoint. Where the latest was removed (by hand, or by a kill while it was saved again), the
        newest that is left."""
        pointer = self.folder / LATEST
        tag = pointer.read_text("utf-8").strip() if pointer.exists() else ""
        if tag and (self.folder / tag).is_dir():
            return self.folder / tag
        return next(reversed(self._whole()), None)

    def _whole(self) -> list[Path]:
        """Whole checkpoints in the order in which they were saved, which after a step back is not that of their names."""
        found = [p for p in self.folder.glob("step-*") if p.is_dir() and p.suffix != ".part"]
        return sorted(found, key=lambda p: (p.stat().st_mtime_ns, p.name))

    def resume(self, learner: Learner, weights: bool = False) -> dict[str, Any] | None:
        """Loads the newest checkpoint, or its `weights` alone, into the learner; its state, or None when there is none.

        Raises:
            Halt: it cannot be read, or its parts are cut for other processes or another `engine.zero`.
        """
        last = self.last()
        if last is None:
            return None
        told = self.told()
        zero, world = told.get("options", {}).get("engine.zero", learner.zero), told.get("processes", learner.world)
        same = zero == learner.zero and (world == learner.world or not zero)
        if not (same or weights and 3 not in (zero, learner.zero)):
            raise Halt(f"checkpoint {last} was written by {world} process(es) with engine.zero = {zero}, this run has "
                       f"{learner.world} with engine.zero = {learner.zero}.", "Nothing is wrong with it: run as it was run.")
        state = learner.load(self.folder, last.name, weights)
        torch.set_rng_state(state["random"].cpu())
        return state

    def told(self) -> dict[str, Any]:
        """`step`, `processes`, `options` and `changed` of the newest checkpoint; empty where it does not say."""
        try:
            return dict(json.loads(((self.last() or self.folder) / OPTIONS).read_text("utf-8")))
        except (OSError, ValueError):
            return {}

    def compare(self, learner: Learner, end: int) -> None:
        """After `resume`, with the step at which the stage ends: says which options have changed.

        Raises:
            Mistakes: they have changed and no step is left to take with them.
        """
        told = self.told()
        self.changed, before = list(told.get("changed", [])), told.get("options", {})
        new = ", ".join(f"{k} {before[k]} -> {v}" for k, v in self.options.items() if k in before and before[k] != v)
        if not new:
            return
        if told["step"] >= end:
            raise Mistakes([f"{self.last()}: its steps were taken with other options ({new}), and none is left to take: "
                            f"go back to them, remove {self.folder} to train again, or set `out` elsewhere"])
        self.changed.append(f"from step {told['step']}: {new}")
        if learner.rank == 0:
            print(f"{self.folder.name}: changed {self.changed[-1]}", file=sys.stderr)

    def _need(self, learner: Learner) -> int:
        last = self.last()
        if last is not None:
            return sum(f.stat().st_size for f in last.rglob("*") if f.is_file())
        trained = sum(p.numel() for p in learner.engine.module.parameters() if p.requires_grad)
        return sum(p.numel() for p in learner.engine.module.parameters()) * 4 + trained * 8
