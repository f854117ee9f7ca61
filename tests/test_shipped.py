"""The policies in the package: well formed, with cases both ways, and the same however they are read."""

from __future__ import annotations

from firewall.policy import Policy, load, parse


def test_a_shipped_policy_is_the_same_read_as_a_file_and_as_a_text():
    """Its digest stands in records and in the encoder's cached codes: a better reader must not change it."""
    from firewall.config import SHIPPED
    for path in (SHIPPED / "policies").glob("*.md"):
        if path.name != "README.md":
            text = path.read_text("utf-8")
            assert parse(text, path.stem, "x") == Policy.from_text(path.stem, text), path.name


def test_the_shipped_policies_are_well_formed_and_have_cases_both_ways():
    """P08 and issue 1: at least fourteen policies, each with 12 violating and 12 innocent cases."""
    from firewall.commands import _cases
    from firewall.config import SHIPPED
    folder = SHIPPED / "policies"
    files = [p for p in folder.glob("*.md") if p.name != "README.md"]
    assert len(files) >= 14
    for path in files:
        policy = parse(path.read_text(), path.stem, str(path))
        cases = _cases(path.with_suffix(".cases.jsonl"), policy)
        assert sum(bool(c.expect) for c in cases) >= 12 and sum(not c.expect for c in cases) >= 12, path.name
        assert {r for c in cases for r in c.expect} >= {r.id for r in policy.rules}, path.name
    assert len(load(folder)) >= 10
