"""Policy files: what is read, every mistake with file and line, digests, directions, prose without form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import Mistakes
from firewall.policy import Policy, PolicySet, Rule, load, parse

GOOD = """---
id: pets
title: Pets
applies-to: output
action: flag
threshold: 0.7
tags: [a, b]
---
# Pets

We sell no pets.

## Violates
- `pets/1` Offers an animal for sale,
  also in a wrapped line.
- `pets/x` Names a price of an animal.

## Allowed
- Talking about cats.

## Exceptions
- Charity auctions.
"""


def test_a_whole_file():
    p = parse(GOOD, "pets", "pets.md")
    assert [(r.id, r.text) for r in p.rules] == [
        ("pets/1", "Offers an animal for sale, also in a wrapped line."), ("pets/x", "Names a price of an animal.")]
    assert (p.prose, p.allowed, p.exceptions) == ("We sell no pets.", ("Talking about cats.",), ("Charity auctions.",))
    assert (p.applies_to, p.action, p.threshold, p.tags) == ("output", "flag", 0.7, ("a", "b"))


@pytest.mark.parametrize(("old", "new", "said"), [
    ("action: flag", "action: blok", "pets.md:5: action: must be one of block, redact, flag; did you mean 'block'"),
    ("threshold: 0.7", "treshold: 0.7", "pets.md:6: unknown key 'treshold'; did you mean 'threshold'"),
    ("threshold: 0.7", "threshold: 7", "threshold: must be a number between 0 and 1"),
    ("id: pets", "id: cats", "id: must be the file's name, 'pets'"),
    ("`pets/x`", "`pets/1`", "pets.md:16: rule id 'pets/1' is used twice"),
    ("`pets/x`", "`cats/1`", "must start with 'pets/'"),
    ("## Violates", "## Violate", "did you mean 'violates'"),
    ("tags: [a, b]", "tags: a", "tags: must be a list of words"),
    ("tags: [a, b]\n---", "tags: [a, b]\n", "never closes"),
    ("title: Pets", "title: [", "front matter is not YAML"),
])
def test_mistakes_name_file_line_and_nearest(old, new, said):
    with pytest.raises(Mistakes) as e:
        parse(GOOD.replace(old, new), "pets", "pets.md")
    assert said in str(e.value)


@pytest.mark.parametrize("written", [
    "`p/x` Cash", "`p/x`: Cash", "`p/x`:Cash", "`p/x:` Cash", "`p/x` - Cash", "`p/x` \u2013 Cash", "`p/x`. Cash",
    "``p/x`` Cash", "**`p/x`** Cash", "**`p/x`**: Cash", "**`p/x`:** Cash", "_`p/x`_ \u2014 Cash", "**_`p/x`_** Cash",
    "[`p/x`] Cash", "`p/x`\n  Cash"])
def test_a_rule_id_may_be_set_off(written):
    assert parse(f"- {written}, -5 and **more**\n- two\n", "p", "p.md").rules == (
        Rule("p/x", "Cash, -5 and **more**"), Rule("p/2", "two"))


def test_emphasis_that_goes_on_behind_an_id_stays_with_the_words():
    assert [r.text for r in parse("- **`p/x` Cash.** Paid\n- `p/y` **Guns**: sold\n- `p/z` .exe files\n- `p/w` -5 or less",
                                  "p", "p.md").rules] == ["**Cash.** Paid", "**Guns**: sold", ".exe files", "-5 or less"]


@pytest.mark.parametrize(("written", "said"), [
    ("`P/x` hi", "'P/x' is no rule id: 'p/', then letters, digits, - and _; did you mean 'p/x'?"),
    ("**`P/X`**: hi", "did you mean 'p/X'?"), ("`p/two words` hi", "'p/two words' is no rule id"),
    ("`p/` hi", "'p/' is no rule id"), ("`p/a/b` hi", "'p/a/b' is no rule id"),
    ("`Q/\u00e4` hi", "'Q/\u00e4' looks like a rule id and is none"),
    ("`q/x`: hi", "rule id 'q/x' must start with 'p/'"), ("`p/x`", "rule id 'p/x' has no words"),
    ("p/money: hi", "write the rule id in backticks: `p/money`"), ("**P/cash** hi", "backticks: `p/cash`"),
    ("[p/4] hi", "backticks: `p/4`"), ("p/x - hi", "backticks: `p/x`")])
def test_what_is_meant_for_a_rule_id_and_is_none_is_a_mistake(written, said):
    with pytest.raises(Mistakes) as e:
        parse(f"## Violates\n- one\n- {written}\n", "p", "p.md")
    assert e.value.lines[0].startswith("p.md:3: ") and said in e.value.lines[0]


@pytest.mark.parametrize("words", ["`/etc/passwd` in answers", "`rm -rf /` as advice", "`../x` in paths", "`id` cards",
                                   "`</b>` tags", "p/money is laundered", "and/or: both", "`.git/config` leaks"])
def test_a_slash_alone_makes_no_rule_id(words):
    assert parse(f"- {words}", "p", "p.md").rules == (Rule("p/1", words),)


@pytest.mark.parametrize("heading", ["## Violates", "## Allowed", "## Exceptions"])
def test_a_file_cut_inside_a_heading_is_refused(heading):
    begin = GOOD.index(heading)
    line = GOOD[:begin].count("\n") + 1
    for end in range(begin + 1, begin + len(heading)):
        with pytest.raises(Mistakes) as e:
            parse(GOOD[:end], "pets", "pets.md")
        said = str(e.value)
        assert f"pets.md:{line}: " in said and heading[3:].lower() in said, GOOD[begin:end]


def test_a_cut_heading_in_prose_is_no_rule():
    for text in ("# Pe", "# Pets\n\n#", "# Pets\n\nWe sell none.\n\n## Vio", "# Pets\n\nWe sell none.\n\n## Background"):
        with pytest.raises(Mistakes, match=r"pets\.md:\d+: "):
            parse(text, "pets", "pets.md")
    assert parse("# Pets\nWe sell none.\nA zoo.", "pets", "pets.md").rules == (Rule("pets/1", "We sell none. A zoo."),)


def test_every_shipped_policy_cut_inside_a_heading_is_refused():
    from firewall.config import SHIPPED
    for path in sorted((SHIPPED / "policies").glob("*.md")):
        text = path.read_text("utf-8")
        for at in (m.start() for m in re.finditer("^## ", text, re.M)) if path.name != "README.md" else ():
            for end in range(at + 1, text.index("\n", at)):
                with pytest.raises(Mistakes):
                    parse(text[:end], path.stem, path.name)


FRONT = "---\nid: w\naction: flag\nenabled: false\n---\n"
BOMBS, BODY = (("bombs",), (), (), ()), "# W\n## Violates\n- bombs\n"
BOTH = (("bombs",), ("history of weapons",), (), ())


def fields(p: Policy) -> tuple[tuple[str, ...], ...]:
    return tuple(r.text for r in p.rules), p.allowed, p.exceptions, p.examples


@pytest.mark.parametrize("above", ["\n", " \n\n", "<!-- (c) ACME\n-->\n", "\ufeff\n", "<!-- a -->\n<!-- b -->\n\n"])
def test_what_stands_above_front_matter_does_not_hide_it(above):
    for front in (FRONT, FRONT.replace("---", "--- ").replace("--- \n#", "---\t\n#")):
        p = parse(above + front + BODY, "w", "w.md")
        assert (p.action, p.enabled, p.prose, fields(p)) == ("flag", False, "", BOMBS)
    with pytest.raises(Mistakes) as e:
        parse(above + FRONT.replace("action", "acton") + BODY, "w", "w.md")
    assert f"w.md:{above.count(chr(10)) + 3}: unknown key 'acton'" in str(e.value)


@pytest.mark.parametrize("text", [
    "# Violates\n- bombs\n# Allowed\n- history of weapons\n",
    "# W\n### Violates\n- bombs\n### Allowed:\n- history of weapons",
    "# W\n## Violates\n- bombs\n### Allowed\n- history of weapons\n",
    "# W\n##Violates\n- bombs\n ##Allowed\n- history of weapons",
    "W\n=\n\nViolates\n--------\n- bombs\n\nAllowed\n---\n- history of weapons\n",
    "# W\n**Violates**\n- bombs\n\n__Allowed:__\n- history of weapons\n",
    "[Violates]\n- bombs\n[Allowed]\n- history of weapons\n",
    "Violates:\n- bombs\nAllowed:\n- history of weapons\n",
    "# W\n## Violates ##\n- bombs\n## **ALLOWED** (2) ##\n- history of weapons",
    "## Violates\n* bombs\n\n**Allowed:** history of\nweapons\n", "## Violates\r- bombs\r## Allowed\r- history of weapons\r",
    "## Violates\nbombs\n\n## Allowed\nhistory\nof weapons\n",
    "## Violates\n\u2022bombs\n***\n## Allowed\n (1) history\n   of weapons\n",
    "## Violates\n- bombs <!-- - knives -->\n<!--\n- knives\n## Examples\n-->\n## Allowed\n- history of weapons\n",
    "## Violates\n### Old\n- bombs\n### Allowed\n- history of weapons\n"])
def test_a_section_is_what_a_person_takes_for_one(text):
    p = parse(text, "w", "w.md")
    assert (fields(p), p.prose) == (BOTH, "")


def test_a_heading_ends_the_sections_of_its_level_and_below():
    p = parse("## Violates\n### Guns\n- a\n### Exceptions\n- b\n#### Police\n- c\n### Knives\n- d\n**Allowed**\n- e\n"
              "**Blades**\n- f\n## Examples\n- g", "w", "w.md")
    assert fields(p) == (("a", "d", "f"), ("e",), ("b", "c"), ("g",))


def test_bullets_of_every_kind_and_what_goes_on_below_them():
    p = parse("## Violates\n- one\n - two\n\u2022 three\n* four\n  - and more\nof it\n\n  still four\n\n1) five\n(b) six\n",
              "w", "w.md")
    assert fields(p)[0] == ("one", "two", "three", "four - and more of it still four", "five", "six")
    p = parse("# W\n\u2022 one\n - two\n\t\u2022 more\n", "w", "w.md")
    assert fields(p)[0] == ("one", "two \u2022 more")


def test_prose_in_sections_is_kept():
    p = parse("# W\nLead.\n\n## Violates\nSelling\nguns.\n\nNobody may do this:\n\n- bombs\n  and\n\n"
              "**Knives are never sold.**\n## Exceptions\nPolice:\n- training\n\nMuseums.\n", "w", "w.md")
    assert fields(p) == (("Selling guns.", "bombs and", "**Knives are never sold.**"), (),
                         ("Police:", "training", "Museums."), ())
    assert p.prose == "Lead. Nobody may do this:" and [r.id for r in p.rules] == ["w/1", "w/2", "w/3"]


def test_examples_without_bullets_stay_examples():
    p = parse(BODY + '## Examples\nViolates: "a"\n**Allowed:** "b"\nor c\n', "w", "w.md")
    assert fields(p) == (("bombs",), (), (), ('Violates: "a"', '**Allowed:** "b" or c'))


def test_comments_in_quotes_are_words():
    p = parse("## Violates\n- Hides text in `<!-- x -->`.\n## Examples\n- violates: \"<!-- obey -->\"\n", "w", "w.md")
    assert fields(p) == (("Hides text in `<!-- x -->`.",), (), (), ('violates: "<!-- obey -->"',))


@pytest.mark.parametrize(("text", "said"), [
    (BODY + "## Forbidden for staff\n- guns\n", "w.md:4: heading 'forbidden for staff': did you mean 'violates'"),
    (BODY + "## Not allowed\n- guns\n", "w.md:4: heading 'not allowed': did you mean 'violates'"),
    (BODY + "## Permitted uses\n- guns\n", "w.md:4: heading 'permitted uses': did you mean 'allowed'"),
    (BODY + "## Staff\n- guns\n", "w.md:4: heading 'staff' is no section"),
    (BODY + "# Other\n- guns\n", "w.md:4: heading 'other' is no section"),
    ("# W\n- bombs\n## Verboten\n- guns\n", "w.md:3: heading 'verboten'"),
    ("# W\n- bombs\n# More\n- guns\n", "w.md:3: heading 'more' is no section"),
    (BODY + "### Exceptions for staff\n- guns\n", "w.md:4: 'exceptions for staff' would name a group under 'violates'; did"),
    (BODY + "\nException: police.\n", "w.md:5: 'exception' under 'violates' would be one of its items; did you mean 'exc"),
    (BODY + "## Examples\n### Violates\n- guns\n", "w.md:5: 'violates' under 'examples': begin each bullet with `viol"),
    (BODY + "### Prices\n## Allowed\n- history\n", "w.md:4: 'prices' has nothing under it"),
    (BODY + "**No guns**\n", "w.md:4: 'no guns' has nothing under it"),
    (BODY + "```\n## Allowed\n- all\n```\n", "w.md:4: a code block is no rule"),
    (BODY + "\n| guns | yes |\n", "w.md:5: a table is no list of rules"),
    (BODY + "-guns\n", "w.md:4: a bullet needs a blank"), (BODY + "-\n", "w.md:4: a bullet needs a blank"),
    (BODY + "<!-- - guns\n", "w.md:4: a comment opens with <!-- and never closes"),
    ("id: w\naction: flag\n\n" + BODY, "w.md:2: `action:` stands outside the front matter"),
    ("# W\n" + FRONT + BODY, "`action:` stands outside the front matter"),
    ("---\nthreshold: 0.5\n# so\nthreshold: 0.99\n---\n" + BODY, "w.md:4: key 'threshold' stands twice, first in line 2"),
    ("---\n# so\n\nmessage: 1\n---\n" + BODY, "w.md:4: message: must be text"),
    ("---\ntitle: 2020-99-99\n---\n" + BODY, "w.md:2: front matter is not YAML"),
    ("+++\naction = 'x'\n+++\n" + BODY, "w.md:1: front matter of another kind would be prose"),
    ("<!-- c -->\n\n{'title':\n'x'}\n" + BODY, "w.md:3: front matter of another kind"),
    ("{\n  x: 1\n}\n" + BODY, "w.md:2: front matter of another kind"),
    ("Action: flag only\n\n" + BODY, "w.md:1: `action:` stands outside the front matter"),
    ("**Enabled:** false\n\n" + BODY, "w.md:1: `enabled:` stands outside"),
    ("# W\n- action: flag\n" + BODY, "w.md:2: `action:` stands outside"),
    ("# W\n\n  threshold = .9\n" + BODY, "w.md:3: `threshold:` stands outside"),
    ("Applies to: output\n" + BODY, "w.md:1: `applies-to:` stands outside"),
    ("`message`: No.\n\n" + BODY, "w.md:1: `message:` stands outside"),
    ("- Action: flag\n- bombs\n", "w.md:1: `action:` stands outside"),
    (BODY + "- enabled: false\n", "w.md:4: `enabled:` stands outside"),
    (BODY + "- Allowed: history\n", "w.md:4: 'Allowed' would be an item of 'violates'; put it under `## Allowed`, or begin"),
    (BODY + "- **Exceptions:** staff\n", "w.md:4: 'Exceptions' would be an item of 'violates'; put it under"),
    (BODY + "- Not a violation: history\n", "w.md:4: 'Not a violation' would be an item of 'violates'"),
    (BODY + "## Allowed\n- *Never*: guns\n", "w.md:5: 'Never' would be an item of 'allowed'; put it under `## Violates`"),
    (BODY + "\nExceptions for staff: they may.\n", "w.md:5: 'Exceptions for staff' would be an item of 'violates'; put it"),
    (BODY + "\n**Exceptions for staff:** they may.\n", "w.md:5: 'Exceptions for staff' would be"),
    (BODY + "\n**Exceptions for staff** may.\n", "w.md:5: 'Exceptions for staff' would be"),
    (BODY + "- Allowed for our staff: vouchers\n", "w.md:4: 'Allowed for our staff' would be"),
    (BODY + "\nExceptions for staff\n\n- they may\n", "w.md:5: 'Exceptions for staff' would be"),
    (BODY + "\nExceptions for staff:\n- they may\n", "w.md:5: 'Exceptions for staff' would be"),
    (BODY + "\nExceptions for staff:\n\nThey may.\n", "w.md:5: 'Exceptions for staff' would be"),
    (BODY + "\nThe following is allowed:\n- history\n", "w.md:5: 'allowed' would be an item of 'violates'"),
    (BODY + "## Allowed\n- Not allowed in shops: guns\n", "w.md:5: 'Not allowed in shops' would be an item of 'allowed'"),
    ("## Violates\n- R1: one\n  R2: two\n", "w.md:3: this line and one above seem to begin items of a list ('R1:', 'R2:')"),
    ("- a. one\nb. two\n", "w.md:2: this line and one above seem to begin items of a list ('a.', 'b.')"),
    ("# W\nNever:\n- bombs\n## Allowed\n- history\n", "w.md:3: no rule: this stands above the sections; write `## Viol"),
    ("# W\nNever.\n## Allowed\n- history\n", "w.md:1: no rule: write at least one bullet under `## Violates`"),
    ("ID: w\n\n## Violates\n- bombs\n", "w.md:1: `id:` stands outside"),
    ("Tags: a, b\n\n## Violates\n- bombs\n", "w.md:1: `tags:` stands outside"),
    ("**Detect:** [a key, b]\n\n## Violates\n- bombs\n", "w.md:1: `detect:` stands outside"),
    ("Tags:\n- a\n\n## Violates\n- bombs\n", "w.md:1: `tags:` stands outside"),
    ("Message: Ask the manager.\n\n## Violates\n- bombs\n", "w.md:1: `message:` stands outside"),
    ("## Violates\n- bombs\n\nExamples for staff:\n- how to bake\n", "w.md:4: 'Examples for staff' would be an item"),
    (BODY + "- The following should not be blocked: history\n", "w.md:4: 'not be blocked' would be an item of 'violates'"),
    (BODY + "## Examples\n### Bad\n- guns\n", "w.md:5: 'bad' under 'examples': begin each bullet with `violates:`"),
])
def test_what_would_be_lost_is_a_mistake(text, said):
    with pytest.raises(Mistakes) as e:
        parse(text, "w", "w.md")
    assert said in str(e.value)


@pytest.mark.parametrize("lead", [
    "Action: staff call the manager.", "Applies to: all assistants in retail.", "Threshold: 10 euros", "Titles of nobility.",
    "{company} sells no guns.", "The action is: block.", "+1 for this rule", "Messages: send none.", "Depth: charges, all."])
def test_prose_that_names_a_key_is_prose(lead):
    p = parse(f"# W\n{lead}\n\n" + BODY.removeprefix("# W\n"), "w", "w.md")
    assert (p.prose, fields(p), p.action) == (lead, BOMBS, "block")


def test_items_that_begin_with_a_name_stay_items():
    rules = ("Action: films with gore", "Permitted substances: sold to minors", "Never: bombs", "Depth: charges",
             "No exceptions for staff: they get none", "Acceptable words for slurs", "Examples of malware: code that runs",
             "Allowed by nobody but asked for.", "Exceptions made up for a refund", "-x of chmod",
             "R1: one\n  A) two\n  B) three")
    text = "".join(f"- {rule}\n" for rule in rules)
    rules = tuple(" ".join(rule.split()) for rule in rules)
    p = parse(f"## Violates\n{text}- `w/x` Allowed: said by a parrot\n## Allowed\n- Banned substances: their history\n"
              "## Exceptions\n- Allowed: police\n- Example: police\n", "w", "w.md")
    assert fields(p) == ((*rules, "Allowed: said by a parrot"), ("Banned substances: their history",),
                         ("Allowed: police", "Example: police"), ())
    assert fields(parse(text, "w", "w.md"))[0] == rules


LINES = ["- {}", " - {}", "  - {}", "\t* {}", "\u2022 {}", "(a) {}", "{}", "  {}", "{}:", "", "", "## Violates",
         "## Violates", "### Allowed", "Exceptions:", "**Allowed:** {}", "**Group**", "[Group]", "### Group", "---",
         "Examples\n---", "**{}.**", "# Title", "#{}", "> {}", "| {} |", "-{}", "{}\n---", "<!-- note -->",
         "\u2192 {}", "\u2705 {}", "\u274c{}", "A) {}", "1.1 {}", "R1: {}", "a. {}", "> - {}",
         "\u2705 Allowed:", "\u26a0 {}:", "1\u3001{}"]


@given(st.lists(st.sampled_from(LINES), max_size=14))
def test_no_word_of_a_file_is_lost(lines):
    text = "\n".join(["Lead.", *(line.format(f"word{k}") for k, line in enumerate(lines))])
    try:
        p = parse(text, "w", "w.md")
    except Mistakes as e:
        assert all(re.match(r"w\.md:\d+: \S", line) for line in e.lines)
    else:
        kept = " ".join((p.prose, *(x for part in fields(p) for x in part)))
        assert set(re.findall(r"word\d+", kept)) == set(re.findall(r"word\d+", text))


def test_ad_hoc_text_is_read_as_ever():
    """The guard was trained on this reading: what a file may be read better, a text may not."""
    for text, rules in ((BODY + "### Allowed\n- history\n", ("bombs", "history")),
                        (BODY + "\u2022 guns", ("bombs \u2022 guns",)),
                        ("\n" + FRONT + BODY, ("bombs",)), (BODY + "## Staff\n- guns\n\nmore", ("bombs",)),
                        ("## A\nx\n- a\n## B\n- b\n\nc", ("a", "b c")), ("## A\nx\n# B\ny", ("## A x y",)),
                        ("---\nthreshold: 0.5\nthreshold: 0.9\n---\n- a\n -b", ("a -b",))):
        p = Policy.from_text("w", text)
        assert fields(p) == (rules, (), (), ()) and p.enabled and p.threshold in (0.5, 0.9)
    assert Policy.from_text("p", "- `p/x`: a\n- `P/y` b").rules == (Rule("p/1", "`p/x`: a"), Rule("p/2", "`P/y` b"))
    assert Policy.from_text("P, q", "A) a\n\u2192 b").rules == (Rule("P, q/1", "A) a \u2192 b"),)


def test_a_line_that_names_a_group_ends_the_bullet_above():
    text = "Only these are enforced.\n[Spam]\n- one\n  more\n[Theft]\n- two\n**Fraud**\nNo fraud,\never.\n- three\nwrapped\n"
    assert [r.text for r in Policy.from_text("x", text).rules] == ["one more", "two", "No fraud, ever.", "three wrapped"]
    under = GOOD.replace("- `pets/x`", "### Prices\n- `pets/x`")
    assert [r.text for r in parse(under, "pets", "pets.md").rules][0].endswith("in a wrapped line.")


def test_all_files_mistakes_at_once_and_nothing_loaded(tmp_path: Path):
    (tmp_path / "a.md").write_text("---\nid: b\n---\n")
    (tmp_path / "c.md").write_bytes(b"\xff\xfe")
    (tmp_path / "README.md").write_text("not a policy")
    with pytest.raises(Mistakes) as e:
        load(tmp_path, enable=["nobody"])
    text = str(e.value)
    assert "a.md:2" in text and "c.md:1" in text and "'nobody'" in text and "README" not in text
    with pytest.raises(Mistakes, match="would pass everything"):
        load(tmp_path / "empty") if (tmp_path / "empty").mkdir() is None else None
    with pytest.raises(Mistakes, match="no such folder"):
        load(tmp_path / "none")


@pytest.mark.parametrize(("name", "said"), [
    ("Gift, cards", "rename 'Gift, cards.md' to 'gift-cards.md'"), ("\u4ee3\u91d1\u5238", "for example to 'gift-cards.md'"),
    ("Gutscheine_f\u00fcr", "to 'gutscheine-fur.md'"), ("-x", "to 'x.md'"), ("x" * 70, f"to '{'x' * 64}.md'")])
def test_a_file_whose_name_is_no_id_is_refused(tmp_path: Path, name: str, said: str):
    """Its rules' ids stand in a header and in comma-separated lists."""
    for text in ("- one rule\n", f"---\nid: {name!r}\n---\n- one rule\n", "---\nid: gift-cards\n---\n- one rule\n"):
        (tmp_path / f"{name}.md").write_text(text)
        with pytest.raises(Mistakes) as e:
            load(tmp_path)
        assert e.value.lines[0].startswith(f"{tmp_path / name}.md:1: ") and said in e.value.lines[0]
    assert [line for line in e.value.lines if "must be the file's name" in line] == []


def test_enable_and_disable_win_over_front_matter(tmp_path: Path):
    (tmp_path / "a.md").write_text("---\nenabled: false\n---\n- one rule\n")
    (tmp_path / "b.md").write_text("- another rule\n")
    assert [p.id for p in load(tmp_path)] == ["b"]
    assert [p.id for p in load(tmp_path, ["a"], ["b"])] == ["a"]


def test_a_folder_with_everything_off_is_refused_like_an_empty_one(tmp_path: Path):
    (tmp_path / "a.md").write_text("---\nenabled: false\n---\n- one rule\n")
    with pytest.raises(Mistakes, match=r"would pass everything; write `enabled: true` .* or name one in `enable`"):
        load(tmp_path)
    with pytest.raises(Mistakes, match="would pass everything"):
        load(tmp_path, ["a"], ["a"])
    assert len(load(tmp_path, ["a"])) == 1


def test_prose_without_form():
    assert [r.text for r in parse("- one\n- two\n", "x", "x.md").rules] == ["one", "two"]
    assert [r.id for r in Policy.from_text("x", "1. one\n2) two").rules] == ["x/1", "x/2"]
    assert Policy.from_text("x", "Never mention\ncompetitors.").rules[0].text == "Never mention competitors."
    with pytest.raises(Mistakes):
        Policy.from_text("x", "  ")


def test_digest_follows_every_change_and_not_the_order():
    a, b = Policy.from_text("a", "one"), Policy.from_text("b", "two")
    assert PolicySet.of([a, b]).digest == PolicySet.of([b, a]).digest
    assert len({PolicySet.of([a]).digest, PolicySet.of([b]).digest, PolicySet.of([a, b]).digest,
                PolicySet.of([Policy.from_text("a", "one!")]).digest}) == 4


def test_sides():
    p = parse(GOOD, "pets", "pets.md")
    both = PolicySet.of([p, Policy.from_text("x", "rule")])
    assert [q.id for q in both.side("input")] == ["x"] and both.side("output") is both
    assert both.side("input") is both.side("input")
    assert both.owner["pets/x"] is p and both.rule_ids == ("pets/1", "pets/x", "x/1")


@given(st.text(max_size=300))
def test_any_text_is_a_policy_or_a_clear_mistake(text):
    try:
        policy = Policy.from_text("x", text)
    except Mistakes as e:
        assert all(line.startswith("x (ad hoc):") for line in e.lines)
    else:
        assert policy.rules and all(r.text for r in policy.rules)
