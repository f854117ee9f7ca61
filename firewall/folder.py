"""A folder of policies -> its files. What a person takes for a policy, and would not be read, is a mistake."""

from __future__ import annotations

import re
from pathlib import Path

from firewall.errors import Mistakes

_LIKE = re.compile(r"(.+)\.(?:md|markdown|mdown|mkdn?|md\.txt)", re.I)


def asks(path: Path) -> bool:
    """Whether `files` takes it or refuses it."""
    hidden = path.name[0] == "." or path.stem.lower() == "readme"
    return not hidden and (path.suffix == ".md" or bool(_LIKE.fullmatch(path.name)))


def files(folder: Path) -> list[Path]:
    """Its `*.md` by name, but README.md and hidden files (`.#x.md` is an editor's lock). Folders in it are not looked into.

    Raises:
        Mistakes: no such folder, it cannot be listed, or a file's name ends almost as a policy's does.
    """
    try:
        found = sorted(filter(asks, folder.iterdir()))
    except (FileNotFoundError, NotADirectoryError):
        raise Mistakes([f"{folder}: no such folder; write one with `python -m firewall init DIR`"]) from None
    except OSError as e:
        raise Mistakes([f"{folder}: cannot be listed ({e.strerror})"]) from None
    if wrong := [f"{p}:1: would not be read; rename it to {match[1] + '.md'!r}" for p in found
                 if p.suffix != ".md" and (match := _LIKE.fullmatch(p.name))]:
        raise Mistakes(wrong)
    return found


def written(path: Path) -> str:
    """What stands in a policy's file.

    Raises:
        Mistakes: it is no file, cannot be read, or is no UTF-8. FileNotFoundError: nothing is there, or a link to nothing.
    """
    if path.exists() and not path.is_file():        # opening a pipe waits for its writer, for ever
        raise Mistakes([f"{path}:1: is no file; remove it, or write the policy as a file"])
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise
    except OSError as e:
        raise Mistakes([f"{path}:1: cannot be read ({e.strerror or type(e).__name__})"]) from None
    except UnicodeDecodeError:
        raise Mistakes([f"{path}:1: cannot be read as UTF-8 text; save it as UTF-8"]) from None
