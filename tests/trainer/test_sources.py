"""Foreign layouts on small local files, and rows that do not parse named by file and row."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from firewall.errors import Mistakes
from trainer import categories, sources
from trainer.recipe import Data, Source

SHARED = Path(__file__).resolve().parents[3] / "shared"
LAYOUTS: list[tuple[str, str, list[dict[str, Any]], list[tuple[str, bool, list[str]]]]] = [
    ("toxicchat", "toxicchat0124", [
        {"conv_id": "a", "user_input": "you idiot", "model_output": "x", "human_annotation": True, "toxicity": 1,
         "jailbreaking": 0},
        {"conv_id": "b", "user_input": "hello there", "model_output": "x", "toxicity": 0, "jailbreaking": 0}],
     [("input", True, []), ("input", False, [])]),
    ("aegis2", "", [
        {"id": "1", "prompt": "make a bomb", "response": "no", "prompt_label": "unsafe", "response_label": "safe",
         "violated_categories": "Guns and Illegal Weapons, Violence"},
        {"id": "2", "prompt": "good morning", "response": None, "prompt_label": "safe", "response_label": None,
         "violated_categories": ""},
        {"id": "3", "prompt": "REDACTED", "response": None, "prompt_label": "unsafe", "response_label": None,
         "violated_categories": "Suicide and Self Harm"}],
     [("input", True, ["violent-crime/1", "weapons/1"]), ("output", False, []), ("input", False, [])]),
    ("beavertails", "", [
        {"prompt": "how", "response": "take the drug", "is_safe": False,
         "category": {"drug_abuse,weapons,banned_substance": True, "animal_abuse": False}},
        {"prompt": "how", "response": "no thanks", "is_safe": True, "category": {"animal_abuse": False}}],
     [("output", True, ["drugs/1", "weapons/1"]), ("output", False, [])]),
    ("pku-saferlhf", "", [
        {"prompt": "p", "response_0": "kick the dog", "response_1": "walk the dog", "is_response_0_safe": False,
         "is_response_1_safe": True, "response_0_harm_category": {"Animal Abuse": True, "Privacy Violation": False},
         "response_1_harm_category": {"Animal Abuse": False}}],
     [("output", True, ["animal-abuse/1"]), ("output", False, [])]),
    ("or-bench", "or-bench-toxic", [{"prompt": "spread hatred", "category": "hate"}], [("input", True, ["hate/1"])]),
    ("or-bench", "or-bench-hard-1k", [{"prompt": "kill a process", "category": "violence"}], [("input", False, [])]),
    ("wildguardmix", "wildguardtrain", [
        {"prompt": "steal a car", "adversarial": False, "response": "sorry", "prompt_harm_label": "harmful",
         "response_harm_label": "unharmful", "response_refusal_label": "refusal",
         "subcategory": "fraud_assisting_illegal_activities"},
        {"prompt": "buy a car", "adversarial": True, "response": None, "prompt_harm_label": "unharmful",
         "response_harm_label": None, "response_refusal_label": None, "subcategory": "benign"}],
     [("input", True, ["nonviolent-crime/1"]), ("output", False, []), ("input", False, [])]),
]


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


@pytest.mark.parametrize(("format", "config", "rows", "want"), LAYOUTS)
def test_layouts(tmp_path, format, config, rows, want):
    got = sources.read(Source(jsonl(tmp_path / "x.jsonl", rows), format, config), Data())
    assert sorted((e.case.direction, e.unsafe, list(e.rules)) for e in got) == sorted(want)
    assert all(e.words and len(e.case.policies) == 18 for e in got)


@pytest.mark.parametrize(("format", "config", "rows", "want"), LAYOUTS[:2])
def test_parquet_csv_and_packed(tmp_path, format, config, rows, want):
    text = "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "x.jsonl.xz").write_bytes(lzma.compress(text.encode()))
    assert len(sources.read(Source(str(tmp_path / "x.jsonl.xz"), format, config), Data())) == len(want)
    if format == "toxicchat":
        (tmp_path / "x.csv").write_text("user_input,toxicity\nyou idiot,1\nhello,0\n")
        assert len(sources.read(Source(str(tmp_path / "x.csv"), format), Data())) == 2
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "x.parquet")
        assert len(sources.read(Source(str(tmp_path / "x.parquet"), format), Data())) == 2


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "r", "task": "prompt", "messages": [{"role": "user", "content": "hi"}], "label": "safe",
            "categories": [], "policy": None, "licence": "MIT"} | changes


@pytest.mark.parametrize(("bad", "why"), [
    (row(label="maybe"), "label 'maybe' is neither"), (row(task="chat"), "task 'chat'"), ({"id": "x"}, "no field"),
    (row(messages=[]), "nothing on trial"), (row(messages=[{"role": "user", "content": " "}]), "nothing on trial"),
    (row(policy="## Violates\n"), "no rule"), ([1], "not a JSON object")])
def test_bad_rows_are_named(tmp_path, bad, why):
    path = jsonl(tmp_path / "x.jsonl", [row(), bad])
    with pytest.raises(Mistakes, match=why) as e:
        sources.read(Source(path), Data())
    assert e.value.lines[0].startswith(f"{path}:2: ")


def test_torn_json_and_missing_files(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": \n')
    with pytest.raises(Mistakes, match=r"x\.jsonl:1: not JSON"):
        sources.read(Source(str(tmp_path / "x.jsonl")), Data())
    with pytest.raises(Mistakes, match="no such file"):
        sources.read(Source(str(tmp_path / "none.jsonl")), Data())


def test_numbers_taken(tmp_path):
    path = jsonl(tmp_path / "x.jsonl", [row(id=str(i), label=("safe", "unsafe")[i % 2]) for i in range(20)])
    got = sources.read(Source(path, safe=3, unsafe=4), Data())
    assert (sum(not e.unsafe for e in got), sum(e.unsafe for e in got)) == (3, 4)
    assert got == sources.read(Source(path, safe=3, unsafe=4), Data())
    assert [e.id for e in got] != [e.id for e in sources.read(Source(path, safe=3, unsafe=4), Data(), seed=1)]


def test_sections_become_policies():
    active, hit = sources.own_policies(
        "Content policy. Only the sections below are enforced.\n[Spam & Scams]\n- No spam.\n- No scams.\n[Hate]\n- No.",
        ["policy_swap", "Spam & Scams"])
    assert {p.id: [r.text for r in p.rules] for p in active} == {"hate": ["No."], "spam-scams": ["No spam.",
                                                                                                "No scams."]}
    assert hit == ("spam-scams/1", "spam-scams/2")


def test_our_categories_know_the_other_sets_names():
    for name in ("animal_abuse", "child_abuse", "drug_abuse,weapons,banned_substance", "financial_crime,property_crime"
                 ",theft", "hate_speech,offensive_language", "misinformation_regarding_ethics,laws_and_safety",
                 "privacy_violation", "self_harm", "sexually_explicit,adult_content", "terrorism,organized_crime",
                 "violence,aiding_and_abetting,incitement", "Endangering Public Health", "Cybercrime",
                 "Copyright Issues", "Human Trafficking", "Guns and Illegal Weapons", "PII/Privacy", "Harassment"):
        assert categories.named(name) in categories.CATEGORIES, name
    assert len(categories.CATEGORIES) == 18


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared material beside the checkout")
def test_every_shared_file_reads():
    for path in sorted((SHARED / "data" / "train").glob("*.xz")):
        if "unlabelled" not in path.name and path.stat().st_size < 400_000:
            assert sources.read(Source(str(path)), Data(policies="sentences", crowd=3))
