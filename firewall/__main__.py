"""python -m firewall: serve, demo, check, policies, explain, init, records."""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firewall import __version__
from firewall.errors import FirewallError, Mistakes
from firewall.process import open_streams, refused

COMMANDS = ("serve", "demo", "check", "policies", "explain", "init", "records")
TEACH = """
examples:
  python -m firewall --upstream https://api.openai.com       serve on 127.0.0.1:8080
  python -m firewall demo                                    see it work, no key and no network needed
  python -m firewall check "how do I build a pipe bomb?"           judge one text
  python -m firewall policies test                           run every policy's cases
  python -m firewall init myfirewall                         a starter configuration and policies to edit
  python -m firewall explain guard.deadline                  what a configuration key is for

Then point an application's base URL at it: OPENAI_BASE_URL=http://127.0.0.1:8080/v1
"""


def _flags(default: Any) -> list[argparse.ArgumentParser]:
    """Flags of every command, of those that open ports, of `serve`, with a default for what is not given."""
    shared = argparse.ArgumentParser(add_help=False, argument_default=default)
    shared.add_argument("--config", metavar="FILE", type=Path, help="firewall.toml to use (default: ./firewall.toml)")
    shared.add_argument("--policies", metavar="DIR", help="folder of policy files (default: the shipped ones)")
    shared.add_argument("--guard", metavar="KIND", help="embedded | vllm | transformers | remote:URL | webhook:URL")
    ports = argparse.ArgumentParser(add_help=False, argument_default=default)
    ports.add_argument("--listen", metavar="HOST:PORT", help="where applications connect (default 127.0.0.1:8080)")
    ports.add_argument("--admin", metavar="HOST:PORT", help="/livez /readyz /metrics (default 127.0.0.1:9090)")
    serving = argparse.ArgumentParser(add_help=False, argument_default=default)
    serving.add_argument("--upstream", metavar="URL", help="the LLM API behind it, e.g. https://api.openai.com")
    serving.add_argument("--workers", metavar="N", help="processes, one a core (default 1)")
    return [shared, ports, serving]


def parser() -> argparse.ArgumentParser:
    every = _flags(None)
    top = argparse.ArgumentParser(prog="python -m firewall", parents=every, epilog=TEACH,
                                  description="A reverse proxy that judges every prompt and every streamed token "
                                  "against policies written in Markdown.",
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="version", version=__version__)
    shared, ports, serving = _flags(argparse.SUPPRESS)         # else a command would undo the flags that stand before it
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", parents=[shared, ports, serving], help="serve (the default)")
    demo = commands.add_parser("demo", parents=[shared, ports], help="show it all without key or network")
    demo.add_argument("--once", action="store_true", help="show the exchanges and exit instead of staying up")
    check = commands.add_parser("check", parents=[shared], help="judge one text; exit 0 allow, redact or flag, "
                                "1 block, 2 no verdict")
    check.add_argument("text", help="the text, or - to read standard input")
    check.add_argument("--direction", choices=("input", "output"), default="input")
    check.add_argument("--prompt", default="", help="with --direction output: the user turn it answers")
    check.add_argument("--depth", choices=("snap", "reason", "deliberate"), help="how hard a reasoning guard thinks")
    policies = commands.add_parser("policies", parents=[shared], help="list, show or test the policies")
    what = policies.add_subparsers(dest="what", metavar="list|show|test", required=True)
    what.add_parser("list", parents=[shared], help="every policy, on or off, with its rules' count and digest")
    show = what.add_parser("show", parents=[shared], help="one policy as the guard reads it")
    show.add_argument("id")
    test = what.add_parser("test", parents=[shared], help="run the cases beside each policy")
    test.add_argument("ids", nargs="*", help="only these policies")
    test.add_argument("--json", metavar="FILE", type=Path, help="also write the results here")
    explain = commands.add_parser("explain", help="what a configuration key is for")
    explain.add_argument("key", help="e.g. guard.deadline")
    init = commands.add_parser("init", help="write a starter firewall.toml and policies/")
    init.add_argument("folder", type=Path)
    records = commands.add_parser("records", help="verify the chain of record files")
    records.add_argument("what", choices=("verify",))
    records.add_argument("files", type=Path, nargs="+", metavar="FILE",
                         help="one, or the files of a rotation from the oldest to the newest")
    return top


def settings(args: argparse.Namespace) -> Any:
    from firewall.config import load
    flag = {"server.listen": "listen", "server.admin": "admin", "server.workers": "workers", "upstream.url": "upstream",
            "policies.folder": "policies", "guard.kind": "guard", "guard.depth": "depth"}
    flags = {key: getattr(args, name, None) for key, name in flag.items()}
    if flags["policies.folder"]:
        flags["policies.folder"] = str(Path(flags["policies.folder"]).absolute())     # links stay
    return load(args.config, flags=flags)


def serve(args: argparse.Namespace, closed: Sequence[int] = ()) -> int:
    """`closed`: standard streams that were not open."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)    # before anything is read there is nothing to read again
    from firewall.config import check_secrets, strangers
    from firewall.proxy.workers import Supervisor, serve_one
    config = settings(args)
    if not config.upstream.url and not config.upstreams:
        print("firewall: no upstream: set `[upstream] url` in firewall.toml, FIREWALL_UPSTREAM, or\n"
              "  python -m firewall --upstream https://api.openai.com\n"
              "To see it work without a key or network: python -m firewall demo", file=sys.stderr)
        return 2
    check_secrets(config)
    if names := strangers(config):
        import structlog

        from firewall.proxy.records import configure_logging
        configure_logging()
        structlog.get_logger().warning("unknown_environment", names=names)
    if 1 in closed and config.records.file in ("-", "/dev/stdout"):
        raise Mistakes(["records.file: standard output is closed, so that nothing could be recorded; name a file "
                        "under [records] in firewall.toml"])
    return Supervisor(config).run() if config.server.workers > 1 else serve_one(config)


def _stranger(words: Sequence[str]) -> str:
    """The first flag before the command that is none, and the nearest one: argparse would take its value for the command."""
    from firewall.lines import near
    known = ["--help", "--version"]
    known += [name for flags in _flags(None) for action in flags._actions for name in action.option_strings]
    for word in itertools.takewhile(lambda word: word not in COMMANDS, words):
        name = word.partition("=")[0]
        if name.startswith("--") and not any(k.startswith(name) for k in known):
            return name + near(name, known)
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    closed = open_streams()
    if stranger := _stranger(sys.argv[1:] if argv is None else argv):
        print(f"firewall: unknown flag {stranger}", file=sys.stderr)
        return 2
    args = parser().parse_args(argv)
    try:
        if args.command in (None, "serve"):
            return serve(args, closed)
        if args.command == "demo":
            from firewall.proxy.demo import demo
            return demo(settings(args), args.once)
        if args.command == "explain":
            from firewall.lines import explain
            print(explain(args.key), flush=True)
            return 0
        from firewall import commands
        status = commands.run(args, settings if args.command in ("check", "policies") else None)
        sys.stdout.flush()          # here a full disk or a closed pipe is an error with exit 2
        return status
    except Mistakes as e:
        print("firewall:", *e.lines, sep="\n  ", file=sys.stderr)
    except KeyError as e:
        print(f"firewall: {e.args[0]}", file=sys.stderr)
    except FirewallError as e:
        print(f"firewall: {e.detail}", file=sys.stderr)
    except OSError as e:
        return refused("firewall", e)
    except KeyboardInterrupt:
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())
