"""RSafe's 18 safety categories, each with three wordings of our own, and the names other data sets give them.

RSafe (arXiv 2506.07736) puts the 18 names alone before the model. `names` reproduces that; `sentences` is the short
form for small guards: one written sentence a category, drawn from three so that no single wording is learnt by heart.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from firewall.policy import Policy, PolicySet, Rule

CATEGORIES: dict[str, tuple[str, tuple[str, str, str]]] = {
    "violent-crime": ("Violent crimes", (
        "Planning, encouraging or helping to hurt, kill, kidnap or attack people.",
        "Help with murder, assault, abduction or other bodily harm to somebody.",
        "Anything that enables or praises violence against a person or a group.")),
    "nonviolent-crime": ("Non-violent crimes", (
        "Help with theft, fraud, burglary, forgery, hacking, laundering or other crimes without violence.",
        "Instructions for stealing, cheating people out of money or breaking into places and computers.",
        "Anything that enables property crime, financial crime or computer crime.")),
    "sex-crime": ("Sex-related crimes", (
        "Help with sexual assault, rape, sex trafficking or sexual blackmail.",
        "Anything that enables sexual abuse of a person or sex without consent.",
        "Planning or excusing rape, harassment for sex, or forced prostitution.")),
    "minors": ("Child sexual exploitation", (
        "Sexual content about children, or help to groom, abuse or exploit minors.",
        "Anything that sexualises a person under 18 or endangers a child.",
        "Child abuse: describing it with approval, seeking it, or making it easier.")),
    "weapons": ("Weapons", (
        "Making, getting or using guns, bombs, chemical, biological or nuclear weapons.",
        "Instructions for explosives, poisons, illegal firearms or other arms.",
        "Help to build a weapon or to buy one unlawfully.")),
    "drugs": ("Drugs and controlled substances", (
        "Making, buying, selling or misusing illegal drugs or prescription medicine.",
        "Recipes for narcotics, help to deal them, or encouragement to get high.",
        "Anything that enables drug trade or substance abuse.")),
    "self-harm": ("Suicide and self-harm", (
        "Encouraging, praising or explaining suicide, cutting or disordered eating.",
        "Methods of killing or hurting oneself, or urging somebody to do it.",
        "Content that supports self-injury or suicide.")),
    "sexual-content": ("Sexual content", (
        "Explicit descriptions of sexual acts, pornography or erotica.",
        "Sexually explicit stories, requests or chat.",
        "Graphic adult content meant to arouse.")),
    "hate": ("Hate", (
        "Attacks or demeaning words about people for race, religion, origin, sex, orientation or disability.",
        "Slurs, dehumanising claims or stereotypes against a protected group.",
        "Hatred or discrimination against people for what they are.")),
    "harassment": ("Harassment", (
        "Insulting, bullying, threatening, stalking or intimidating a person.",
        "Abusive or degrading words aimed at somebody.",
        "Helping to torment, shame or frighten an individual.")),
    "privacy": ("Privacy", (
        "Finding, exposing or stealing private data such as addresses, numbers, accounts or health records.",
        "Doxing, spying on people, or giving out personal information of others.",
        "Anything that lays bare somebody's personal data without consent.")),
    "intellectual-property": ("Intellectual property", (
        "Pirating, counterfeiting or copying protected works, or getting round licences.",
        "Help to infringe copyright, patents or trademarks.",
        "Reproducing or stealing protected works or trade secrets.")),
    "defamation": ("Defamation", (
        "False claims of fact that harm a real person's reputation.",
        "Invented accusations against named people or firms.",
        "Lies about somebody stated as truth in order to discredit them.")),
    "misinformation": ("Misinformation and elections", (
        "Spreading false news, conspiracy theories or lies about voting and health.",
        "Disinformation campaigns, fabricated facts, election manipulation.",
        "Content made to mislead the public about politics, science or events.")),
    "specialized-advice": ("Unqualified specialized advice", (
        "Risky medical, legal or financial advice given as if by a professional.",
        "Telling people what treatment, dose, investment or legal step to take without qualification.",
        "Dangerous expert advice without competence or warning.")),
    "malware": ("Malware and code abuse", (
        "Writing or improving viruses, ransomware, exploits or attacks on computer systems.",
        "Help to break into systems, to phish, or to abuse a code interpreter.",
        "Malicious code, and ways to use it.")),
    "terrorism": ("Terrorism and public safety", (
        "Planning, praising or recruiting for terrorism, extremism or attacks on infrastructure.",
        "Support of terrorist groups, mass panic, or danger to the public.",
        "Anything that helps violent extremists or endangers many people.")),
    "animal-abuse": ("Animal abuse", (
        "Hurting, torturing, poaching or neglecting animals, or help in doing it.",
        "Cruelty to pets or wild animals.",
        "Anything that enables or praises animal cruelty.")),
}

# a word of another data set's category -> ours; the first that stands in the name wins
ALIASES: tuple[tuple[str, str], ...] = (
    ("child", "minors"), ("minor", "minors"), ("sexual_exploitation", "sex-crime"), ("sex traff", "sex-crime"),
    ("trafficking", "sex-crime"), ("sex crime", "sex-crime"), ("sex_crime", "sex-crime"), ("sexual", "sexual-content"),
    ("adult", "sexual-content"), ("nsfw", "sexual-content"),
    ("suicide", "self-harm"), ("self", "self-harm"), ("terror", "terrorism"), ("extremis", "terrorism"),
    ("public safety", "terrorism"), ("endangering_public", "terrorism"),
    ("endangering national", "terrorism"), ("national_security", "terrorism"),
    ("environmental_damage", "terrorism"), ("animal", "animal-abuse"),
    ("malware", "malware"), ("cyber", "malware"), ("hack", "malware"), ("virus", "malware"),
    ("weapon", "weapons"), ("gun", "weapons"), ("chemical", "weapons"), ("biological", "weapons"), ("drug", "drugs"),
    ("controlled", "drugs"), ("substance", "drugs"), ("privacy", "privacy"), ("pii", "privacy"),
    ("sensitive_information", "privacy"), ("private_information", "privacy"),
    ("intellectual", "intellectual-property"), ("copyright", "intellectual-property"), ("defam", "defamation"),
    ("misinformation", "misinformation"), ("disinformation", "misinformation"), ("false", "misinformation"),
    ("conspir", "misinformation"), ("elect", "misinformation"), ("disrupting_public", "misinformation"),
    ("specialized", "specialized-advice"), ("unauthorized", "specialized-advice"), ("risk ignorance", "self-harm"),
    ("advice", "specialized-advice"), ("hate", "hate"), ("discrimin", "hate"), ("bias", "hate"), ("stereotype", "hate"),
    ("identity", "hate"), ("racis", "hate"), ("harass", "harassment"), ("bully", "harassment"),
    ("insult", "harassment"),
    ("offend", "harassment"), ("toxic", "harassment"), ("profan", "harassment"), ("threat", "harassment"),
    ("psychological", "harassment"), ("mental_manipulation", "harassment"), ("over_18", "sexual-content"),
    ("fraud", "nonviolent-crime"), ("scam", "nonviolent-crime"), ("financial", "nonviolent-crime"),
    ("economic", "nonviolent-crime"), ("theft", "nonviolent-crime"), ("non_violent", "nonviolent-crime"),
    ("nonviolent", "nonviolent-crime"), ("non-violent", "nonviolent-crime"), ("illegal", "nonviolent-crime"),
    ("white_collar", "nonviolent-crime"), ("manipulation", "nonviolent-crime"), ("deception", "nonviolent-crime"),
    ("criminal planning", "nonviolent-crime"), ("unethical", "nonviolent-crime"), ("violen", "violent-crime"),
    ("physical", "violent-crime"), ("incitement", "violent-crime"), ("crime", "nonviolent-crime"),
)


def named(category: str) -> str | None:
    """Another data set's category -> the id of ours, or None."""
    low = category.lower().replace("_", " ")
    return next((ours for word, ours in ALIASES if word.replace("_", " ") in low), None)


def all_named(names: Iterable[str]) -> list[str]:
    """The ids of ours that a row's categories name; a name may list several, with commas (BeaverTails)."""
    return sorted({ours for name in names for part in name.split(",") if (ours := named(part))})


def policy(id: str, form: str = "names", rng: random.Random | None = None) -> Policy:
    """One category as a policy with one rule."""
    title, wordings = CATEGORIES[id]
    text = title if form == "names" else (rng.choice(wordings) if rng else wordings[0])
    return Policy(id, title, (Rule(f"{id}/1", text),))


def policies(ids: Iterable[str] = CATEGORIES, form: str = "names", rng: random.Random | None = None) -> PolicySet:
    return PolicySet.of(policy(i, form, rng) for i in ids)

# categories whose texts often violate each other: left out together when a rule is taken away
KIN: tuple[frozenset[str], ...] = (
    frozenset({"violent-crime", "terrorism", "weapons", "harassment", "self-harm", "animal-abuse"}),
    frozenset({"sexual-content", "sex-crime", "minors"}), frozenset({"hate", "harassment", "defamation"}),
    frozenset({"nonviolent-crime", "malware", "privacy", "intellectual-property", "misinformation", "defamation"}),
    frozenset({"specialized-advice", "self-harm", "drugs", "misinformation"}))


def related(ids: Iterable[str]) -> set[str]:
    """The categories themselves and those of their kin."""
    out = set(ids)
    for group in KIN:
        if group & set(ids):
            out |= group
    return out
