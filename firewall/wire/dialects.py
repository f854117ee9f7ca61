"""All dialects by name. The next one is one file and one line here."""

from __future__ import annotations

from firewall.wire.anthropic import Anthropic
from firewall.wire.openai_chat import OpenAIChat
from firewall.wire.wire import Wire

WIRES: dict[str, Wire] = {wire.name: wire for wire in (OpenAIChat(), Anthropic())}
