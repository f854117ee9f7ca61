"""[guard] of the configuration -> the guard that serves: leaves, detectors, cascade and limits, nested.

    Limits( AllOf( Patterns, Cascade( embedded -> reasoning guard ) | one guard ) )

What is asked for and cannot be had is an error, never a silently weaker guard.
"""

from __future__ import annotations

from pathlib import Path

from firewall.config import Config
from firewall.errors import Mistakes
from firewall.guards.guard import Guard
from firewall.guards.limits import Limits
from firewall.guards.patterns import Patterns
from firewall.policy import PolicySet


def check(policies: PolicySet) -> None:
    """Raises `Mistakes` for policies no guard can work with: unknown detectors, patterns without a bound."""
    Patterns.check(policies)


def build(config: Config, policies: PolicySet) -> Guard:
    """The configured guard, limited. Raises `Mistakes` when it cannot be had."""
    from firewall.guards.compose import AllOf
    guard = leaf(config, config.guard.kind)
    g = config.guard
    if g.cascade:
        if g.kind == "embedded":
            raise Mistakes(["guard.cascade: needs a second guard; set guard.kind to vllm, transformers or remote:URL"])
        from firewall.guards.cascade import Cascade
        cheap = leaf(config, "embedded")
        guard = Cascade((cheap, guard), validated=frozenset(getattr(cheap, "validated", ())))
    if g.kind != "scripted":        # that one measures what everything but guards costs
        guard = AllOf(Patterns(), guard)
    return Limits(guard, deadline=g.deadline, patience=g.patience, slots=g.concurrency,
                  queue=g.concurrency * g.queue, memory=g.memory)


def leaf(config: Config, kind: str) -> Guard:
    """One guard by its configured kind."""
    g = config.guard
    word, _, rest = kind.partition(":")
    if word == "embedded":
        from firewall.guards.encoder import EncoderGuard
        return EncoderGuard(threads=g.threads)
    if word == "scripted":
        from firewall.guards.scripted import ScriptedGuard
        return ScriptedGuard()
    if word == "webhook":
        from firewall.guards.webhook import WebhookGuard
        return WebhookGuard(rest, deadline=g.deadline)
    if not g.model and word in ("vllm", "transformers"):
        raise Mistakes([f"guard.model: kind {word} needs the folder of a checkpoint: model = \"FOLDER\" under [guard] in "
                        "firewall.toml"])
    if word == "remote":
        from firewall.guards.remote import RemoteGuard
        return RemoteGuard(tuple(rest.split(",")), model=g.model, depth=g.depth, dialect=g.dialect,
                           accept_other_fingerprint=g.accept_other_fingerprint)
    if word == "vllm":
        from firewall.guards.vllm import VllmGuard
        return VllmGuard(Path(g.model), depth=g.depth, dialect=g.dialect, engine=g.engine,
                         accept_other_fingerprint=g.accept_other_fingerprint)
    if g.dialect != "ours":
        raise Mistakes([f"guard.dialect: kind transformers speaks ours only, not {g.dialect}; use vllm or remote:URL"])
    from firewall.guards.transformers_guard import TransformersGuard
    return TransformersGuard(Path(g.model), depth=g.depth, accept_other_fingerprint=g.accept_other_fingerprint)
