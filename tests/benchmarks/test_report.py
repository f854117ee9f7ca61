"""Tables, the page, the documents and the command line, on results that really were measured."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks import docs, report, store, tables
from benchmarks.detect import summary
from benchmarks.judged import Judged
from benchmarks.meta import meta
from benchmarks.plots import Dot, chart, forest
from benchmarks.rows import Row
from tests.benchmarks.conftest import Words

ROWS = [Row(str(k), "prompt", (("user", "x"),), k % 2 == 0, categories=("kind",)) for k in range(40)]
DETECT = {"kind": "detect", "meta": meta("webhook"), **summary("front door", "a<b>", [
    Judged(r, "block" if k % 3 else "allow", (k % 7) / 7, 3.0) for k, r in enumerate(ROWS)], 1.0)}


CURVE = [[1, 60.0, 0.4], [16, 62.0, 0.5]]
OTHERS = [
    {"kind": "costs", "meta": meta("x", policies="shipped"), "guard": "x", "curves": {
        k: {"policies": CURVE, "policy_words": CURVE, "turns": CURVE} for k in ("scripted", "x")}},
    {"kind": "speed", "meta": meta("x"), "rounds": 1, "requests": 9, "skipped": {"envoy": "none"}, "errors": {},
     "peers": {"direct": {"note": "", "p50_ms": 0.1}, "firewall": {
         "note": "", "exchange_us": 50.0, "long_us": 90.0, "added_p50_ms": 0.1, "added_p99_ms": 0.2,
         "added_first_ms": 0.1,
         "streams": {"1000": {"token_us": 20.0, "delivered": 1.0, "whole": 1.0, "transit_p50_ms": 1.0,
                              "transit_p99_ms": 9.0, "rss_mb_per_1000": 12.0, "client_busy": 0.3}}}},
     "concurrency": {"firewall": [[1, 0.2, 0.4, 900.0], [16, 1.0, 2.0, 5000.0]]}, "gone": {"ms": {"p50": 1, "max": 2}},
     "workers": {"1": {"exchange_us": 50.0}, "2": {"exchange_us": 52.0}, "gain_even": 1.9, "gain_by_cpu": 1.8},
     "lag": {"p50": 1.0, "p99": 9.0}},
    {"kind": "capacity", "meta": meta(), "rows": 9, "rows_per_second": 400.0},
    {"kind": "transparency", "meta": meta(), "streams": 1, "runs": 2, "equal": 2, "refused": 0, "differ": [],
     "dialects": {"chat": 1}}]


class Strict(HTMLParser):
    """Counts opened and closed elements, and any reference to something outside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.depth: dict[str, int] = {}
        self.outside: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.depth[tag] = self.depth.get(tag, 0) + 1
        self.outside += [v for k, v in attrs if k in ("src", "href") and v]

    def handle_endtag(self, tag):
        self.depth[tag] = self.depth.get(tag, 0) - 1


def test_the_page_is_self_contained_and_escapes() -> None:
    page = report.page([DETECT, *OTHERS], [DETECT])
    reader = Strict()
    reader.feed(page)
    assert not reader.outside and "url(" not in page and "<script" not in page
    assert all(reader.depth[t] == 0 for t in ("table", "svg", "figure", "main", "div", "h2"))
    assert "a&lt;b&gt;" in page and "a<b>" not in page and page.count("<svg") >= 1


def test_charts_place_points_inside() -> None:
    svg = chart({"a": [[1, 0.5], [10, 2], [100, 8]]}, "n", "ms", log_x=True, log_y=True)
    numbers = [float(v) for part in svg.split("cx=")[1:] for v in [part.split()[0]]]
    assert len(numbers) == 3 and all(58 <= v <= 506 for v in numbers)
    assert "nothing measured" in chart({"a": []}, "x", "y")


def test_forests_show_value_interval_and_marks() -> None:
    svg = forest([Dot("set <1>", 0.5, 0.25, 0.75, {"floor": 1.0}), Dot("b", 2.0)], "F1", x_max=1.0)
    assert "set &lt;1&gt;" in svg and svg.count("class=\"dot") == 2 and svg.count("class=\"mark") == 1
    places = [float(part.split()[0]) for part in svg.split("cx=")[1:]]
    assert min(places) >= 204 and max(places) <= 504 and "floor: 1" in svg
    assert forest([Dot("a", 3.0)], "us", x_max=3.0, bars=True).count("<rect") == 1 and "nothing" in forest([], "x")


def test_development_sets_are_marked_for_the_guard_that_saw_them() -> None:
    one = DETECT | {"file": "gptfuzz_responses_eval", "meta": meta("embedded")}
    other = DETECT | {"file": "diasafety_test", "meta": meta("embedded")}
    grid = tables.detection([one, other])
    assert [row[0] for row in grid.rows] == ["gptfuzz_responses_eval (dev)", "diasafety_test"]
    assert "no test" in grid.note and "283 of its 1,540" in grid.note and "26 of its 1,094" in grid.note
    assert "gptfuzz_responses_eval (dev)" in report.page([one])
    labels = tables.categories([one])
    assert labels.rows[0][0].endswith("(dev)") and "no test" in labels.note
    assert "no test" not in tables.categories([other]).note
    plain = tables.detection([one | {"meta": meta("webhook")}])
    assert plain.rows[0][0] == "gptfuzz_responses_eval" and "no test" not in plain.note


def test_a_note_keeps_its_brackets() -> None:
    from rich.console import Console
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(tables.Grid("t", ("a",), (("x",),), "pip install 'litellm[proxy]'").rich())
    assert "litellm[proxy]" in "".join(console.export_text().split())


def test_results_are_stored_one_object_a_line(tmp_path: Path) -> None:
    store.save(tmp_path / "x.json", [DETECT])
    assert json.loads((tmp_path / "x.json").read_text())["F1"] == DETECT["F1"]
    assert store.load(tmp_path / "x.json") == [DETECT]
    (tmp_path / "bad.json").write_text('{"no": "kind"}')
    with pytest.raises(store.BadResults, match="holds no results"):
        store.load(tmp_path / "bad.json")


def test_documents_keep_their_prose(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text("# Prose\n<!-- measured:detect -->\nold\n<!-- /measured -->\nmore\n"
                    "<!-- measured:speed -->\nkept\n<!-- /measured -->\n")
    assert docs.write([DETECT], tmp_path) == ["detect"]
    text = path.read_text()
    assert text.startswith("# Prose\n") and "old" not in text and "kept" in text and "| a<b> |" in text
    assert docs.write([DETECT], tmp_path) == ["detect"] and path.read_text() == text


def test_every_kind_has_tables_for_the_documents() -> None:
    found = docs.sections([DETECT, *OTHERS])
    assert set(found) == {"detect", "categories", "policies", "costs", "speed", "capacity", "transparency"}
    assert "| firewall | 50.0 | 90.0 |" in found["speed"] and "1.9 x / 1.8 x" in found["speed"]
    assert "| 16 words in one policy | x | 62 | 0.50 |" in found["costs"] and "400 rows a second" in found["capacity"]


def call(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchmarks", *args], capture_output=True, text=True, timeout=90)


async def test_the_contract_of_run(words: Words, tmp_path: Path) -> None:
    import asyncio
    rows = [r.json() | {"id": str(k), "messages": [{"role": "user", "content": "KUMQUAT" if r.unsafe else "fig"}]}
            for k, r in enumerate(ROWS[:10])]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "fruit.md").write_text("---\nid: fruit\n---\n- Names the fruit.\n")
    out = tmp_path / "out.json"
    done = await asyncio.get_running_loop().run_in_executor(None, lambda: call(
        "run", str(tmp_path / "set.jsonl"), "--guard", f"webhook:{words.url}", "--policies", str(tmp_path), "--json",
        str(out), "--html", str(tmp_path / "page.html")))
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert {"rows", "F1", "recall", "FPR", "AUROC", "floor", "unreadable", "latency"} <= set(result)
    assert (result["rows"], result["F1"], result["AUROC"], result["file"]) == (10, 1.0, 1.0, "set")
    assert "front door" in done.stdout or "set" in done.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_mistakes_are_said(tmp_path: Path) -> None:
    done = call("run", "nowhere.jsonl")
    assert done.returncode == 2 and "no such file" in done.stderr and "Traceback" not in done.stderr
    assert call("report", str(tmp_path / "none")).returncode == 2
    assert "crossed controls" in call("--help").stdout


def test_compare_is_a_flag_too(tmp_path: Path) -> None:
    store.save(tmp_path / "a.json", [DETECT])
    done = call("--compare", str(tmp_path / "a.json"), str(tmp_path / "a.json"))
    assert done.returncode == 0 and "What changed: detection" in done.stdout and "same" in done.stdout


def test_without_its_extra_it_says_what_to_install():
    code = "import runpy, sys; sys.modules['psutil'] = None; runpy.run_module('benchmarks', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "benchmarks: 'psutil' is not installed. Measuring needs it: pip install '.[bench]'\n"
