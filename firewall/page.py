"""A policy file as a person reads it: its body -> sections of `- item` lines, and every line that would be lost.

Where the meaning is plain it is taken: any heading that bears a section's name (`# Allowed`, `##Allowed:`, underlined,
`**Allowed**`, `Allowed:`) opens that section, and a heading of the same or a higher level closes it; `-`, `*`, `+`,
`•`, `1.` and `(a)` are bullets up to one blank further in than the first; so are `A)`, `1.1.`, `1、`, arrows, check marks
and other signs where no sentence goes on; comments (`<!-- -->`) and rules (`---`) are nothing. Prose in a section is an
item, a paragraph each; prose that ends in a colon above the rules is lead. A heading below the section's own, `[Name]`
and `**Name**` name a group of items. What is neither is a problem with its line and a fix: an unknown section, a table,
a code block, a group without items, a group whose name is that of another section (`### Allow` among rules), a list in a
quote or in HTML, a second line of one item that begins as somebody's list would (`R1:`, `a.`), and in a file without
sections a line above a list that says another thing than one before (`Allow:`, `Drugs:` after `Never:`). A name that may
mean a topic (`Safe for children`, `- Fine: dodging one`), and `OK unless it contains:`, say nothing of a side.
"""

from __future__ import annotations

import difflib
import re

SECTIONS = ("violates", "allowed", "exceptions", "examples")
GROUP = re.compile(r"\[[^\[\]]+\]:?|\*\*[^*]+\*\*:?|__[^_]+__:?")      # a line of its own that names the bullets below
Parts = dict[str, list[tuple[int, str]]]
Problem = tuple[int, str]

_COMMENT = re.compile(r'`[^`\n]*`|"[^"\n]*"|<!--(?:.*?-->|.*)', re.S)    # what is quoted is no comment
_HEADING = re.compile(r" {0,3}(#{1,6})(?!#)(\s*)(.*?)[\s#]*")
_UNDER = re.compile(r" {0,3}(=+|-{2,})\s*")
_BULLET = re.compile(r"\s*(?:(?:[-*+–—‣▪●◦·]|\(?\d{1,3}[.)]|\(?[a-z]\))\s+|•\s*)(\S.*)")
_STUCK = re.compile(r"[-*+•]|[-+][^\W\d].*")                             # a marker without words, or without a blank
_ROMAN = r"(?i:x{0,3}(?:ix|iv|v?i{1,3}|v)|x{1,3})"
_SIGN = re.compile(                                 # begins an item, where one may begin: else a wrapped line begins with it
    rf"(?:(?:[‐‑‒―−－⁃∙»›]|[-=]+>|\(?\d{{1,3}}(?:\.\d{{1,3}})+[.)]|\d{{4,9}}\)|\(?(?:[^\W\d_]|{_ROMAN})\))\s+"
    r"|(?:\d{1,3}|[一二三四五六七八九十]{1,3})[、．](?!\d)|[(（]?(?:\d{1,3}|[一二三四五六七八九十]{1,3})）|[・･※]|\d\ufe0f?\u20e3"
    r"|(?:[\u2190-\u21ff\u2460-\u24ff\u2580-\u27bf\u27f0-\u27ff\u2900-\u297f\u2b00-\u2bff\uf000-\uf0ff\U0001f300-\U0001faff]"
    r"[\ufe0f\u200d]*)+)\s*(\S.*)")
_LIKE = re.compile(                                 # may begin an item or be words; the second one in an item is a problem
    r"(?P<dotted>\d{1,3}(?:\.\d{1,3})+\s)|(?P<number>[#№]\s?\d+[:.)]?\s|\d{1,3}\s?[:：–—-]\s|\d{4,9}[.:]\s|\d{1,3}[.)](?:[^\W\d]|$))"
    rf"|(?P<letter>(?:[^\W\d_]|{_ROMAN})(?:\.(?:\s|$)|、|\)[^\W\d_])|o\t)|(?P<square>\[[\w ]{{1,3}}\]\s)"
    r"|(?P<label>(?:[^\W\d_]{1,12}[-. ]?\d{1,3}(?:[:.)：]|\s[-–—])|[^\W\d_]:)\s|§\s?\d)"
    r"|(?P<mark>[~=¶¤^°]\s|[-–—*]{2,}\s|\\[-*+]\s|\*[^\W_][^*]*$|[–—‣▪●◦][^\W\d_])")
_MARKED = (frozenset("✓✔✅☑👍🟢⭕"), frozenset("✗✘✕✖❌❎🚫⛔🛑👎🔴"))             # what is fine, and what is not
_TABLE = re.compile(r"[|│┃┌├]|\+[-=]{2,}\+|(?:\s*:?-+:?\s*\|)+\s*(?::?-+:?)?$")
_HTML = re.compile(r"</?(?:ul|ol|li|dl|dt|dd|table|thead|tbody|tr|td|th)\b|&(?:bull|middot|#x?[\da-f]+);", re.I)
_QUOTE = re.compile(r"(?:>\s*)+")
_LETTER = re.compile(r"\(?[a-z]\)")
_STOPS = tuple(".:!?;…。：！？；")
_LINE = re.compile(r" {0,3}([-*_])(?:\s*\1){2,}\s*")
_NAME = re.compile(                                 # `**Allowed:** words`
    r"(?:[*_\[]+(\w+(?:['’](?:t|s))?(?: \w+)?)[*_\]:]+|([A-Z]\w+(?:['’](?:t|s))?(?: \w+)?):)(?:\s+(\S.*))?")
_NOUN = (r"(?: (?:the following|these|this|it))?"
         r"(?: (?:list|content|(?:case|topic|request|use|question|answer)s?))?")
_IS = (r"(?:but |and )?(?:what['’]s|(?:the following|these|this|it|what)(?: \w+)? (?:is|are|should|must|may|can)"
       r"|the following) ")
_SAYS = re.compile(             # `Allowed: words`, `**Exceptions for staff** words`, `The following is allowed:`
    rf"[*_\[]*(?:{_IS})?"
    r"((?:(?:also|always|still|never|no|not|do|don['’]?t|please|nicht|nie|keine?|pas|não|non)"
    r"(?: an?| be| not(?: be)?)? )?[^\W\d_]+(?:['’](?:ts?|s))?)"
    r"( (?:for|to|in|at|on|with|when|where|if|unless|only|under|by|are|is)(?: [\w'’-]+){0,4})?"
    rf"(?:({_NOUN})[*_\]]* ?[:：]|(?(2)(?:[*_\]]*$|(?:\*\*|__|\])\s)|(?!)))", re.I)
_STOP = (r"(?:block|den(?:y|ied)|refus|flag|stop|reject|ban|forbid|prohibit|filter|censor|redact|escalat|moderat|violat)\w*"
         r"|harmful|unsafe|bad")
_NOT = r"(?:not|never|don['’]?t)"
_MEANT = tuple((re.compile(rf"\b(?:{words})\b"), section) for words, section in (
    (r"(?<!no )exception\w*|except|exempt\w*|ausnahmen?|excepci[oó]n(?:es)?|exce[cç](?:ão|ões)|eccezion[ei]", "exceptions"),
    (r"(?<!for )examples?|beispiele?|ejemplos?|exemples?|exemplos?|esemp[io]", "examples"),
    (r"(?:nicht|pas|não|non) (?:verboten|untersagt|unzulässig|interdit\w*|proib\w*|vietat\w*)", "allowed"),
    (r"(?:nicht|nie|kein\w*|pas|jamais|no|não|non) (?:\w+ )?(?:erlaubt|gestattet|zulässig|permis\w*|autoris\w*|permit\w*"
     r"|consent\w*)|verboten\w*|untersagt|unzulässig|interdit\w*|prohib\w*|proib\w*|vietat\w*|défendu", "violates"),
    (r"erlaubt\w*|gestattet|zulässig|permis|autorisée?s?|permitid[oa]s?|se permite|permess[oi]|consentit[oi]", "allowed"),
    (rf"no violations?|{_NOT} (?:(?:an?|to|be) )*(?:{_STOP})", "allowed"),
    (rf"{_NOT} (?:be )?(?:an? )?(?:allow|permit|accept|okay|ok|fine|safe|good)\w*|never|cannot|forbidden|prohibited"
     r"|disallowed|banned|violat\w+|unacceptable", "violates"), (r"allowed|permitted|acceptable", "allowed")))
_ORDER = re.compile(r"\b(?:do|must|should|may|can|shall|will|what)(?: also)? not\b|\bdon['’]?ts?\b|^not?$")     # forbids
_HEDGE = re.compile(r"\S.*\b(?:unless|except)\b|\b(?:if|when|where)\b.*\b(?:not|no|never|\w+n['’]t)\b")       # turns it
_ON = re.compile(r"(?:and |see )?(?:also|for example|such as|in particular|likewise|similarly|additionally|furthermore)")
_MAY = re.compile(r"\b(?:may|can|should|must)(?: \w+){0,2}$")
_SHORT = tuple((re.compile(             # words of their own meaning: whole names only, for `### Safe houses` are none
    rf"(?:{_IS})?(?:(?:also|always|still|please) )?(?:(?:{verbs}){_NOUN}(?: (?:to|for|in|when|if)(?: [\w'’-]+)*)?|"
    rf"(?:{words}){_NOUN})"), section) for verbs, words, section in (
    ("allow|permit|accept|ok|okay", "fine|safe|good|do(?:['’]s)?|legitimate|harmless|benign|innocent", "allowed"),
    ("block(?:ed)?|den(?:y|ied)|forbid|prohibit|disallow|refused?|reject(?:ed)?", "ban|bad|unsafe|harmful", "violates")))
_ITEM = tuple((re.compile(rf"(?:(?:also|always|still|please) )?(?:{words})(?: these| this| it)?"), section)
              for words, section in (("allow|ok|okay", "allowed"),
                                     (r"block|deny|forbid|do not|don['’]?ts?|not", "violates")))


def read(body: str, first: int = 1) -> tuple[Parts, list[Problem]]:
    """Section (`""` before the first) -> numbered lines, and the problems. `first` is the number of the first line."""
    return _Page(first).read(body)


def _meant(name: str, rest: str = "", item: bool = False) -> str:
    """The section that a plain name speaks of, or nothing; `rest` is what a label says behind it. `item`: words follow that
    are an item, and may be named by a noun: `Permit: forging one`, `Don't panic: survival tips`."""
    if _HEDGE.search(name + rest):
        return ""
    return (next((section for words, section in _MEANT if words.search(name)), "")
            or next((section for words, section in (_ITEM if item else _SHORT) if words.fullmatch(name + rest)), "")
            or ("violates" if not item and _ORDER.search(name + rest) else ""))


def misplaced(text: str, section: str, lead: bool = False) -> str:
    """What is wrong with an item that calls itself something else than its section does: a permission among rules, or a rule
    among permissions. An example of a rule may stand among rules, but no paragraph that leads to a list of them."""
    if not (match := _SAYS.match(text)):
        return ""
    label = match[0][-1] in ":："
    meant = _meant(_plain(match[1]), ((match[2] or "") + (match[3] or "")).lower(), not lead or not label)
    if not meant or (meant == "violates") == (section == "violates") or (meant == "examples" and not lead):
        return ""
    name = match[1] + (match[2] or "")
    return f"{name!r} would be an item of {section!r}; put it under `## {meant.title()}`, or begin it with another word"


def _plain(name: str) -> str:
    """A heading's name: lower case, without signs, emphasis, colon or a bracketed remark at its end."""
    name = re.sub(r"^[^\w\s`'\"(]+\s+|\s+[^\w\s`'\")]+$", "", name.strip("*_[]: ")[:200])
    return "do's" if name == "Dos" else re.sub(r"\s*\([^()]*\)$", "", name.lower()).strip("*_: ")


class _Page:
    """One reading. `here` is the section of the next item; `open` are the headings around it, outermost first."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.parts: Parts = {"": []}
        self.wrong: list[Problem] = []
        self.open: list[tuple[int, str]] = []
        self.group: tuple[int, int, str] | None = None      # line, level and name of a group without items so far
        self.here = ""
        self.titled = False
        self.indent = -1                                    # of the bullet above; -1: none
        self.prose = self.gap = False                       # the item above is prose; a blank line since
        self.ended = True                                   # nothing above to go on with
        self.above = ""                                     # the words of the line above
        self.sign = False                                   # the item above begins with a sign
        self.like: dict[str, str] = {}                      # how lines of this item begin that look like items
        self.signs: list[tuple[int, str]] = []              # where the lead has such items, and their lines
        self.marks: dict[str, set[int]] = {}                # section -> which of `_MARKED` its items bear
        self.table = -1                                     # the number of the last line of a table
        self.list = False                                   # a bullet above the sections
        self.leads: set[str] = set()                        # what the lines above its lists say
        self.groups: list[int] = []                         # where the lead has lines that would name groups
        self.label = (0, "")                                # a line that ends in a colon, with nothing below it yet
        self.bare: list[Problem] = []                       # what is wrong if no section comes

    def read(self, body: str) -> tuple[Parts, list[Problem]]:
        lines = _COMMENT.sub(lambda m: self._uncomment(body, m), body).split("\n")
        fence = ""
        skip = False
        for at, line in enumerate(lines):
            number, words = self.first + at, line.strip()
            if fence or words.startswith(("```", "~~~")):
                if not fence:
                    self.wrong.append((number, "a code block is no rule; write its words into a bullet, in quotes"))
                fence = "" if fence and words.startswith(fence) else fence or words[:3]
            elif skip:
                skip = False
            elif not words or _LINE.fullmatch(line):
                self.gap = True
            elif self._under(lines, at):
                skip = True
                self._heading(number, 1 if "=" in lines[at + 1] else 2, words)
            elif (match := _HEADING.fullmatch(line)) and (
                    match[2] or not match[3] or len(match[1]) > 1 or _plain(match[3]) in SECTIONS):
                if match[3]:
                    self._heading(number, len(match[1]), match[3], words)
                else:
                    self.wrong.append((number, f"a heading without a name: did you mean one of {', '.join(SECTIONS)}?"))
            else:
                self._words(number, line)
        self._left(0)
        if not self.parts.keys().isdisjoint(SECTIONS):
            return self.parts, self.wrong
        for at in self.groups:
            number, words = self.parts[""][at]
            self.parts[""][at] = (number, f"### {words.strip()}")
        return self.parts, self.wrong + self.bare

    def _uncomment(self, body: str, match: re.Match[str]) -> str:
        text = match[0]
        if not text.startswith("<!--"):
            return text
        if not text.endswith("-->"):
            self.wrong.append((self.first + body.count("\n", 0, match.start()), "a comment opens with <!-- and never "
                               "closes; close it with -->"))
        return "\n" * text.count("\n")

    def _under(self, lines: list[str], at: int) -> bool:
        """Whether this line is a heading because the next one underlines it."""
        line = lines[at]
        return (at + 1 < len(lines) and bool(_UNDER.fullmatch(lines[at + 1])) and not line.startswith(("    ", "#"))
                and not _BULLET.fullmatch(line) and (at == 0 or not lines[at - 1].strip() or self.ended))

    def _heading(self, number: int, level: int, text: str, line: str = "") -> None:
        """Opens a section, names a group, or is a problem. `line` is what stands in the lead for a group."""
        name = _plain(text)
        self._left(level)
        self.ended, self.prose, self.indent, self.sign, self.like = True, False, -1, False, {}
        while self.open and self.open[-1][0] >= level:
            self.open.pop()
        if name in SECTIONS:
            if self.open and self.open[-1][1] == "examples":
                self.wrong.append((number, f"{name!r} under 'examples': begin each bullet with `violates:` or `allowed:` "
                                   "instead"))
            self._enter(level, name)
        elif self.open:
            self.here = self.open[-1][1]
            self.group = (number, level, name)
            if self.here == "examples" and (meant := _meant(name)) in ("violates", "allowed"):
                self.wrong.append((number, f"{name!r} under 'examples': begin each bullet with `{meant}:` instead"))
            elif self.here in SECTIONS and (meant := _meant(name)) and meant != self.here:
                self.wrong.append((number, f"{name!r} would name a group under {self.here!r}; did you mean {meant!r}?"))
        elif level > 2 and not self.here:
            self.parts[""].append((number, line))
            self._lone(number, name)
        elif level == 1 and not self.titled and not self.here:
            self.titled = True
        else:
            near = [s for s in SECTIONS if s.startswith(name)] or [_meant(name)]
            near = near if near[0] else difflib.get_close_matches(name, SECTIONS, 1, 0.7)
            self.wrong.append((number, f"heading {name!r}: did you mean {near[0]!r}?" if near else
                               f"heading {name!r} is no section; the sections are {', '.join(SECTIONS)}: rename it, write "
                               f"`### {name}` inside one of them, or put its words above the first"))
            self._enter(level, name)

    def _enter(self, level: int, name: str) -> None:
        self._lead()
        self.open.append((level, name))
        self.here = name
        self.parts.setdefault(name, [])

    def _left(self, level: int) -> None:
        """A heading of this level (0: the end) comes: a group above it that has no items is lost."""
        if self.group and level <= self.group[1]:
            self.wrong.append((self.group[0], f"{self.group[2]!r} has nothing under it; if it is a rule or an item, "
                               "write it as a bullet"))
        self.group = None

    def _words(self, number: int, line: str) -> None:
        """A line of text: a bullet, the rest of one, prose, or the name of a section or a group."""
        words = line.strip()
        self._foreign(number, words)
        indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
        bullet = _BULLET.fullmatch(line)
        sign = None if bullet else _SIGN.fullmatch(words)
        if sign and (self.ended or self.gap or self.sign or self.above[-1:] in _STOPS):
            bullet = sign
        if sign and indent < 2 and _plain(sign[1]) in SECTIONS:            # `✅ Allowed`
            self._heading(number, 7, sign[1])
            self.gap = False
            return
        if not bullet and indent < 2 and self._named(number, words):
            return
        nested = 0 <= self.indent <= indent - 2
        if nested:                                          # a list in a bullet is part of it
            bullet = None
        self.group = None
        if bullet:
            self.prose = self.prose and not (self.sign and sign)
            self.sign, self.like = bullet is sign or bool(_LETTER.match(words)), {}
            if not self.here:
                self._lead(line if bullet is sign else "")
            self._labelled()
            self._mark(number, words[0] + bullet[1][0])
            self._bullet(number, indent, bullet[1].strip())
            self._listed(number, 2, bullet[1].strip(), False)               # `- R1: one` above `R2: two`
        elif not self.here:                                 # the lead, or a file without sections: read as it stands
            self.parts[""].append((number, line))
            self._listed(number, indent, words, nested)
            if GROUP.fullmatch(words) or self.gap and not indent:
                self.indent = -1
            if GROUP.fullmatch(words):
                self._lone(number, _plain(words))
        else:
            self._prose(number, indent, words, nested)
        if not bullet:
            own = indent < 2 and words[-1] in ":：" and (self.gap or self.ended or not words[0].islower())
            self.label = (number, words) if own and not (self.here and (self.gap or self.ended)) else (0, "")
        self.ended, self.gap, self.above = False, False, words

    def _bullet(self, number: int, indent: int, text: str) -> None:
        items = self.parts[self.here]
        if self.prose and self.here == "violates" and items[-1][1].endswith(":"):
            if problem := misplaced(items[-1][1].removeprefix("- "), self.here, True):
                self.wrong.append((items[-1][0], problem))
            self.parts[""].append((items[-1][0], items.pop()[1].removeprefix("- ")))
        items.append((number, f"- {text}"))
        self.indent, self.prose = indent, self.sign and text.endswith(":")

    def _lone(self, number: int, name: str) -> None:
        """A group where there may be no section: its items are rules."""
        if (meant := _meant(name)) and meant != "violates":
            self.bare.append((number, f"{name!r} would name a group of rules; write `## {meant.title()}` instead, and "
                              "`## Violates` above the rules"))

    def _labelled(self) -> None:
        """A bullet, maybe below a line that ends in a colon. Where there may be no section it leads to all of them, or names
        a group of rules; one that allows, and one that says nothing where another forbids, is a mistake."""
        number, words = self.label
        self.label = (0, "")
        problem = misplaced(words, self.here or "violates", True)
        if self.here:
            self.wrong += [(number, problem)] if problem else []
            return
        name = _plain(words.rstrip(":： "))
        side = _meant(name) or "may" * bool(_MAY.search(name))
        if words and self.list:
            parts = self.leads | {side} >= {"", "violates"} and not _ON.fullmatch(name)
            if problem or parts or side not in ("", "violates"):
                problem = (f"{words!r} parts the rules of a file without sections; write `## Violates` above them and "
                           "`## Allowed` above what is fine, or `### Name` for a group of rules")
            else:
                self.groups.append(len(self.parts[""]) - 1)
        self.bare += [(number, problem)] if problem else []
        self.leads |= {side.replace("may", "")} if words and not _ON.fullmatch(name) else set()
        self.list = True

    def _lead(self, line: str = "") -> None:
        """A bullet above the sections, or the first section: a single sign before it adorns a paragraph."""
        if line:
            self.signs.append((len(self.parts[""]), line))
        elif len(self.signs) == 1:
            at, words = self.signs.pop()
            self.parts[""][at] = (self.parts[""][at][0], words)

    def _prose(self, number: int, indent: int, words: str, nested: bool) -> None:
        """A paragraph of its own, or more of the item above."""
        items = self.parts[self.here]
        if self.ended or self.gap and (self.prose or indent <= self.indent):
            items.append((number, f"- {words}"))
            self.indent, self.prose, self.sign, self.like = -1, True, False, {}
        else:
            items[-1] = (items[-1][0], f"{items[-1][1]} {words}")
        self._listed(number, indent, words, nested)

    def _foreign(self, number: int, words: str) -> None:
        """What other formats make of a list."""
        quote = _QUOTE.match(words)
        if _TABLE.match(words):
            if self.table != number - 1:
                self.wrong.append((number, "a table is no list of rules; write each row as a bullet"))
            self.table = number
        elif _HTML.match(words):
            self.wrong.append((number, "HTML is read as words; write each item as a bullet, `- words`"))
        elif quote and (_BULLET.fullmatch(words, quote.end()) or _SIGN.fullmatch(words, quote.end())):
            self.wrong.append((number, "a list in a quote is no list; take away the `>`"))

    def _listed(self, number: int, indent: int, words: str, nested: bool) -> None:
        """A line that goes on: a problem where it seems to begin an item as one above it did."""
        if _STUCK.fullmatch(words) and indent < 2:
            self.wrong.append((number, "a bullet needs a blank after its mark, and words on the same line"))
        words = _QUOTE.sub("", words, 1)
        match = _SIGN.fullmatch(words) or _LIKE.match(words)
        kind = match and (match.lastgroup or "sign")
        if not match or not kind or kind == "label" and self.here == "examples":
            return
        begin = match[0].strip()[:12] if match.lastgroup else words.split()[0]
        if self.like.get(kind):
            self.wrong.append((number, f"this line and one above seem to begin items of a list ({self.like[kind]!r}, "
                               f"{begin!r}) and would be one; begin each with `- `"))
        if kind in self.like or not nested:
            self.like[kind] = "" if kind in self.like else begin

    def _mark(self, number: int, begin: str) -> None:
        """Check marks and crosses among the items of one section are two sections."""
        if self.here == "examples":
            return
        marks = self.marks.setdefault(self.here, set())
        before = len(marks)
        marks.update(side for side, signs in enumerate(_MARKED) if signs & set(begin))
        if before < len(marks) == 2:
            self.wrong.append((number, "items with a check mark and items with a cross in one section; put the ones under "
                               "`## Violates`, the others under `## Allowed`"))

    def _named(self, number: int, words: str) -> bool:
        """Takes `**Allowed**`, `Allowed:` and `**Allowed:** words` as a section, `[Name]` and `**Name**` as a group."""
        match = _NAME.fullmatch(words)
        name, rest = (_plain(match[1] or match[2]), match[3]) if match else ("", None)
        begins = self.ended or self.gap
        if rest and name in SECTIONS and self.here == "examples":
            self.ended = True                               # an example without its bullet
            return False
        if match and name in SECTIONS and (not rest or begins and ":" in words[:match.start(3)]):
            self._heading(number, 7, name)
            self.gap = False
            if rest:
                self._words(number, rest)
            return True
        if self.here and GROUP.fullmatch(words) and words.rstrip("*_:]")[-1:] not in ".!?":
            self._heading(number, 7, words)
            return True
        if (match and begins and self.here in SECTIONS and (meant := _meant(name, item=bool(rest))) and meant != self.here
                and not (rest and self.here == "examples")):
            self.wrong.append((number, f"{name!r} under {self.here!r} would be one of its items; did you mean {meant!r}?"))
        return False
