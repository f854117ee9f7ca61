"""Answers built from harmful prompts: one that complies, one that refuses, one that warns.

Labelled natural answers are thin in what may be used for training, and an encoder that has seen few takes a refusal
which repeats the request for the deed. These rows differ in stance only: topic, prompt and length are the same, so
nothing but the stance can tell them apart. What complies stays an outline: no row holds anything of use.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import replace

from firewall.guards.encoder.windows import context, plain, spaced
from trainer.encoder.data import Book, Item
from trainer.encoder.labels import LLM

SOURCES = ("wildguardtrain_sample", "catqa_dangerousqa", "ailuminate_demo", "aart")
_ASK = re.compile(
    r"^(?:(?:hey|hi|please|ok|so|well)[,!]? )*"
    r"(?:(?:can|could|would) (?:you|someone|anyone)(?: please)? (?:tell|show|teach|explain(?: to)?|help|guide) ?"
    r"(?:me)? ?(?:on )?(?:how )?(?:to |in )?|"
    r"how (?:can|do|would|could|should|might) (?:i|you|one|we|someone) (?:best |secretly |safely )?|how to |"
    r"(?:what is|what's|what are) the (?:best|easiest|most effective|safest|quickest)? ?(?:ways?|methods?) (?:to|of) |"
    r"what are some (?:effective |good |creative )?(?:ways|methods|strategies|tips) (?:to|for|of) |"
    r"(?:give me|write|create|provide|develop|outline|draft|describe|generate)(?: me)? (?:a |an |some |the )?"
    r"(?:[\w-]+ ){0,3}?(?:guide|tutorial|plan|instructions?|steps|tips|blog post|article|manual|strategy)s? "
    r"(?:on|for|about|to|of) (?:how to )?|"
    r"(?:i need|i want|i'd like|i'm looking for|i need some) (?:advice |help |tips |information )?(?:on |with )?"
    r"(?:how )?(?:to ))"
    r"(?P<deed>[a-z].{12,140}?)(?:[.?!\n]|$)",
    re.I,
)

_SURE = (
    "Sure! Here is how to {d}.",
    "Of course. To {d}, proceed like this:",
    "Absolutely, here's a step-by-step guide to {d}:",
    "If you want to {d}, this is what works.",
    "The easiest way to {d} is to plan it well.",
    "",
    "It is not hard to {d}.",
    "I shouldn't say this, but to {d} you only need some patience.",
    "As an AI I must warn you that this may be illegal. That said, here is how you {d}:",
    "Great question! You can {d} as follows.",
    "Here are some tips to {d} without being noticed:",
    "Many people {d} and are never caught. This is how they do it.",
)
_STEPS = (
    "gather everything that you need without telling anyone",
    "pick a moment when nobody is watching",
    "start small, so that nobody becomes suspicious",
    "cover your tracks and get rid of what could identify you",
    "make them trust you before you ask for anything",
    "use a false name and a phone that cannot be traced",
    "pay in cash and never keep a receipt",
    "repeat it until you get what you want",
    "keep to the story you prepared",
    "let somebody else take the risk for you",
    "do it at night, when staff is low",
    "make it look like an accident",
    "avoid cameras and take a different way home",
    "use the tools from the list and follow the order",
    "put pressure on them until they give in",
    "delete the messages afterwards",
    "choose a victim who will not complain",
    "adapt the wording so that filters do not notice",
    "work quickly and leave",
    "be confident, so that nobody asks",
)
_LAST = (
    "If you follow these steps, nobody will find out.",
    "That's it, good luck!",
    "Let me know if you want more detail.",
    "With a little practice this works every time.",
    "Remember: confidence is everything.",
    "",
    "",
)
_NO = (
    "I'm sorry, but I can't help you {d}.",
    "I can't assist with that.",
    "I won't help anyone {d}.",
    "Sorry, no.",
    "I cannot provide instructions on how to {d}.",
    "No. I'm not going to explain how to {d}.",
    "I understand that you want to {d}, but this is something I can't support.",
    "I'm unable to help with this request.",
    "That is not something I can help with, because to {d} would hurt people.",
    "Helping someone {d} is where I draw the line.",
    "As an AI language model, I cannot offer advice on how to {d}.",
    "I must decline: to {d} is illegal and harmful.",
    "Even in a story or a role-play I will not describe how to {d}.",
    "Thanks for asking openly, but I will not help you {d}.",
)
_WHY = (
    "It is against the law and can seriously harm others.",
    "It could put you and other people in danger.",
    "Doing so is unethical and may lead to criminal charges.",
    "It violates other people's rights and privacy.",
    "I care about everybody's safety, yours included.",
    "This would cause real damage.",
    "",
    "",
    "My purpose is to give helpful and harmless answers.",
    "There is no safe or legal way to do that.",
)
_ELSE = (
    "If you are in trouble, please talk to somebody you trust or to a professional.",
    "If you tell me what is behind it, I can look for a lawful way with you.",
    "I am happy to talk about the history, the law or prevention instead.",
    "If someone is in danger, call the emergency services.",
    "Is there something else I can help you with?",
    "",
    "",
    "Please consider legal and respectful alternatives.",
    "A counsellor or a hotline can help you with these thoughts.",
    "If you have come across someone who does this, report it to the authorities.",
)
_WARN = (
    "To {d} is a crime in most countries.",
    "Anyone who tries to {d} risks prison, fines and a record.",
    "People ask how to {d} for many reasons, but the consequences are grave.",
    "It is important to understand why one must not {d}.",
    "It is never okay to {d}.",
    "You should not {d}.",
)
_WARNED = (
    "Victims suffer for years.",
    "The police have units that look into exactly this.",
    "Employers and banks watch for it.",
    "Respect for others comes first.",
    "Those affected can get support from public services.",
    "If you know of such a case, report it.",
    "Courts have sentenced people to several years.",
    "There are lawful ways to reach what you want.",
    "Talk to someone before you do something you will regret.",
    "Families and friends are hurt as well.",
    "Protect yourself: keep your devices updated and be careful with strangers.",
)


def deed(prompt: str) -> str:
    """`How can I X?` -> `X`; an empty word where the prompt has another shape."""
    found = _ASK.match(" ".join(prompt.split()))
    return found["deed"].strip() if found else ""


def answers(items: list[Item], book: Book, count: int, seed: int) -> list[Item]:
    """About `count` answers to the harmful prompts among `items`: a third each complies, refuses, warns."""
    rng = random.Random(f"{seed}/answers")
    prompts = [
        (i, i.texts[0][0], d)
        for i in items
        if i.source in SOURCES
        and (i.union or any(a.label for a in i.asks))
        and not i.way
        and len(i.texts) == 1
        and (d := deed(i.texts[0][0]))
    ]
    rng.shuffle(prompts)
    out: list[Item] = []
    for n, (item, prompt, what) in enumerate(prompts):
        if len(out) >= count:
            break
        asks = tuple(a for a in item.asks if a.policy not in LLM)       # how it was asked is no matter of the answer
        if asks or item.union:
            out.append(_made(item, prompt, comply(what, rng), asks, tuple(p for p in item.union if p not in LLM), ()))
        out.append(_made(item, prompt, (refuse, warn)[n % 2](what, rng), (), (), book.shipped))
    return out


def comply(what: str, rng: random.Random) -> str:
    steps = rng.sample(_STEPS, rng.randint(3, 6))
    style = rng.randrange(3)
    body = (
        "\n".join(f"{n}. {s.capitalize()}." for n, s in enumerate(steps, 1))
        if style == 0
        else " ".join(f"{s.capitalize()}." for s in steps)
        if style == 1
        else "First, " + ". Then ".join(steps) + "."
    )
    opener = rng.choice(_SURE).format(d=what) or f"{what.capitalize()}? Listen."
    return f"{opener}{rng.choice((' ', chr(10)))}{body} {rng.choice(_LAST)}".strip()


def refuse(what: str, rng: random.Random) -> str:
    parts = [rng.choice(_NO).format(d=what), rng.choice(_WHY), *rng.sample(_ELSE, rng.randint(0, 3))]
    return " ".join(p for p in parts if p)


def warn(what: str, rng: random.Random) -> str:
    return " ".join((rng.choice(_WARN).format(d=what), *rng.sample(_WARNED, rng.randint(2, 5))))


def _made(item: Item, prompt: str, text: str, asks: tuple, union: tuple[str, ...], clean: tuple[str, ...]) -> Item:
    key = item.key[:8] + hashlib.sha256(text.encode()).hexdigest()[8:]  # falls on the prompt's side of a split
    return replace(
        item,
        source="answers",
        key=key,
        way=1,
        texts=((spaced(plain(text))[:512], context(prompt)),),
        asks=asks,
        union=union,
        clean=clean,
        repeat=1.0,
    )
