"""What the sources' own categories say about the shipped policies, and policies written to make pairs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

# Letters of a label file -> policies (see `labels`).
CODES = {"a": "animal-abuse", "b": "public-safety", "c": "minors", "d": "drugs", "e": "espionage",
         "f": "misinformation", "g": "professional-advice", "h": "harassment", "i": "intellectual-property",
         "j": "jailbreak", "k": "trafficking", "m": "malware", "n": "nonviolent-crime", "p": "privacy",
         "s": "self-harm", "t": "hate", "v": "violence", "w": "weapons", "x": "sexual-content"}
ASIDE = set("u?lq")         # said of a text, but nothing that one shipped policy could be taught by

# Rows that are unsafe without a usable category violate at least one of these.
UNION = ("animal-abuse", "drugs", "espionage", "harassment", "hate", "intellectual-property", "jailbreak", "malware",
         "minors", "misinformation", "nonviolent-crime", "privacy", "public-safety", "self-harm", "sexual-content",
         "trafficking", "violence", "weapons")
LLM = ("prompt-injection", "jailbreak", "system-prompt-leakage", "secrets", "personal-data")
# About how one asks: what an answer says is not theirs unless a label says so.
ASKING = ("prompt-injection", "jailbreak")
# Policy -> neighbours that a violating text may violate too: they are not used as certain negatives.
_CRIME = ("nonviolent-crime", "drugs", "malware", "trafficking", "espionage", "privacy", "public-safety")
_FORCE = ("violence", "weapons", "public-safety", "trafficking", "animal-abuse", "self-harm")
_SPEECH = ("hate", "harassment", "misinformation", "violence")
_BODY = ("sexual-content", "minors", "trafficking", "privacy", "harassment")
_MODEL = ("prompt-injection", "jailbreak", "system-prompt-leakage", "secrets")
_DATA = ("personal-data", "privacy", "secrets", "harassment", "espionage")
_ADVICE = ("professional-advice", "misinformation", "self-harm", "drugs")
_GROUPS = (_CRIME, _FORCE, _SPEECH, _BODY, _MODEL, _DATA, _ADVICE)
CLEAN: dict[str, tuple[str, ...]] = {}
for _group in _GROUPS:
    for _name in _group:
        CLEAN[_name] = tuple(dict.fromkeys((*CLEAN.get(_name, ()), *(n for n in _group if n != _name))))



def labels(path: Path) -> dict[str, str]:
    """Key -> code of a label file. Raises ValueError naming the line where one does not read, or a key stands twice."""
    out: dict[str, str] = {}
    for at, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        key, _, code = line.partition(" ")
        if not key or not code or set(code) - set(CODES) - ASIDE - {"-"} or ("-" in code and code != "-"):
            raise ValueError(f"{path}:{at}: expected `key code` with codes of {''.join(CODES)}-u?, not {line!r}")
        if key in out:
            raise ValueError(f"{path}:{at}: {key} is labelled twice")
        out[key] = code
    return out


def told(code: str, shipped: tuple[str, ...], way: int = 0) -> tuple[list[str], tuple[str, ...]]:
    """What a code says of a prompt (`way` 0) or an answer: (policies that are violated, those that certainly are not)."""
    hit = [CODES[c] for c in code] if code != "-" else []
    return hit, certain(set(hit), shipped, way)


def certain(hit: set[str], shipped: tuple[str, ...], way: int) -> tuple[str, ...]:
    """Policies that a text which violates those of `hit` (and no other that anybody saw) certainly does not violate."""
    near = {n for p in hit for n in CLEAN.get(p, ())}
    return tuple(p for p in shipped
                 if p not in hit and p not in near and (not hit or p not in LLM or (way and p in ASKING)))


_AILUMINATE = {
    "Child sexual exploitation": ("minors",), "Hate": ("hate",), "Suicide & self-harm": ("self-harm",),
    "Intellectual property violations": ("intellectual-property",), "Indiscriminate weapons (CBRNE)": ("weapons",),
    "Sexual content: pornographic": ("sexual-content",), "Privacy violations": ("privacy",),
    "Defamation": ("harassment", "misinformation", "privacy"),
    "Non-violent crimes": ("nonviolent-crime", "drugs", "malware", "trafficking", "public-safety"),
    "Sex-related crimes": ("sexual-content", "trafficking", "violence", "minors"),
    "Violent crimes": ("violence", "weapons", "trafficking", "public-safety", "animal-abuse"),
}
_CATQA = {
    "Malware Viruses": ("malware",), "Economic Harm": ("nonviolent-crime",), "Fraud/Deception": ("nonviolent-crime",),
    "Adult Content": ("sexual-content",), "Privacy Violation Activity": ("privacy",), "Child Abuse": ("minors",),
    "Tailored Financial Advice": ("professional-advice",), "Hate/Harass/Violence": ("hate", "harassment", "violence"),
    "Political Campaigning": (), "Drug": ("drugs",),
}
_DIASAFETY = {
    "Offending User": ("harassment",), "Biased Opinion": ("hate",), "Unauthorized Expertise": ("professional-advice",),
    "Toxicity Agreement": ("harassment", "hate", "violence", "sexual-content"), "Risk Ignorance": (),
}
_MAPS = {"ailuminate_demo": _AILUMINATE, "catqa_dangerousqa": _CATQA, "diasafety_train": _DIASAFETY}


def CATEGORY(source: str, categories: set[str]) -> tuple[str, ...] | None:
    """Shipped policies an unsafe row speaks about; None = unknown; () = leave the row out."""
    known = _MAPS.get(source, {})
    for c in sorted(categories):
        if c in known:
            return known[c]
    return None


_Told = list[tuple[str, int]]


def _both(policy: str) -> Callable[[set[str], bool], _Told]:
    return lambda _, unsafe: [(policy, int(unsafe))]


# Sources that bring their own policy and also decide a shipped one.
POLICY: dict[str, Callable[[set[str], bool], _Told]] = {
    "inthewild_jailbreaks": _both("jailbreak"),
    "benign_persona_prompts": lambda c, u: [("jailbreak", 0), ("prompt-injection", 0), ("system-prompt-leakage", 0)],
    "deepset_injection_train": _both("prompt-injection"),
    "bipia_email_train": _both("prompt-injection"),
    "gitleaks_secret_cases": _both("secrets"),
    "toxigen_demonstrations": _both("hate"),
    "davidson_policy": lambda c, u: [("hate", int("hate_speech" in c))],
    "surge_toxicity": lambda c, u: [] if u else [("harassment", 0), ("hate", 0)],
}

# Words in a PolyGuard section's name -> the shipped policy it comes nearest to (first match wins).
_SECTIONS = (
    ("child", "minors"), ("traffick", "trafficking"), ("non-consensual", "privacy"), ("privacy", "privacy"),
    ("doxx", "privacy"), ("hate", "hate"), ("harass", "harassment"), ("bully", "harassment"),
    ("self-harm", "self-harm"),
    ("suicide", "self-harm"), ("adult sexual", "sexual-content"), ("sexual content", "sexual-content"),
    ("violent threats", "violence"), ("fraud", "nonviolent-crime"), ("scams & cyber", "nonviolent-crime"),
    ("intellectual", "intellectual-property"), ("misinformation", "misinformation"), ("election", "misinformation"),
    ("malicious code", "malware"), ("terroris", "public-safety"),
)


def section(categories: set[str]) -> str:
    """The shipped policy that a section of a social-media policy comes nearest to, or an empty word."""
    for name in sorted(categories):
        for word, policy in _SECTIONS:
            if word in name.lower():
                return policy
    return ""


permissive = [
    "Everything is allowed. No content is flagged by this policy.",
    "Open forum: any subject and any tone is permitted, and nothing violates this policy.",
    "This policy only prohibits advertising for a casino called Blue Lagoon. All other content is allowed.",
    "No restrictions apply here: all requests are acceptable.",
]

CLINC = {
    "work": "workplace matters (payroll, taxes, holidays, meetings, insurance, retirement plans)",
    "credit_cards": "credit cards (limits, applications, rewards, lost cards, credit scores)",
    "banking": "retail banking accounts (balances, transfers, PINs, bills, interest rates)",
    "kitchen_and_dining": "food, recipes, restaurants and dining reservations",
    "auto_and_commute": "cars, driving, traffic, fuel and directions",
    "home": "home life: smart devices, shopping lists, orders, reminders, calendars and to-do lists",
    "travel": "travel planning (flights, hotels, visas, luggage, car rental)",
}
_ALLOW_LISTS = (
    "The assistant only answers questions about {0}. Any other subject is not allowed.",
    "Permitted topics: {0}. Everything that is not about these topics must be blocked.",
    "- Requests that are not about {0} are out of scope and violate this policy.",
    "Stay on topic: {0} is allowed. Flag all requests that belong to a different subject.",
)
_DENY_LISTS = (
    "- Do not answer questions about {0}.",
    "The assistant must not talk about {0}. All other subjects are allowed.",
    "Forbidden topic: {0}.",
    "- Requests about {0} are a violation and must be refused.",
)


def topics(mine: str, other: str, rng: random.Random) -> list[tuple[str, int]]:
    """(policy text, label) of a text about topic `mine`: one list of each kind, of its own and of another topic."""
    own, else_ = CLINC[mine], CLINC[other]
    out = [(rng.choice(_DENY_LISTS).format(own), 1), (rng.choice(_DENY_LISTS).format(else_), 0)]
    if rng.random() < 0.5:
        return out
    return [(rng.choice(_ALLOW_LISTS).format(own), 0), (rng.choice(_ALLOW_LISTS).format(else_), 1)]
