"""What the detectors cost: CPU of `Patterns.known`, the short way beside the careful one, interleaved in one run.

    python -m benchmarks.patterns_cost [--rounds N] [--policies DIR]

Inputs are judged whole; streams are answers that grow by four characters a look, as tokens do, and the cost is that of
one look. Each round takes both ways in turn; the least of all rounds counts (the machine's other work only ever adds).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from firewall.case import Case, Message, Said
from firewall.guards.patterns import Patterns
from firewall.policy import PolicySet, load

LETTER = ("I went to the market this morning and bought some bread, a little cheese and two bottles of milk because my "
          "sister is coming to visit on Sunday. She asked whether we could walk along the river after lunch if the "
          "weather stays dry, and I said that would be lovely. Could you suggest a few simple dishes that I can prepare "
          "on Saturday evening so that there is not much left to do when she arrives? Nothing with nuts please. ")
REPORT = ("The committee met again to discuss how the harbour should be rebuilt. Several residents asked whether the "
          "authentication of the documents had been checked, and the chairman said that understanding the "
          "circumstances would take another fortnight. A well-established company from the neighbouring town offered "
          "to repair the machinery at its own expense, after the refurbishment of the lighthouse. ")
ROW = '{{"user_id": {0}, "createdAt": "2024-05-{1:02d}T10:00:00Z", "is_active": true, "path": "/srv/img_{0}.png"}},'
CODE = ("def total(rows: list[Row]) -> float:\n    \"\"\"Sum of all amounts.\"\"\"\n    result = 0.0\n    for row in rows:\n"
        "        if row.is_active and row.amount_in_cents > 0:\n            result += row.amount_in_cents / 100\n"
        "    return round(result, 2)\n\n")
HAN = "防火墙是一种网络安全系统，用于监控和控制传入和传出的网络流量。"
FRENCH = ("Le comité s’est réuni à nouveau pour décider comment le port serait reconstruit. Plusieurs habitants ont demandé "
          "si l’origine des documents avait été vérifiée, et le président a répondu qu’il faudrait encore une quinzaine. ")
KEYS = ('my key AKIAIOSFODNN7EXAMPLE and api_key = "a8f5f167f44f4964e6c998dee827110c" then '
        "xoxb-123456789012-abcdefGHIJ ok ")
DIGITS = " ".join(str(n * 7919 * 65537 % 10**12) for n in range(1, 90))
JSON = "".join(ROW.format(1000 + n, n) for n in range(1, 15))
TEXTS = {"letter": LETTER * 3, "report, many long words": REPORT * 3, "JSON": JSON, "code": CODE * 4,
         "accents": FRENCH.replace("’", "'") * 4, "accents and curly quotes": FRENCH * 4, "Chinese": HAN * 40,
         "digits": DIGITS, "one long word": "abcdefghij" * 110, "keys": KEYS * 9}
SIZE = 1024


def asked(policies: PolicySet, *texts: str) -> Case:
    return Case("input", policies.side("input"), tuple(
        Message(("user", "assistant")[i % 2], text, f"messages/{i}/content") for i, text in enumerate(texts)))


def stream(guard: Patterns, policies: PolicySet, text: str, step: int = 4) -> float:
    """Microseconds of CPU a look."""
    side = policies.side("output")
    cases = [Case("output", side, (), (Said("choice/0/text", text[:end]),), end >= len(text), "", "bench")
             for end in range(step, len(text) + step, step)]
    began = time.process_time()
    for case in cases:
        guard.known(case)
    return (time.process_time() - began) / len(cases) * 1e6


def once(guard: Patterns, case: Case, times: int = 20) -> float:
    began = time.process_time()
    for _ in range(times):
        guard.known(case)
    return (time.process_time() - began) / times * 1e6


def table(policies: PolicySet, rounds: int) -> list[tuple[str, float, float]]:
    """(what, careful, quick) in microseconds."""
    ways = (Patterns(quick=False), Patterns())
    for guard in ways:
        guard.warm(policies)
    jobs: dict[str, Callable[[Patterns], float]] = {}
    for name, text in TEXTS.items():
        case = asked(policies, text[:SIZE])
        jobs[f"input, {name}"] = lambda guard, case=case: once(guard, case)             # type: ignore[misc]
    parts = [LETTER[i * 70:i * 70 + 200] for i in range(5)]
    jobs["input, chat of 5 messages"] = lambda guard: once(guard, asked(policies, *parts))
    for name, text in TEXTS.items():
        jobs[f"look, {name}"] = lambda guard, text=text[:SIZE]: stream(guard, policies, text)       # type: ignore[misc]
    rows = []
    for name, job in jobs.items():
        best = [min(costs) for costs in zip(*([job(guard) for guard in ways] for _ in range(rounds)), strict=True)]
        rows.append((name, best[0], best[1]))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.patterns_cost", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--policies", type=Path, default=Path(__file__).parents[1] / "policies")
    args = parser.parse_args(argv)
    print(f"{'us of CPU':34}{'careful':>9}{'quick':>9}{'ratio':>8}")
    for name, careful, quick in table(load(args.policies), args.rounds):
        print(f"{name:34}{careful:9.1f}{quick:9.1f}{careful / quick:8.1f}")


if __name__ == "__main__":
    main()
