"""Errors are named by whose fault they are, and carry two texts.

`public` may be shown to a client: a constant sentence of ours, never input, never a key.
`detail` is for the operator: it may name files, options and hosts, never content.
`code` is a stable word for machines (logs, metrics, error bodies).
"""

from __future__ import annotations

from typing import Literal

Fault = Literal["client", "upstream", "guard", "ours"]


class FirewallError(Exception):
    """Anything that ends an exchange other than a verdict.

    Args:
        code: stable machine word, e.g. `"duplicate_key"`.
        public: sentence for the client.
        fault: whose fault it is.
        status: HTTP status when it happens before the first byte.
        detail: sentence for the operator.
        param: the JSON path or header the client should look at (a name of ours, never its value).
        retry_after: seconds for `Retry-After`, only for overload.
    """

    def __init__(self, code: str, public: str, *, fault: Fault = "client", status: int = 400,
                 detail: str = "", param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {detail or public}")
        self.code, self.public, self.fault, self.status = code, public, fault, status
        self.detail, self.param, self.retry_after = detail or public, param, retry_after

    @property
    def named(self) -> str:
        """`public` with `param`, for shapes of an error that have no place for it."""
        return self.public if not self.param or f"`{self.param}`" in self.public else f"{self.public} ({self.param})"


def internal(error: BaseException, what: str) -> FirewallError:
    """Our own failure with a request or an answer: the client learns that, the operator the kind of error."""
    return FirewallError("internal", f"The firewall failed to handle this {what}.", fault="ours", status=500,
                         detail=type(error).__name__)


class GuardDown(FirewallError):
    """A guard has no verdict: dead, late, unreadable, overloaded. Never an allow, never a block by itself:
    `verdict.decide` alone turns it into a decision."""

    def __init__(self, code: str = "guard_unavailable", detail: str = "", *, retry_after: float = 1.0) -> None:
        super().__init__(code, "The safety guard is unavailable; the request was not judged.",
                         fault="guard", status=503, detail=detail or code, retry_after=retry_after)


class Mistakes(Exception):
    """Every mistake of a configuration or a policy folder at once, one line each: `file:line: sentence`."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
