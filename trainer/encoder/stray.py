"""Answers beside requests that are not theirs: an innocent one under a violating request, a violating one under a calm
request.

A prompt tells what a short answer means, and so the encoder learns to judge the prompt instead: a thank-you under an
insult looked like an insult. In these rows the prompt says nothing, so only the answer can tell. Agreement needs its
own prompt ("Yes, go ahead"), so answers of a few words are left out.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

from firewall.guards.encoder.windows import context
from trainer.encoder.data import Item

LEAST = 80          # characters of an answer that stands for itself


def stray(items: list[Item], count: int, seed: int) -> list[Item]:
    """`count` answers with another item's request as context, half of them violating. Needs answers and requests of
    both kinds: an empty list where one kind is missing."""
    rng = random.Random(f"{seed}/stray")
    asked = [i for i in items if not i.way and len(i.texts) == 1 and len(i.texts[0][0]) < 300 and (i.clean or i.union)]
    said = [i for i in items if i.way and (i.clean or i.union) and len(i.texts[0][0]) >= LEAST]
    bad, good = [i for i in said if _violates(i)], [i for i in said if not _violates(i)]
    harsh, calm = [i for i in asked if _violates(i)], [i for i in asked if not _violates(i)]
    if not (bad and good and harsh and calm):
        return []
    out = []
    for n in range(count):
        item, request = (rng.choice(good), rng.choice(harsh)) if n % 2 else (rng.choice(bad), rng.choice(calm))
        about = context(request.texts[0][0])
        key = hashlib.sha256(f"{item.key}/{about}".encode()).hexdigest()
        out.append(replace(item, source="stray", key=key, texts=tuple((t, about) for t, _ in item.texts), repeat=1.0))
    return out


def _violates(item: Item) -> bool:
    return bool(item.union) or any(ask.label == 1 for ask in item.asks)
