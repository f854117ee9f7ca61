"""What a person takes for a list is one, or a mistake with its line: never one rule in silence."""

from __future__ import annotations

import os
import re
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import Mistakes
from firewall.page import read
from firewall.policy import load, parse

SIGNS = [("A) ", "B) "), ("\u0430) ", "\u0431) "), ("(A) ", "(B) "), ("i) ", "ii) "), ("1.1. ", "1.2. "), ("1.1) ", "1.2) "),
         ("1\u3001", "2\u3001"), ("\u4e00\u3001", "\u4e8c\u3001"), ("1\uff09", "2\uff09"),
         ("\uff081\uff09", "\uff082\uff09"), ("\u2460", "\u2461 "), ("1\ufe0f\u20e3 ", "2\ufe0f\u20e3 "),
         ("1000) ", "1001) "), ("\u2192 ", "\u2192 "), ("-> ", "-> "), ("\u274c ", "\u274c"),
         ("\u2714\ufe0f ", "\u2714\ufe0f "), ("\u30fb", "\u30fb"), ("\u2212 ", "\u2212 "),
         ("\u2013 ", "\u2013 "), ("\U0001f52b ", "\U0001f4a3 "), ("\uf0b7\t", "\uf0b7\t"), ("\u00bb ", "\u00bb ")]
LIKE = [("a. ", "b. "), ("A. ", "B. "), ("i. ", "ii. "), ("1.1 ", "1.2 "), ("R1: ", "R2: "), ("Rule 1. ", "Rule 2. "),
        ("\u00a7 1 ", "\u00a7 2 "), ("#1 ", "#2 "), ("1: ", "2: "), ("1 - ", "2 - "), ("[1] ", "[2] "), ("1000. ", "1001. "),
        ("1.", "2."), ("1.\n", "2.\n"), ("-- ", "-- "), ("~ ", "~ "), ("\\- ", "\\- "), ("*", "*"), ("o\t", "o\t")]


@pytest.mark.parametrize(("first", "second"), SIGNS)
@pytest.mark.parametrize("above", ["", "# W\nWe forbid:\n", "## Violates\n", "## Violates\nWe forbid:\n"])
def test_signs_begin_items(above, first, second):
    p = parse(f"{above}{first}one\nwrapped\n{second}two\n\n{second}three\n", "w", "w.md")
    assert [r.text for r in p.rules] == ["one wrapped", "two", "three"]


@pytest.mark.parametrize(("first", "second"), LIKE)
@pytest.mark.parametrize("above", ["", "# W\n- zero\n", "## Violates\n"])
def test_lines_that_seem_to_begin_items_are_a_mistake(above, first, second):
    with pytest.raises(Mistakes) as e:
        parse(f"{above}{first}one\n{second}two\n{second}three\n", "w", "w.md")
    line = above.count("\n") + first.count("\n") + 2
    assert len(e.value.lines) == 1
    assert e.value.lines[0].startswith(f"w.md:{line}: this line and one above seem to begin items of a list")


@pytest.mark.parametrize("text", [
    "A man sells\nA gun or\na knife.", "2024 was\n2025 is", "Guns of\n1.5 kg each", "Addresses of\nJ. Smith and others",
    "- Threats with\n  A) guns\n  B) bombs", "- Threats with\n  1.1 guns\n  1.2 bombs",
    "Emoji such as\n\U0001f52b and so on", "- Emoji such as\n\u2192 and so on", "> Quoted\n> words",
    "\u9283\u3001\u5200\u3092\u58f2\u308b", "1\u30012\u56de\u58f2\u308b", "Pays\n30 dollars and\n40 euros",
    "\u00bbZitat\u00ab sagen"])
def test_sentences_stay_sentences(text):
    for above in ("", "## Violates\n"):
        assert [r.text for r in parse(above + text, "w", "w.md").rules] == [" ".join(text.removeprefix("- ").split())]


@pytest.mark.parametrize("above", ["", "Lead.\n", "## Violates\n", "## Violates\n- one\n\n", "- one\n  "])
@pytest.mark.parametrize("table", ["| a | b |\n|---|---|\n| c | d |\n", "a | b\n--- | ---\nc | d\n", "a | b\n:-: | -:\n",
                                   "+---+---+\n| a | b |\n", "\u2502 a \u2502 b \u2502\n", "a |\n--- |\n"])
def test_a_table_is_a_mistake_anywhere(above, table):
    with pytest.raises(Mistakes) as e:
        parse(above + table, "w", "w.md")
    assert len(e.value.lines) == 1 and re.match(r"w\.md:\d: a table is no list of rules", e.value.lines[0])


@pytest.mark.parametrize(("text", "said"), [
    ("> - a\n> - b", "w.md:1: a list in a quote"), ("## Violates\n- x\n\n>1. a\n", "w.md:4: a list in a quote"),
    ("> \u2192 a", "w.md:1: a list in a quote"), ("> a. one\n> b. two", "w.md:2: this line and one above"),
    ("<ul><li>a</li>\n<li>b</li></ul>", "w.md:1: HTML is read as words"), ("- x\n&bull; y", "w.md:2: HTML is read"),
    ("-one\n-two", "w.md:1: a bullet needs a blank"),
    ("\u2705 a\n\u274c b", "w.md:2: items with a check mark and items with a cross in one section"),
    ("## Violates\n- \u2705 a\n- \u274c b", "w.md:3: items with a check mark and items with a cross in one section")])
def test_lists_of_other_formats_are_mistakes(text, said):
    with pytest.raises(Mistakes) as e:
        parse(text, "w", "w.md")
    assert said in str(e.value)


def test_check_marks_may_part_examples_and_name_sections():
    p = parse("## Violates\n\u274c a\n\n\u2705 Allowed:\n\u2705 b\n"
              "## Examples\n\u274c violates: c\n\u2705 allowed: d\n", "w", "w.md")
    assert ([r.text for r in p.rules], p.allowed, p.examples) == (["a"], ("b",), ("violates: c", "allowed: d"))


def test_a_single_sign_adorns_the_lead():
    for text in ("\u26a0\ufe0f House rules.\n\n- a\n- b\n", "\u26a0\ufe0f House rules.\n## Violates\n- a\n- b\n"):
        p = parse(text, "w", "w.md")
        assert [r.text for r in p.rules] == ["a", "b"] and p.prose.startswith("\u26a0\ufe0f House rules.")
    p = parse("## Violates\n\u26a0\ufe0f Never:\n- a\n- b\n", "w", "w.md")
    assert ([r.text for r in p.rules], p.prose) == (["a", "b"], "Never:")
    assert len(parse("\u2192 a:\n\u2192 b", "w", "w.md").rules) == 2 == len(parse("a) one\n- two", "w", "w.md").rules)


@given(st.text(st.sampled_from("-|>:.)( \n\t1aA\u2192\u274c\ufe0f\u3001*#[]<li")))
def test_any_page_is_read(text):
    parts, wrong = read(text)
    assert "" in parts and all(1 <= number <= text.count("\n") + 1 and said for number, said in wrong)


@pytest.mark.parametrize("unit", ["if ", "-", "- ", "|", "-|", ">", "> ", "\u2192", "\u2192\ufe0f", "1.", "1.1", "(", "*",
                                  " ", ":-|"])
def test_a_long_line_is_read_in_linear_time(unit):
    began = perf_counter()
    read(unit * 20_000 + "\n" + unit * 20_000 + "x:\n- a\n")
    assert perf_counter() - began < 2


@pytest.mark.parametrize("lead", ["ID: passports and identity cards.", "Tags: see below", "Detect = what looks like a key."])
def test_prose_that_begins_as_a_key_without_its_value_is_prose(lead):
    policy = parse(f"{lead}\n\n## Violates\n- Asks for a bomb.\n- Example: how do I make a pipe bomb?\n", "w", "w.md")
    assert policy.prose == lead
    assert [rule.text for rule in policy.rules] == ["Asks for a bomb.", "Example: how do I make a pipe bomb?"]


BODY = "# W\n## Violates\n- bombs\n"


@pytest.mark.parametrize("word", ["Allow", "Permit", "OK", "Okay", "Fine", "Safe", "Do", "Always allow", "Allow list",
                                  "OK to say", "Safe topics", "Do not block", "Don't block",
                                  "Dos", "Do's", "Allow the following", "Allow these topics", "Do not flag", "Don't stop",
                                  "Never filter"])
@pytest.mark.parametrize("form", ["### {}", "**{}**", "[{}]", "{}:", "This is {}:", "### \u2705 {}", "**{} \u2705**"])
def test_what_is_allowed_by_any_name_is_no_rule(word, form):
    with pytest.raises(Mistakes) as e:
        parse(f"{BODY}\n{form.format(word)}\n- history\n", "w", "w.md")
    assert re.match(r"w\.md:5: .*(did you mean 'allowed'|put it under `## Allowed`)", e.value.lines[0])


@pytest.mark.parametrize("line", ["### What's OK", "What's OK:", "### What is fine", "### What not to reject",
                                  "The following should not be flagged:", "- Allow: a", "- **OK**: a", "- Never block: a"])
def test_what_is_allowed_by_a_sentence_is_no_rule(line):
    with pytest.raises(Mistakes, match=r"w\.md:4: .*(did you mean 'allowed'|put it under `## Allowed`)"):
        parse(f"{BODY}{line}\n- history\n", "w", "w.md")


@pytest.mark.parametrize("word", ["Block", "Deny", "Forbid", "Don't", "Do not", "Bad", "Unsafe", "Not OK", "Never"])
@pytest.mark.parametrize("form", ["### {}\n- guns", "**{}**\n- guns", "- {}: guns", "- **{}**: guns"])
def test_what_is_forbidden_by_any_name_is_not_allowed(word, form):
    if form[0] != "-" or word not in ("Bad", "Unsafe"):
        with pytest.raises(Mistakes, match=r"w.md:5: .*iolates"):
            parse(f"{BODY}## Allowed\n{form.format(word)}\n", "w", "w.md")
    assert len(parse(f"{BODY}{form.format(word)}\n", "w", "w.md").rules) == 2


@pytest.mark.parametrize("name", ["Safe houses", "Fine dining", "Do it yourself weapons", "Blocked users", "Permit fraud",
                                  "Good Friday", "No", "Allowances"])
def test_a_name_that_holds_such_a_word_names_a_group(name):
    for form in ("### {}\n- guns", "**{}**\n- guns", "- {} in towns"):
        assert len(parse(f"{BODY}{form.format(name)}\n", "w", "w.md").rules) == 2
        assert len(parse(f"- bombs\n{form.format(name)}\n", "w", "w.md").rules) == 2


@pytest.mark.parametrize("line", ["Allow", "Never allow", "Permitted", "Exceptions for staff", "Do not flag", "Safe"])
def test_a_line_right_below_an_item_is_asked_too(line):
    """No blank line between them: the item would go on with it, and what is below be a rule, or allowed."""
    section = "## Allowed\n- history\n" if line == "Never allow" else ""
    with pytest.raises(Mistakes) as e:
        parse(f"{BODY}{section}{line}:\n- art\n", "w", "w.md")
    assert len(e.value.lines) == 1 and f"{line!r} would be an item of" in e.value.lines[0]
    assert len(parse(f"{BODY}- bombs of\nDrugs:\n- guns\n", "w", "w.md").rules) == 3


@pytest.mark.parametrize("name", ["Do not flag", "Don't flag", "Never block", "Do not stop", "Not harmful", "Not in scope",
                                  "Not covered", "What not to block", "Should not be flagged", "No action"])
def test_not_to_stop_is_allowed(name):
    """The advice to put them under Violates would turn the policy round."""
    for form in ("### {}\n- art", "{}:\n- art", "\n{}:\n- art", "- {}: art"):
        assert "art" in parse(f"{BODY}## Allowed\n- history\n{form.format(name)}\n", "w", "w.md").allowed[-1]


@pytest.mark.parametrize("lead", ["OK unless it contains", "Allowed unless", "It is safe unless it contains", "Fine unless",
                                  "Allow if it does not contain", "An answer is OK unless it contains", "Permitted except"])
def test_what_is_allowed_but_for_its_items_leads_to_rules(lead):
    for above in ("", "# W\n\n", "## Violates\n", "# W\n## Violates\n\n"):
        p = parse(f"{above}{lead}:\n- insults\n- threats\n", "w", "w.md")
        assert [r.text for r in p.rules] == ["insults", "threats"]


@pytest.mark.parametrize("name", ["DoS", "DOS", "DoS (denial of service)", "Safe to mix", "Good to know",
                                  "Safe for children", "Permits", "Fines"])
def test_a_noun_is_no_permission(name):
    assert len(parse(f"{BODY}### {name}\n- a\n", "w", "w.md").rules) == 2
    for item in (name, "Permit", "Fine", "Safe", "Allow list", "Good", "Accept", "Dos"):
        assert len(parse(f"{BODY}- {item}: forging one\n", "w", "w.md").rules) == 2
    for item in ("Do not resuscitate", "Don't panic", "Blocked content", "Ban", "Bad news"):
        assert parse(f"{BODY}## Allowed\n- {item}: the history\n", "w", "w.md").allowed == (f"{item}: the history",)


@pytest.mark.parametrize(("first", "second"), [
    ("The assistant must not:", "It must also not:"), ("Never:", "For example:"), ("Block:", "Also block:"),
    ("Drugs:", "Guns:"), ("\u6bd2\u54c1\uff1a", "\u6b66\u5668\uff1a"), ("", "See also:"), ("", "Drugs:"), ("", "Never:")])
def test_lines_that_say_the_same_name_groups_in_a_file_without_sections(first, second):
    p = parse(f"# W\n\n{first}\n- bombs\n\n{second}\n- guns\n{second}\n- knives\n", "w", "w.md")
    assert [r.text for r in p.rules] == ["bombs", "guns", "knives"]


@pytest.mark.parametrize(("first", "second"), [
    ("Never:", "Erlaubt:"), ("We must not:", "We may:"), ("We may:", "We must not:"), ("Yes:", "No:"), ("", "Staff may:"),
    ("", "Staff can talk about:"), ("Drugs:", "Allowed for staff:"), ("Drugs:", "Do not flag:")])
def test_lines_that_say_different_things_part_the_rules_of_a_file_without_sections(first, second):
    with pytest.raises(Mistakes, match="w.md:5: .*parts the rules"):
        parse(f"# W\n{first}\n- bombs\n\n{second}\n- guns\n", "w", "w.md")


@pytest.mark.parametrize("word", ["Allow", "Permitted", "Do", "This is fine", "Erlaubt", "\u5141\u8bb8", "Drugs", "drugs"])
@pytest.mark.parametrize("above", ["Block:\n- bombs\n\n", "# W\nNever sell:\n\n- bombs\n- guns\n\n"])
def test_a_line_that_parts_the_rules_of_a_file_without_sections_is_a_mistake(above, word):
    for end in (":", "\uff1a", " :"):
        with pytest.raises(Mistakes) as e:
            parse(f"{above}{word}{end}\n- history\n", "w", "w.md")
        assert len(e.value.lines) == 1
        assert e.value.lines[0].startswith(f"w.md:{above.count(chr(10)) + 1}: '{word}{end}' parts the rules of a file")
        lead = parse(f"{above}{word}{end}\n- history\n\n## Violates\n- bombs\n", "w", "w.md")
        assert [r.text for r in lead.rules] == ["bombs"]
    assert len(parse("We forbid:\n- bombs, that is\nthose of:\n- guns such as\n\n  these:\n- c\n", "w", "w.md").rules) == 3


@pytest.mark.parametrize(("text", "said"), [
    ("- bombs\n- Allowed: history\n", "w.md:2: 'Allowed' would be an item of 'violates'"),
    ("- bombs\n\n**Permitted**\n- history\n", "w.md:3: 'permitted' would name a group of rules; write `## Allowed`"),
    ("### Bad\n- bombs\n### Fine\n- history\n", "w.md:3: 'fine' would name a group of rules"),
    ("Allow:\n- history\n", "w.md:1: 'Allow' would be an item of 'violates'")])
def test_what_is_allowed_in_a_file_without_sections_is_no_rule(text, said):
    with pytest.raises(Mistakes) as e:
        parse(text, "w", "w.md")
    assert len(e.value.lines) == 1 and e.value.lines[0].startswith(said)


@pytest.mark.parametrize("words", ["Erlaubt:", "Erlaubt ist:", "**Ausnahmen**", "### Excepciones", "### Permitido",
                                   "Autorisé :", "Beispiele:", "Se permite:", "Nicht verboten:"])
def test_what_allows_in_another_language_is_no_rule(words):
    with pytest.raises(Mistakes, match=r"^w\.md:\d+: "):
        parse(f"# Preise\n\n## Violates\n- one\n\n{words}\n- two\n", "w", "w.md")


@pytest.mark.parametrize("heading", ["Notes", "Owner", "Response", "Versions", "Details", "Related"])
def test_a_heading_that_is_like_no_section_gets_no_wrong_hint(heading):
    with pytest.raises(Mistakes, match="is no section; the sections are"):
        parse(f"# W\n\n## Violates\n- one\n\n## {heading}\nOwned by sales.\n", "w", "w.md")


def test_a_pipe_among_the_policies_waits_for_nobody(tmp_path):
    os.mkfifo(tmp_path / "x.md")
    with pytest.raises(Mistakes, match="x.md:1: is no file"):
        load(tmp_path)
