"""All dialects by name. The next one is one file and one line here."""

from __future__ import annotations

from firewall.wire.anthropic import Anthropic
from firewall.wire.gemini import Gemini
from firewall.wire.ollama import Ollama
from firewall.wire.openai_chat import OpenAIChat
from firewall.wire.openai_completions import OpenAICompletions
from firewall.wire.openai_responses import OpenAIResponses
from firewall.wire.wire import Wire

WIRES: dict[str, Wire] = {wire.name: wire for wire in (
    OpenAIChat(), OpenAIResponses(), OpenAICompletions(), Anthropic(), Gemini(), Ollama(chat=True), Ollama(chat=False))}
