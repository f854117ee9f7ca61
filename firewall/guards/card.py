"""The card beside a checkpoint, `firewall.json`: which prompts it was trained on, and how its scores are read.

    {"fingerprint": "0123456789abcdef", "scale": {"snap": [1.4, -0.2], "reason": [1.1, 0.0]}}

`fingerprint` is `template.FINGERPRINT` at training time. A guard trained on other prompts than this version writes is
refused, unless told otherwise: it would still answer, and be wrong. `scale` is temperature and bias per depth.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from firewall.errors import Mistakes
from firewall.template import FINGERPRINT

NAME = "firewall.json"


@dataclass(frozen=True, slots=True)
class Card:
    """`name`: the guard's fingerprint: template and reader, and the weights where they are known."""

    name: str = FINGERPRINT
    scale: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, accept_other: bool = False) -> Card:
        """Raises `Mistakes`: no such folder, no weights' config, no card, another fingerprint."""
        if not folder.is_dir():
            raise Mistakes([f"guard.model: no folder {folder}; give the folder of a checkpoint"])
        if not (folder / "config.json").is_file():
            raise Mistakes([f"guard.model: {folder} holds no config.json; it is not a checkpoint"])
        path = folder / NAME
        try:
            said = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            trained = str(said.get("fingerprint", "")) if isinstance(said, dict) else ""
            scale = {d: (float(t), float(b)) for d, (t, b) in (said.get("scale") or {}).items()}
            if any(t <= 0 for t, _ in scale.values()):
                raise ValueError
        except (OSError, ValueError, TypeError, AttributeError):
            raise Mistakes([f"{path}: cannot be read; it must hold {{\"fingerprint\": ..., \"scale\": ...}}"]) from None
        if trained != FINGERPRINT and not accept_other:
            was = f"was trained on prompts {trained}" if trained else f"has no {NAME} that names its prompts"
            raise Mistakes([f"guard.model: {folder} {was}, this version writes {FINGERPRINT}; train it again, or set"
                            " guard.accept-other-fingerprint = true"])
        files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".bin"))
        weights = hashlib.sha256(repr([(p.name, p.stat().st_size, int(p.stat().st_mtime)) for p in files]).encode())
        return cls(f"{FINGERPRINT}-{weights.hexdigest()[:12]}", scale)
