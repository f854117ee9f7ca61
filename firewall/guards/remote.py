"""`RemoteGuard`: a reasoning guard behind any OpenAI-compatible server, one or many.

    --guard remote:http://a:8000,http://b:8000      [guard] model = "folder or served name"

Give `model` the checkpoint's folder where there is one: then prompts are token ids made here (special tokens in the
evidence are letters), and the card beside the weights (`firewall.json`) is checked. With a served name only, prompts
are text, and the template's escapes alone keep control tokens out of the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firewall.errors import Mistakes
from firewall.guards.card import Card
from firewall.guards.endpoints import Endpoints
from firewall.guards.guard import Guard
from firewall.guards.reasoner import Reasoner, Settings
from firewall.guards.tokens import Tokens
from firewall.verdict import Depth


def RemoteGuard(urls: Sequence[str], model: str = "", depth: Depth | str = "snap", dialect: str = "ours", *,
                served: str = "", context: int = 0, deadline: float = 30.0, think: int = 192, extended: bool = True,
                accept_other_fingerprint: bool = False, key: str = "") -> Guard:
    """A guard that asks servers.

    Args:
        urls: their addresses, `http(s)://host:port` or `unix:/path`.
        model: checkpoint folder, or the served model's name; "" takes what the servers serve.
        dialect: `ours`, or the name of a guard people already run (dialects/).
        served: the served name where it is not `model` (default: what the servers list).
        extended: the servers are vLLM 0.26 or newer.

    Raises:
        Mistakes: an address, dialect or checkpoint that cannot be used.
    """
    if dialect != "ours":
        from firewall.guards.dialects import chat
        return chat(dialect, urls, served or model, deadline=deadline, key=key)
    folder = Path(model) if model and Path(model).is_dir() else None
    if folder is None and ("/" in model and model.startswith((".", "/", "~"))):
        raise Mistakes([f"guard.model: no folder {model}"])
    card = Card.of(folder, accept_other_fingerprint) if folder else Card()
    engine = Endpoints(urls, served or ("" if folder else model), context=context, deadline=deadline,
                       extended=extended, key=key)
    settings = Settings(depth, think, extended, card.scale, card.name)          # type: ignore[arg-type]
    return Reasoner("remote", engine, Tokens.of(folder) if folder else None, settings)
