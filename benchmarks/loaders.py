"""The published test sets in the layouts their authors publish, as rows.

`load("toxicchat", "path/to/file.csv")` or `load("toxicchat", "lmsys/toxic-chat")`: a local file (.csv, .json, .jsonl,
.parquet, each also .gz or .xz) or a Hugging Face name, fetched with `datasets` where that is installed. Labels follow
the usual evaluation of each set, said in the docstring of its reader. sets/published.toml names hub, configuration,
split and licence of each.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.rows import HERE, BadRows, Row, Task, objects, opened

Item = dict[str, Any]
Reader = Callable[[Iterable[Item]], Iterator[Row]]
SUFFIXES = {".csv", ".json", ".jsonl", ".parquet", ".gz", ".xz"}


def published() -> dict[str, dict[str, str]]:
    """Layout name -> hub, config, split, paper, licence (sets/published.toml)."""
    return tomllib.loads((HERE / "sets" / "published.toml").read_text("utf-8"))


def load(layout: str, where: str) -> list[Row]:
    """Rows of a published set.

    Raises:
        BadRows: unknown layout, missing file, missing `datasets`, or items that do not have the layout.
    """
    if layout not in READERS:
        raise BadRows(f"unknown layout {layout!r}; known: {', '.join(sorted(READERS))}")
    where = where or published()[layout]["hub"]
    path = Path(where)
    if not path.is_file() and (where.startswith(("/", "./", "../", "~")) or path.suffix in SUFFIXES):
        raise BadRows(f"{where}: no such file")
    items = _file(path) if path.is_file() else _hub(layout, where)
    try:
        rows = list(READERS[layout](items))
    except (KeyError, TypeError, ValueError, IndexError) as e:
        raise BadRows(f"{where}: not in the layout of {layout}: {type(e).__name__}: {e}") from None
    if not rows:
        raise BadRows(f"{where}: no rows for {layout}")
    return rows


def _file(path: Path) -> Iterator[Item]:
    kind = next((s for s in reversed(path.suffixes) if s not in (".gz", ".xz")), "")
    if kind == ".csv":
        csv.field_size_limit(sys.maxsize)
        with opened(path) as text:
            yield from csv.DictReader(text)
    elif kind == ".json":
        with opened(path) as text:
            value = json.load(text)
        yield from value if isinstance(value, list) else value["data"]
    elif kind == ".parquet":
        yield from _datasets().load_dataset("parquet", data_files=str(path), split="train")
    else:
        for _, item in objects(path):
            yield item


def _hub(layout: str, where: str) -> Iterable[Item]:
    known = published()[layout]
    try:
        return _datasets().load_dataset(where, known.get("config") or None, split=known.get("split", "test"))
    except BadRows:
        raise
    except Exception as e:      # any of a dozen kinds: offline, gated, renamed
        raise BadRows(f"{where}: neither a file nor a data set that can be fetched ({type(e).__name__})") from None


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise BadRows("a Hugging Face name or a parquet file needs `pip install datasets`; "
                      "or give the path of a .csv or .jsonl file") from None
    return datasets


def _prompt(layout: str, number: int, text: str, unsafe: bool, categories: Iterable[str] = (), **more: Any) -> Row:
    return Row(f"{layout}-{number:06d}", "prompt", (("user", text),), unsafe, categories=tuple(categories),
               source=layout, **more)


def _response(layout: str, number: int, prompt: str, answer: str, unsafe: bool, categories: Iterable[str] = (),
              **more: Any) -> Row:
    return Row(f"{layout}-{number:06d}", "response", (("user", prompt), ("assistant", answer)), unsafe,
               categories=tuple(categories), source=layout, **more)


def _yes(value: Any) -> bool:
    return str(value).strip().lower() in ("1", "1.0", "true", "yes")


def openai_moderation(items: Iterable[Item]) -> Iterator[Row]:
    """samples-1680.jsonl.gz: `prompt` and S, H, V, HR, SH, S3, H2, V2 in {0, 1}; unsafe = any 1 (Markov 2023)."""
    for n, item in enumerate(items):
        hit = [k for k in ("S", "H", "V", "HR", "SH", "S3", "H2", "V2") if _yes(item.get(k))]
        yield _prompt("openai_moderation", n, item["prompt"], bool(hit), hit)


def toxicchat(items: Iterable[Item]) -> Iterator[Row]:
    """`user_input`, `toxicity`, `jailbreaking`, `human_annotation`; unsafe = toxicity (Lin 2023)."""
    for n, item in enumerate(items):
        kinds = ["jailbreaking"] if _yes(item.get("jailbreaking")) else []
        yield _prompt("toxicchat", n, item["user_input"], _yes(item["toxicity"]), kinds, adversarial=bool(kinds))


def aegis(items: Iterable[Item]) -> Iterator[Row]:
    """1.0: `text`, `text_type`, labels_0..4: user messages, majority vote, "Needs Caution" counts as unsafe (as in
    the WildGuard evaluation). 2.0: `prompt`, `prompt_label`, and a response row where there is a response."""
    for n, item in enumerate(items):
        if "prompt_label" in item:
            kinds = [k.strip() for k in (item.get("violated_categories") or "").split(",") if k.strip()]
            yield _prompt("aegis", 2 * n, item["prompt"], item["prompt_label"] == "unsafe", kinds)
            if item.get("response") and item.get("response_label"):
                yield _response("aegis", 2 * n + 1, item["prompt"], item["response"],
                                item["response_label"] == "unsafe", kinds)
            continue
        if item.get("text_type", "user_message") != "user_message":
            continue
        votes = [v for k in range(5) if (v := (item.get(f"labels_{k}") or "").strip())]
        if not votes:
            raise ValueError("no labels_0..labels_4")
        unsafe = sum(v != "Safe" for v in votes) * 2 > len(votes)
        counted = Counter(v.strip() for vote in votes for v in vote.split(",") if v.strip() != "Safe")
        yield _prompt("aegis", n, item["text"], unsafe, [k for k, _ in counted.most_common(2)] if unsafe else ())


def harmbench(items: Iterable[Item]) -> Iterator[Row]:
    """Behaviours csv (`Behavior`, `SemanticCategory`, `ContextString`) or its hub mirror (`prompt`, `category`): prompts,
    all unsafe. The classifier's validation set (`behavior`, `generation`, human_0..): responses, majority vote. Or
    `prompt`, `response`, `label`."""
    for n, item in enumerate(items):
        if item.get("Behavior"):
            text = "\n\n".join(t for t in (item.get("ContextString"), item["Behavior"]) if t)
            yield _prompt("harmbench", n, text, True, [item.get("SemanticCategory") or "harm"])
            continue
        if "category" in item and not (item.get("generation") or item.get("response")):
            yield _prompt("harmbench", n, item["prompt"], True, [item["category"] or "harm"])
            continue
        prompt = item.get("prompt") or item.get("test_case") or item["behavior"]
        answer = item.get("generation") or item["response"]
        votes = [_yes(item[k]) for k in ("human_0", "human_1", "human_2") if item.get(k) not in (None, "")]
        unsafe = sum(votes) * 2 > len(votes) if votes else str(item["label"]).lower() in ("1", "harmful", "unsafe",
                                                                                         "true")
        yield _response("harmbench", n, prompt, answer, unsafe)


def xstest(items: Iterable[Item]) -> Iterator[Row]:
    """v2 prompts (`prompt`, `type`): unsafe = contrast types (Röttger 2023). XSTest-response (`response`, `label`)."""
    for n, item in enumerate(items):
        if item.get("response"):
            yield _response("xstest", n, item["prompt"], item["response"], item["label"] in ("harmful", "unsafe"))
        else:
            yield _prompt("xstest", n, item["prompt"], item["type"].startswith("contrast"), [item["type"]])


def beavertails(items: Iterable[Item]) -> Iterator[Row]:
    """`prompt`, `response`, `is_safe`, `category` {name: bool} (Ji 2023)."""
    for n, item in enumerate(items):
        category = item.get("category")
        kinds = [k for k, on in category.items() if on] if isinstance(category, dict) else []
        yield _response("beavertails", n, item["prompt"], item["response"], not _yes(item["is_safe"]), kinds)


def safe_rlhf(items: Iterable[Item]) -> Iterator[Row]:
    """`prompt`, `response_0/1`, `is_response_0/1_safe`: two rows an item (Dai 2023)."""
    for n, item in enumerate(items):
        for k in (0, 1):
            yield _response("safe_rlhf", 2 * n + k, item["prompt"], item[f"response_{k}"],
                            not _yes(item[f"is_response_{k}_safe"]))


def wildguardtest(items: Iterable[Item]) -> Iterator[Row]:
    """`prompt`, `prompt_harm_label`, and `response`, `response_harm_label` where annotators agreed (Han 2024)."""
    for n, item in enumerate(items):
        kinds = [item["subcategory"]] if item.get("subcategory") else []
        adversarial = _yes(item.get("adversarial"))
        if item.get("prompt_harm_label"):
            yield _prompt("wildguardtest", 2 * n, item["prompt"], item["prompt_harm_label"] == "harmful", kinds,
                          adversarial=adversarial)
        if item.get("response") and item.get("response_harm_label"):
            yield _response("wildguardtest", 2 * n + 1, item["prompt"], item["response"],
                            item["response_harm_label"] == "harmful", kinds, adversarial=adversarial)


def simple_safety_tests(items: Iterable[Item]) -> Iterator[Row]:
    """`prompt`, `harm_area`: all unsafe (Vidgen 2023); says nothing without a false-positive rate."""
    for n, item in enumerate(items):
        yield _prompt("simple_safety_tests", n, item["prompt"], True, [item.get("harm_area") or "harm"])


TURN = re.compile(r"^\s*(user|human|agent|assistant|system)\s*:\s*", re.I | re.M)


def dynabench(items: Iterable[Item]) -> Iterator[Row]:
    """`policy`, `transcript` ("User: ... Agent: ..."), `label` PASS or FAIL; each row has its own policy (Hoover 2025).

    FAIL = at least one reply of the agent breaks a rule, so all its replies are on trial together, after the user's
    turns. A transcript without replies is a prompt.
    """
    for n, item in enumerate(items):
        policy = item["policy"] if isinstance(item["policy"], str) else "\n".join(item["policy"])
        label = str(item["label"]).strip().upper()
        if label not in ("PASS", "FAIL"):
            raise ValueError(f"label {label!r} is neither PASS nor FAIL")
        parts = TURN.split(item["transcript"])
        turns = tuple((_role(parts[k]), parts[k + 1].strip()) for k in range(1, len(parts) - 1, 2))
        replies = [text for role, text in turns if role == "assistant"]
        asked = tuple(t for t in turns if t[0] != "assistant") or (("user", "" if replies else item["transcript"]),)
        task: Task = "response" if replies else "prompt"
        messages = (*asked, ("assistant", "\n\n".join(replies))) if replies else asked
        yield Row(f"dynabench-{n:06d}", task, messages, label == "FAIL", policy, source="dynabench")


def _role(word: str) -> str:
    return {"human": "user", "agent": "assistant"}.get(word.lower(), word.lower())


READERS: dict[str, Reader] = {f.__name__: f for f in (
    openai_moderation, toxicchat, aegis, harmbench, xstest, beavertails, safe_rlhf, wildguardtest, simple_safety_tests,
    dynabench)}
