"""What the shipped guard costs: milliseconds of one thread, through the code that serves it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from firewall.guards.encoder.engine import Engine
from firewall.guards.encoder.plan import compile
from firewall.guards.encoder.runtime import ASSETS
from firewall.guards.encoder.windows import windows
from firewall.policy import Policy, Rule, load

WORDS = "The quarterly report shows that the new bridge will open in spring and people like to walk there at night "


def speed(out: Path | None = None, assets: Path = ASSETS, rounds: int = 60) -> dict[str, float]:
    """p50 and p95 of loading, a rule, 128 tokens x 12 cached rules, and 256 tokens x the default policies."""
    began = time.perf_counter()
    engine = Engine(assets)
    got = {"load_ms": round((time.perf_counter() - began) * 1e3, 1)}
    twelve = compile([Policy("p", "p", tuple(Rule(f"p/{i}", f"Do not talk about subject number {i} at work.")
                                             for i in range(12)))], engine.code, engine.card["calibration"])
    default = compile(load(Path(__file__).parents[2] / "policies").side("input").policies, engine.code,
                      engine.card["calibration"])
    short, long = _text(engine, 126), _text(engine, 256)
    assert len(list(windows(long))) > 1
    asked: dict[str, Callable[[], object]] = {
        "rule_32_tokens": lambda: engine._states([101] * 32, 32),
        "content_128_tokens_12_rules": lambda: engine._judge([101, *_ids(engine, short), 102], 128, 0, twelve),
        "content_128_tokens_default_policies": lambda: engine._judge([101, *_ids(engine, short), 102], 128, 0, default),
        "text_256_tokens_default_policies": lambda: [engine.score(w.text, "", 0, default) for w in windows(long)],
    }
    for name, call in asked.items():
        call()
        wall, cpu = [], []
        for _ in range(rounds):
            began, busy = time.perf_counter(), time.thread_time()
            call()
            wall.append((time.perf_counter() - began) * 1e3)
            cpu.append((time.thread_time() - busy) * 1e3)
        wall.sort()
        got |= {f"{name}_p50_ms": round(wall[rounds // 2], 2), f"{name}_p95_ms": round(wall[int(rounds * 0.95)], 2),
                f"{name}_min_ms": round(wall[0], 2), f"{name}_cpu_p50_ms": round(sorted(cpu)[rounds // 2], 2)}
    print(json.dumps(got))
    if out:
        out.write_text(json.dumps(got, indent=1) + "\n", "utf-8")
    return got


def _ids(engine: Engine, text: str) -> list[int]:
    ids: list[int] = engine.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _text(engine: Engine, tokens: int) -> str:
    """About that many tokens of everyday words."""
    words = (WORDS * 20).split()
    while len(_ids(engine, " ".join(words))) > tokens:
        words.pop()
    return " ".join(words)
