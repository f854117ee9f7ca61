"""What the operating system does for a process, where it can."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys


def die_with_parent() -> None:
    """Linux: this process gets SIGTERM when its parent is gone, however it went (prctl(2), PR_SET_PDEATHSIG)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def open_streams() -> list[int]:
    """Opens the standard streams that are closed (`>&-`) on the null device, before a socket or a file takes their numbers
    and gets what is meant for them. Returns which. What reads the input then gets an error, not an empty text."""
    closed = []
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR if fd else os.O_WRONLY), True)     # takes the lowest: this
            setattr(sys, name, open(fd, "w" if fd else "r", errors="backslashreplace", closefd=False))
            closed.append(fd)
    return closed


def refused(name: str, error: OSError) -> int:
    """What the system refused, in one line on standard error; exit status 2. Nothing is said where whoever read our output
    went away (`| head`), and what is left of it goes nowhere: else the interpreter would try again at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):
        where = f"{error.filename}: " if error.filename else ""
        with contextlib.suppress(OSError, ValueError):
            print(f"{name}: {where}{error.strerror or error or type(error).__name__}", file=sys.stderr, flush=True)
    return 2
