"""Every published layout, on small files in that layout."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import loaders
from benchmarks.rows import BadRows


def written(path: Path, items: list[dict[str, Any]]) -> str:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as f:
            out = csv.DictWriter(f, sorted({k for i in items for k in i}))
            out.writeheader()
            out.writerows(items)
    elif path.suffix == ".json":
        path.write_text(json.dumps(items))
    else:
        with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as f:
            f.writelines(json.dumps(i) + "\n" for i in items)
    return str(path)


CASES = [
    ("openai_moderation", "samples.jsonl.gz", [{"prompt": "p", "S": 0, "H": 1, "V": 0}, {"prompt": "q", "S": 0}],
     [("prompt", True, ("H",)), ("prompt", False, ())]),
    ("toxicchat", "toxic.csv", [{"user_input": "a, b\n\"c\"", "toxicity": 1, "jailbreaking": 1},
                                {"user_input": "b", "toxicity": 0, "jailbreaking": 0}],
     [("prompt", True, ("jailbreaking",)), ("prompt", False, ())]),
    ("aegis", "aegis1.jsonl", [
        {"text": "t", "text_type": "user_message", "labels_0": "Violence, Threat", "labels_1": "Violence",
         "labels_2": "Safe"},
        {"text": "t", "text_type": "user_message", "labels_0": "Safe", "labels_1": "Needs Caution", "labels_2": "Safe"},
        {"text": "t", "text_type": "llm_response", "labels_0": "Safe"}],
     [("prompt", True, ("Violence", "Threat")), ("prompt", False, ())]),
    ("aegis", "aegis2.json", [{"prompt": "p", "prompt_label": "unsafe", "violated_categories": "Violence, Hate",
                               "response": "r", "response_label": "safe"}],
     [("prompt", True, ("Violence", "Hate")), ("response", False, ("Violence", "Hate"))]),
    ("harmbench", "behaviors.csv", [{"Behavior": "do bad", "SemanticCategory": "cyber", "ContextString": ""}],
     [("prompt", True, ("cyber",))]),
    ("harmbench", "hub.jsonl", [{"prompt": "do bad", "category": "cyber"}], [("prompt", True, ("cyber",))]),
    ("harmbench", "val.json", [{"behavior": "b", "generation": "g", "human_0": 1, "human_1": 1, "human_2": 0},
                               {"behavior": "b", "generation": "g", "human_0": 0, "human_1": 1, "human_2": 0}],
     [("response", True, ()), ("response", False, ())]),
    ("xstest", "xstest.csv", [{"prompt": "p", "type": "homonyms"}, {"prompt": "p", "type": "contrast_homonyms"}],
     [("prompt", False, ("homonyms",)), ("prompt", True, ("contrast_homonyms",))]),
    ("beavertails", "beaver.jsonl.gz", [{"prompt": "p", "response": "r", "is_safe": False,
                                         "category": {"privacy": True, "hate": False}}],
     [("response", True, ("privacy",))]),
    ("safe_rlhf", "rlhf.jsonl", [{"prompt": "p", "response_0": "a", "response_1": "b", "is_response_0_safe": True,
                                  "is_response_1_safe": False}], [("response", False, ()), ("response", True, ())]),
    ("wildguardtest", "wild.csv", [{"prompt": "p", "prompt_harm_label": "harmful", "response": "r",
                                    "adversarial": "True",
                                    "response_harm_label": "unharmful", "subcategory": "fraud"},
                                   {"prompt": "p", "prompt_harm_label": "", "response": "", "adversarial": "False",
                                    "response_harm_label": "", "subcategory": ""}],
     [("prompt", True, ("fraud",)), ("response", False, ("fraud",))]),
    ("simple_safety_tests", "sst.csv", [{"prompt": "p", "harm_area": "Scams"}], [("prompt", True, ("Scams",))]),
    ("dynabench", "dyna.json", [
        {"policy": "1. No refunds.", "transcript": "User: I want money\nAgent: Here, have it", "label": "FAIL"},
        {"policy": "1. No refunds.", "transcript": "User: hello", "label": "PASS"},
        {"policy": ["1. No refunds.", "2. No tea."], "transcript": "User: tea?\nAgent: here\nUser: ta\nAgent: bye",
         "label": "FAIL"}],
     [("response", True, ()), ("prompt", False, ()), ("response", True, ())]),
]


@pytest.mark.parametrize("layout,file,items,want", CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_layout(tmp_path: Path, layout: str, file: str, items: list, want: list) -> None:
    rows = loaders.load(layout, written(tmp_path / file, items))
    assert [(r.task, r.unsafe, r.categories) for r in rows] == want
    assert len({r.id for r in rows}) == len(rows)


def test_dynabench_keeps_the_turns_and_the_policy(tmp_path: Path) -> None:
    rows = loaders.load("dynabench", written(tmp_path / "d.jsonl", CASES[-1][2]))
    assert rows[0].messages == (("user", "I want money"), ("assistant", "Here, have it"))
    assert rows[0].policy == "1. No refunds."
    assert rows[2].messages == (("user", "tea?"), ("user", "ta"), ("assistant", "here\n\nbye"))
    assert rows[2].policy == "1. No refunds.\n2. No tea."


def test_another_layout_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="not in the layout of toxicchat"):
        loaders.load("toxicchat", written(tmp_path / "x.jsonl", [{"text": "?"}]))
    with pytest.raises(BadRows, match="known: aegis"):
        loaders.load("nope", "x")


def test_a_file_that_is_not_there() -> None:
    for where in ("/nope", "nope.csv", "./nope"):
        with pytest.raises(BadRows, match=f"{where}: no such file"):
            loaders.load("toxicchat", where)


def test_every_layout_is_described() -> None:
    assert set(loaders.published()) == set(loaders.READERS)
