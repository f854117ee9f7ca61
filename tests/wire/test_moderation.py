"""`/v1/moderations`: inputs in, results out, as openai-python reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from openai.types import ModerationCreateResponse

from firewall.errors import FirewallError
from firewall.policy import Policy, PolicySet, Rule
from firewall.verdict import ALLOW, Finding, Verdict, decide
from firewall.wire.moderation import NAMES, Moderation

POLICIES = PolicySet(
    tuple(Policy(name, name, (Rule(f"{name}/1", "a rule"),)) for name in ("weapons", "hate", "house-rules"))
)
WIRE = Moderation()


def test_results() -> None:
    asked = WIRE.ask({"model": "omni-moderation-latest", "input": ["one", "two"]})
    groups = WIRE.inputs(asked)
    assert [[m.text for m in group] for group in groups] == [["one"], ["two"]]
    verdict = Verdict("g", (Finding("weapons/1", 0.9), Finding("hate/1", 0.2)), 0.9)
    body = WIRE.answer([(decide([verdict], POLICIES), [verdict]), (ALLOW, [Verdict("g")])], POLICIES, "req_1", "m")
    read = ModerationCreateResponse.model_validate(orjson.loads(body), strict=True)
    first, second = read.results
    assert read.id == "modr-1" and first.flagged and not second.flagged
    assert first.categories.illicit and first.categories.illicit_violent and not first.categories.hate
    assert first.category_scores.illicit == 0.9 and first.category_scores.hate == 0.2
    raw = orjson.loads(body)["results"][0]
    assert raw["categories"]["weapons"] is True and raw["categories"]["house-rules"] is False
    assert (
        set(NAMES) <= set(raw["categories"]) == set(raw["category_scores"]) == set(raw["category_applied_input_types"])
    )


def test_parts_are_one_input_and_strange_fields_go_along() -> None:
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    asked = WIRE.ask({"input": parts, "extra": "zebra"})
    (group,) = WIRE.inputs(asked)
    assert [m.text for m in group] == ["look", "extra", "zebra"] and asked.opaque == ("input.1.image_url.url",)


@pytest.mark.parametrize("value", [None, 7, [], [1], ["a", {}], {}])
def test_wrong_inputs(value: Any) -> None:
    with pytest.raises(FirewallError) as error:
        WIRE.ask({"input": value})
    assert error.value.param == "input"
    assert orjson.loads(WIRE.error(error.value, "r"))["error"]["code"] == "invalid_field"


def test_categories_name_shipped_policies() -> None:
    from firewall.wire.moderation import CATEGORIES

    shipped = {path.stem for path in (Path(__file__).resolve().parents[2] / "policies").glob("*.md")}
    assert set(CATEGORIES) <= shipped
