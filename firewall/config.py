"""firewall.toml -> frozen dataclasses. All mistakes at once, each with file, line, key path and the nearest key.

Flags win over environment over file over defaults. Paths in a file are relative to it as it is named: what its links point
to may change. The shipped `firewall.toml` holds every key at its default; a test keeps the two equal.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from firewall.errors import Mistakes
from firewall.lines import FAMILIES as FAMILIES
from firewall.lines import SHIPPED, near, number

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")       # of an environment variable
SERVICE = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_")
NO_NAME = "must be the NAME of an environment variable; a key does not belong in a file"
WORDS = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a list of texts"}
CHOICES = {"depth": ("snap", "reason", "deliberate"), "release": ("rolling", "whole", "watch")}
KINDS = ("embedded", "vllm", "transformers", "remote:URL", "webhook:URL", "scripted")
REASONING = ("vllm", "transformers", "remote:URL")
ASKS = {"model": REASONING, "dialect": REASONING, "depth": REASONING, "engine": ("vllm",)}      # of [guard]: who heeds it
PATHS = ("folder", "file", "certificate", "private_key", "ca_file")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LEAST = 33_554_432          # bytes: half of what an idle worker takes without a model
NOT_ZERO = {                # zero is no "off" for these: it would stop, spin or refuse everything
    "server.workers", "upstream.connect_timeout", "upstream.head_timeout", "upstream.idle_timeout", "policies.reload",
    "guard.deadline", "guard.concurrency", "guard.threads", "stream.whole", "stream.event", "stream.content_idle",
    "stream.total", "limits.first_byte", "limits.head", "limits.body_time", "limits.body", "limits.body_budget",
}


@dataclass(frozen=True, slots=True)
class Server:
    listen: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:9090"
    workers: int = 1
    certificate: str = ""
    private_key: str = ""
    client_keys: tuple[str, ...] = ()
    drain_wait: float = 5.0
    drain_timeout: float = 120.0


@dataclass(frozen=True, slots=True)
class Upstream:
    url: str = ""
    key: str = ""
    ca_file: str = ""
    verify: bool = True
    connect_timeout: float = 5.0
    head_timeout: float = 600.0
    idle_timeout: float = 120.0
    max_idle: int = 100
    keepalive: float = 30.0


@dataclass(frozen=True, slots=True)
class Policies:
    folder: str = ""
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    reload: float = 1.0


@dataclass(frozen=True, slots=True)
class Guard:
    kind: str = "embedded"
    model: str = ""
    depth: str = "snap"
    cascade: bool = False
    dialect: str = "ours"
    deadline: float = 3.0
    patience: float = 0.1
    concurrency: int = 8
    queue: int = 4
    memory: int = 4096
    threads: int = 1
    accept_other_fingerprint: bool = False
    engine: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    release: str = "rolling"
    hold: int = 262_144
    whole: int = 16_777_216
    event: int = 1_048_576
    content_idle: float = 120.0
    total: float = 3600.0
    pad: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    first_byte: float = 10.0
    head: float = 10.0
    idle: float = 75.0
    body_time: float = 60.0
    body_rate: int = 1024
    body: int = 16_777_216
    body_budget: int = 268_435_456
    memory: int = 0
    connections: int = 0
    in_flight: int = 0
    candidates: int = 8
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Records:
    file: str = "-"
    explain_verdict: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    server: Server = Server()
    upstream: Upstream = Upstream()
    policies: Policies = Policies()
    guard: Guard = Guard()
    stream: Stream = Stream()
    limits: Limits = Limits()
    records: Records = Records()
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)     # by family: openai, anthropic, gemini, ollama
    source: str = "shipped defaults"

    @property
    def policy_folder(self) -> Path:
        """The configured folder of policies, else the shipped one."""
        return Path(self.policies.folder) if self.policies.folder else SHIPPED / "policies"


SECTIONS: dict[str, type] = {f.name: get_type_hints(Config)[f.name] for f in fields(Config)[:7]}
ENVIRONMENT = {         # each is a flag, too: --listen, ...
    "FIREWALL_LISTEN": "server.listen", "FIREWALL_ADMIN": "server.admin", "FIREWALL_WORKERS": "server.workers",
    "FIREWALL_UPSTREAM": "upstream.url", "FIREWALL_POLICIES": "policies.folder", "FIREWALL_GUARD": "guard.kind",
}


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ,
         flags: Mapping[str, Any] | None = None) -> Config:
    """Reads the file (default: FIREWALL_CONFIG, ./firewall.toml, else the shipped defaults), then the environment,
    then `flags` (dotted key -> value; None is skipped).

    Raises:
        Mistakes: every mistake at once.
    """
    named = path or (Path(environ["FIREWALL_CONFIG"]) if environ.get("FIREWALL_CONFIG") else None)
    path = named or Path("firewall.toml")
    wrong: list[str] = []
    config, text = Config(), ""
    families: dict[str, dict[str, Any]] = {}
    if named or os.path.lexists(path):      # also a folder or a link to nothing, which a mount may leave: no silent defaults
        try:
            text = path.read_text("utf-8-sig")
            data = tomllib.loads(text)
        except (OSError, UnicodeDecodeError) as e:
            missing = "no such file" if path is named and isinstance(e, FileNotFoundError) else ""
            fix = "" if path is named else "; remove it or give --config FILE"
            raise Mistakes([f"{path}: {missing or f'cannot be read ({type(e).__name__})'}{fix}"]) from None
        except tomllib.TOMLDecodeError as e:
            raise Mistakes([f"{path}: not TOML: {e}"]) from None
        config, families = _fill(data, text, str(path), wrong)
    settings = {dotted: (name, environ[name]) for name, dotted in ENVIRONMENT.items() if environ.get(name)}
    names = {dotted: f"--{name.removeprefix('FIREWALL_').lower()}" for name, dotted in ENVIRONMENT.items()}
    settings |= {k: (names.get(k, ""), v) for k, v in (flags or {}).items() if v is not None}
    for dotted, (said, value) in settings.items():
        section, key = dotted.split(".")
        part = getattr(config, section)
        problem, value = _check(key, value, type(getattr(part, key)), f"{section}.{key}", loose=True)
        if problem:
            wrong.append(f"{said} ({dotted}): {problem}" if said else f"{dotted}: {problem}")
        else:
            config = replace(config, **{section: replace(part, **{key: value})})
    if families:                # now that [upstream] is what the environment and the flags made of it
        config = replace(config, upstreams={k: _family(config.upstream, k, v, text, str(path), wrong)
                                            for k, v in families.items()})
    wrong += _consistent(config)
    wrong += _unheeded(config.guard, text, str(path), settings)
    if wrong:
        raise Mistakes(wrong)
    return config


def strangers(config: Config, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Variables that look like ours and set nothing, with the nearest of ours. Keys that `config` names are no strangers,
    and what Kubernetes sets for a service called `firewall` is not either."""
    ours = {"FIREWALL_CONFIG", *ENVIRONMENT}
    used = {u.key.removeprefix("env:") for u in (config.upstream, *config.upstreams.values())}
    used |= {k.removeprefix("env:") for k in config.server.client_keys}
    return [f"{name}{near(name, ours)}" for name, value in sorted(environ.items()) if name.startswith("FIREWALL_") and value
            and name not in ours | used and not SERVICE.search(name) and not value.startswith(("tcp://", "udp://"))]


def secret(reference: str, environ: Mapping[str, str] = os.environ) -> str:
    """`env:NAME` -> the value; empty stays empty. Raises `Mistakes` when the variable is not set or is no key, in words
    that repeat neither a value nor what may be one: some keys read like a name in small letters."""
    if not reference:
        return ""
    name = reference.removeprefix("env:")
    if not NAME.fullmatch(name):
        raise Mistakes([f"a key {NO_NAME}"])
    value = environ.get(name, "").strip()           # a mounted secret often ends in a line's end
    shown = name if name.isupper() else f"{name[:3]}... (written in full in firewall.toml)"
    if not value:
        raise Mistakes([f"environment variable {shown} is not set; it should hold a key"])
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise Mistakes([f"environment variable {shown} is no key: it holds blanks or characters that a header cannot have"])
    return value


def check_secrets(config: Config, environ: Mapping[str, str] = os.environ) -> None:
    """Raises `Mistakes` for every key of `config` that `environ` does not hold, each once, however many dialects use it."""
    used = [u for f in FAMILIES if (u := config.upstreams.get(f, config.upstream)).url]
    wrong: list[str] = []
    for reference in (*config.server.client_keys, *(u.key for u in used)):
        try:
            secret(reference, environ)
        except Mistakes as e:
            wrong += e.lines
    if wrong:
        raise Mistakes(list(dict.fromkeys(wrong)))


def address(value: str) -> tuple[str, int]:
    """`HOST:PORT` or `[v6]:PORT` -> (host, port). Raises ValueError."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(value)
    return host.strip("[]"), int(port)


def _fill(data: dict[str, Any], text: str, where: str, wrong: list[str]) -> tuple[Config, dict[str, dict[str, Any]]]:
    """(the configuration, tables of [upstream.FAMILY])."""
    config = Config(source=where)
    families: dict[str, dict[str, Any]] = {}
    for name, table in data.items():
        if name not in SECTIONS or not isinstance(table, dict):
            wrong.append(f"{where}:{number(text, name, '')}: {_stray(name, table)}")
            continue
        if name == "upstream":
            families = {k: v for k, v in table.items() if isinstance(v, dict)}
            table = {k: v for k, v in table.items() if k not in families}
            wrong += [f"{where}:{number(text, '', f'upstream.{k}')}: unknown dialect family {k!r}{near(k, FAMILIES)}"
                      for k in sorted(set(families) - set(FAMILIES))]
        part = _section(SECTIONS[name](), table, name, text, where, wrong)
        config = replace(config, **{name: part})
    return config, families


def _stray(name: str, value: Any) -> str:
    """What is wrong with something at the top of the file that is no section of ours."""
    if name in SECTIONS:
        return f"{name} is a section: write [{name}] on a line of its own, and its keys below"
    if isinstance(value, dict):
        return f"unknown section [{name}]{near(name, SECTIONS)}"
    homes = [s for s, kind in SECTIONS.items() if name.replace("-", "_") in {f.name for f in fields(kind)}]
    return f"{name} stands outside a section" + (f"; write it below {' or '.join(f'[{s}]' for s in homes)}" if homes else "")


def _family(base: Any, name: str, table: dict[str, Any], text: str, where: str, wrong: list[str]) -> Any:
    """[upstream.NAME]: what it leaves out comes from [upstream], but no key goes to another vendor's address."""
    if table.get("url", base.url) != base.url:
        base = replace(base, key="")
    return _section(base, table, f"upstream.{name}", text, where, wrong)


def _section(part: Any, table: dict[str, Any], section: str, text: str, where: str, wrong: list[str]) -> Any:
    known = {f.name.replace("_", "-"): f for f in fields(part)}
    for key, value in table.items():
        line = number(text, key, section)
        if key not in known:
            wrong.append(f"{where}:{line}: unknown key {section}.{key}{near(key, known)}")
            continue
        name = known[key].name
        problem, value = _check(name, value, type(getattr(part, name)), f"{section}.{key}")
        if problem:
            wrong.append(f"{where}:{line}: {section}.{key}: {problem}")
            continue
        beside = Path.cwd() if Path(where).is_fifo() else Path(where).absolute().parent         # `--config <(...)`
        if name in PATHS and value not in ("", "-") or name == "model" and value and os.path.exists(beside / value):
            value = str(beside / value)         # a model may also be the name that a server knows it by
        part = replace(part, **{name: value})
    return part


def _check(key: str, value: Any, kind: Any, path: str, loose: bool = False) -> tuple[str, Any]:
    """One value against the type of its default. `loose` also takes text for numbers (environment, flags)."""
    if loose and isinstance(value, str) and kind in (int, float):
        try:
            value = kind(value)
        except ValueError:
            return f"must be {WORDS[kind]}", value
    if isinstance(value, int) and value >= 1 << 63:
        return "is too large", value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        value = tuple(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        return f"must be {WORDS.get(kind, 'text')}", value
    if kind is float and not math.isfinite(value):
        return "must be a number; there is no value for never", value
    if kind in (int, float) and value < 0:
        return "must not be negative", value
    if kind in (int, float) and value == 0 and f"{path.split('.')[0]}.{key}" in NOT_ZERO:
        return "must be more than 0", value
    if key in CHOICES and value not in CHOICES[key]:
        return f"must be one of {', '.join(CHOICES[key])}{near(value, CHOICES[key])}", value
    if path == "guard.kind" and value.split(":")[0] not in {k.split(":")[0] for k in KINDS}:
        return f"must be one of {', '.join(KINDS[:-1])}{near(value, KINDS)}", value
    if path == "guard.kind" and value.startswith(("remote", "webhook")) and "://" not in value:
        return f"needs an address, e.g. {value.split(':')[0]}:http://127.0.0.1:8000", value
    if path == "guard.kind" and ":" in value and f"{value.split(':')[0]}:URL" not in KINDS:
        return f"nothing stands behind {value.split(':')[0]}: take it away (a checkpoint's folder is guard.model)", value
    if path in ("server.listen", "server.admin"):
        try:
            address(value)
        except ValueError:
            return "must be HOST:PORT, e.g. 127.0.0.1:8080", value
    if path.startswith("upstream") and key == "url" and value and not value.startswith(("http://", "https://")):
        return "must start with http:// or https://", value
    if key == "key" and value and not (value.startswith("env:") and NAME.fullmatch(value[4:])):
        return f"must be env:NAME; it {NO_NAME}", value
    if key == "client_keys" and not all(NAME.fullmatch(v.removeprefix("env:")) for v in value):
        return f"each {NO_NAME}", value
    return "", value


def _consistent(config: Config) -> list[str]:
    s = config.server
    out = []
    if bool(s.certificate) != bool(s.private_key):
        out.append("server: certificate and private-key go together")
    if s.listen == s.admin and not s.listen.endswith(":0"):
        out.append("server: listen and admin must differ")
    out += [f"{name}: {u.url} is where this firewall listens: it would ask itself" for name, u in
            (("upstream.url", config.upstream), *((f"upstream.{k}.url", u) for k, u in config.upstreams.items()))
            if u.url and _itself(u.url, s.listen)]
    if 0 < config.limits.memory < LEAST:
        out.append(f"limits.memory: is in bytes; no worker serves with less than {LEAST}")
    return out


def _itself(url: str, listen: str) -> bool:
    """Whether an upstream is the own listener, by name: each request would come back until all connections are taken."""
    try:
        (host, port), parts = address(listen), urlsplit(url)
        there, at = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:          # said elsewhere
        return False
    return at == port and (there == host or (there in LOOPBACK and host in (*LOOPBACK, "0.0.0.0", "::")))


def _unheeded(guard: Guard, text: str, where: str, settings: Mapping[str, Any]) -> list[str]:
    """What [guard] asks for and its kind would pass over: a weaker guard than was asked for, in silence. Who names another
    kind in `settings` (flags, environment) has asked for it, and need not empty the file."""
    kind, out = guard.kind.split(":")[0], []
    for key, kinds in ASKS.items():
        said = f"guard.{key}" in settings
        if (getattr(guard, key) != getattr(Guard(), key) and kind not in (*(k.split(":")[0] for k in kinds), "scripted")
                and (said or "guard.kind" not in settings)):
            at = "" if said else f"{where}:{number(text, key, 'guard')}: "
            out.append(f"{at}guard.{key}: kind {kind} has no use for it; set kind to {' or '.join(kinds)}, or leave it out")
    return out
