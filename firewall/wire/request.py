"""What all dialects do with a request: gather its words in order, and refuse what cannot be inspected.

Refused by name, wherever it stands at the top level: fields that turn the model's own prompt format, its endpoint or
its guards (control fields never come from a body), prompts that are no text (embeddings, token ids), and state stored
at the vendor that nobody here has seen. A control field that is null, false or empty asks for nothing and passes, but
for the guards' (LiteLLM takes an empty list for "none"); so do the switches of `TEMPLATE`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, Literal

from firewall.case import Message
from firewall.errors import FirewallError
from firewall.wire.leaves import ARGUMENTS, TOKEN, Leaf, decoded, leaves, passes, stamp
from firewall.wire.vocabulary import KEYS
from firewall.wire.wire import Size, malformed, refused, together

GUARDS: frozenset[str] = frozenset(("guardrails", "guardrail", "guardrail_config", "disable_global_guardrails"))
CONTROL: frozenset[str] = GUARDS | frozenset("""api_base base_url api_key api_version api_type custom_llm_provider
user_config litellm_params litellm_metadata extra_body extra_headers extra_query headers mock_response fallbacks
chat_template chat_template_kwargs add_special_tokens tokenizer prompt_embeds
prompt_token_ids input_ids inputs_embeds return_token_ids return_tokens_as_token_ids kv_transfer_params vllm_xargs
logits_processors data_sources documents_url callbacks success_callback""".split())
LABELS = CONTROL - {"headers", "tokenizer"}      # what metadata may not hold, for gateways (LiteLLM) look for it there
# What may be said to a chat template: whether and how hard to think (Qwen3, GLM, DeepSeek, Granite, Kimi, gpt-oss). Numbers
# and these words; a template writes any other value into the prompt.
TEMPLATE = frozenset("enable_thinking thinking thinking_budget clear_thinking preserve_thinking reasoning_effort".split())
EFFORTS = frozenset("none minimal low medium high xhigh max no_think".split())
STORED: frozenset[str] = frozenset("""previous_response_id conversation background container previous_interaction_id
thread thread_id assistant_id cachedContent cached_content""".split())
ENDLESS = 1 << 62       # tokens: more than any cap, for what says that there is no end
# What makes an answer large, and the most of it that any API gives. `limits` in firewall.toml caps both kinds below that;
# only Ollama's clients write 2**31 - 1 for "no end", and `prompt_logprobs` is the server's to allow.
MOST: dict[str, tuple[Literal["candidates", "tokens", ""], int]] = {
    **dict.fromkeys(("n", "best_of", "candidateCount", "candidate_count"), ("candidates", 128)),
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "min_tokens"),
                    ("tokens", 1_000_000)),
    "num_predict": ("tokens", ENDLESS),
    "logprobs": ("", 100), "top_logprobs": ("", 20),
}
SCALARS = frozenset((int, float, bool, type(None)))
_HELD = CONTROL | STORED | {"metadata"}      # where something may have to be refused
_SIZED = frozenset(MOST)
_ODD = _HELD | _SIZED


# A message of role, text and place; a NamedTuple's own constructor is a call into Python.
quick_message: Callable[[tuple[str, str, str]], Message] = partial(tuple.__new__, Message)


def turns(messages: Any, roles: frozenset[str]) -> tuple[Message, ...] | None:
    """What a list of messages says, if each is nothing but one of these roles and a text; None for anything else."""
    if type(messages) is not list or len(messages) > MANY:
        return None
    out = []
    try:
        for message, where in zip(messages, _PLACES, strict=False):     # few: quicker than five calls
            role, content = message["role"], message["content"]
            if len(message) != 2 or type(content) is not str or role not in roles:
                return None
            if content:
                out.append(quick_message((role, content, where)))
    except (KeyError, TypeError):       # a field is missing, a message is no object, or a role is a list
        return None
    return tuple(out)


class Words:
    """The words of one request, gathered in order."""

    __slots__ = ("messages", "opaque")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.opaque: list[str] = []

    def each(self, role: str, value: Any, node: Any, path: str) -> None:
        """Every leaf is a message; an object of arguments is one, a leaf a line. Arguments whose escapes hide words
        are shown decoded as well."""
        spoken: dict[str, list[Leaf]] = {}
        for leaf in leaves(value, node, path, opaque=self.opaque):
            if found := _SPOKEN.search(leaf.path, len(path)):
                spoken.setdefault(leaf.path[:found.end() - 1], []).append(leaf)
                continue
            self.messages.append(Message(role, leaf.text, leaf.path))
            if leaf.path.endswith((".arguments", ".input")) and (inside := decoded(leaf.text)):
                self.messages.append(Message(role, inside, leaf.path + "#decoded"))
        self.messages += [together(role, said, where) for where, said in spoken.items()]

    def lines(self, role: str, value: Any, node: Any, path: str) -> None:
        """All leaves of one thing are the lines of one message."""
        found: list[Leaf] = leaves(value, node, path, opaque=self.opaque)
        if found:
            self.messages.append(together(role, found, path))

    def said(self) -> tuple[Message, ...]:
        """All messages that say something."""
        return tuple(filter(_TEXT, self.messages))

    def rest(self, document: dict[str, Any], known: frozenset[str], tree: Any) -> None:
        """Every other field: lists of definitions by item, all else as one message under its own name. What control fields
        `inspectable` let pass holds no words."""
        for name, value in document.items():
            if name in known or name in CONTROL or (type(value) in SCALARS and name in KEYS):
                continue
            node = tree.get(name)
            where = name if name in KEYS else stamp(name)
            if where[0] == "~":
                self.messages.append(Message("request", name, where + "#key"))
            role = "metadata" if where in ABOUT else where if where[0] != "~" else "request"
            if name in LISTS and type(value) is list:
                for i, item in enumerate(value):
                    self.lines(role, item, node.get("[]") if type(node) is dict else None, f"{where}.{i}")
            else:
                self.lines(role, value, node, where)


_OBJECT = frozenset((dict,))
NAMED: set[str] = set()
_NAMES = 64             # of them
MANY = 256              # messages read in one go
_PLACES = [f"messages.{i}.content" for i in range(MANY)]
_TEXT = itemgetter(1)       # of a message
_SPOKEN = re.compile(rf"\.(?:{'|'.join(sorted(ARGUMENTS))})\.")     # the outermost object of arguments in a path
_DIGITS = re.compile(r"-?[0-9]{1,19}")
LISTS = frozenset(("tools", "functions", "mcp_servers"))
ABOUT = frozenset(("metadata", "user", "safety_identifier", "prompt_cache_key", "labels"))


def inspectable(document: dict[str, Any]) -> tuple[Size, ...]:
    """Refuses what cannot be inspected, and sizes that nobody needs; gives the others.

    Raises:
        FirewallError: 400 `unsupported_field` or `invalid_field`; `param` names the field.
    """
    if _ODD.isdisjoint(document):
        return ()
    if _HELD.isdisjoint(document):
        return sizes(document)
    names = document.keys()
    for name in sorted(names & CONTROL):
        if not idle(name, document[name]):
            raise refused(name)
    for name in sorted(names & STORED):
        value = document[name]
        if name == "container" and type(value) is dict and not value.get("id"):
            continue        # Anthropic: what a new one shall hold
        if value not in (None, False, ""):
            raise refused(name)
    metadata = document.get("metadata")
    for name in sorted(metadata.keys() & LABELS) if type(metadata) is dict else ():
        raise refused(f"metadata.{name}")
    return sizes(document)


def idle(name: str, value: Any) -> bool:
    """Whether a control field asks for nothing that matters; then it holds no words either."""
    if name in GUARDS or value is None:
        return name not in GUARDS
    if name == "chat_template_kwargs" and type(value) is dict:
        return all(key in TEMPLATE and (said is None or type(said) is bool or (type(said) is str and said in EFFORTS) or (
            key == "thinking_budget" and type(said) is int and -1 <= said <= 1_000_000))   # some templates write it out
            for key, said in value.items())
    if name == "extra_body" and type(value) is dict and list(value) == ["google"]:      # Gemini's OpenAI endpoint
        google = value["google"]
        said = google.get("thinking_config") if type(google) is dict and list(google) == ["thinking_config"] else None
        return type(said) is dict and all(
            type(how) is bool if key == "include_thoughts" else type(how) is int and -1 <= how <= 1_000_000
            if key == "thinking_budget" else key == "thinking_level" and type(how) is str and how in EFFORTS
            for key, how in said.items())
    return (value is False or value == [] or value == {}) and name != "add_special_tokens"


def sizes(document: dict[str, Any], path: str = "", digits: bool = False) -> tuple[Size, ...]:
    """What an object that stands at `path` says about the size of the answer. -1 tokens are endless (LM Studio, vLLM).

    Raises:
        FirewallError: 400 `invalid_field` for what is no number, or out of range.
    """
    if _SIZED.isdisjoint(document):
        return ()
    out = []
    for name in sorted(_SIZED & document.keys()):
        value, (kind, most) = document[name], MOST[name]
        if value is None or (name == "logprobs" and type(value) is bool):   # chat asks whether, completions how many
            continue
        number = integer(value, digits)
        if number == -1 and kind == "tokens":
            out.append(Size("tokens", path + name, ENDLESS))
            continue
        if number is None or not 0 <= number <= most:
            raise FirewallError("invalid_field", "This field is out of the range that the firewall allows.",
                                param=path + name)
        if kind:
            out.append(Size(kind, path + name, number))
    return tuple(out)


def integer(value: Any, digits: bool = False) -> int | None:
    """A whole number as JSON may write it, `128.0` too, and in a string where `digits` says so (proto3's JSON)."""
    if type(value) is float and value.is_integer():
        return int(value)
    if digits and type(value) is str and _DIGITS.fullmatch(value):
        return int(value)
    return value if type(value) is int else None


def text(document: dict[str, Any], name: str) -> str:
    """A field that must be a string where present."""
    value = document.get(name)
    if value is None:
        return ""
    if type(value) is not str:
        raise malformed(name)
    return value


def named(model: str) -> bool:
    """Whether a model's name is inert: `model in NAMED or named(model)`, for most requests name one of few."""
    if not passes(TOKEN, model):
        return False
    if len(NAMED) == _NAMES:
        NAMED.clear()
    NAMED.add(model)
    return True


def flag(document: dict[str, Any], name: str) -> bool:
    """A field that must be a boolean where present."""
    value = document.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise malformed(name)
    return value


def items(document: dict[str, Any], name: str) -> list[Any]:
    """A field that must be a list of objects."""
    value = document.get(name)
    if type(value) is not list or not _OBJECT.issuperset(map(type, value)):
        raise malformed(name)
    return value
