"""What the status of an upstream's answer says before its body is read, or where nobody can read it.

    101, 3xx                   502: nothing is followed
    401, 403                   the same status in our words: theirs may show a key
    >= 400 and readable        relayed, its words judged like any answer's
    >= 400 and anything else   the same status, and Retry-After, with the dialect's error in our words: SDKs go by these two
                               when they try again, and a load balancer's page is nothing that could be judged
    any other, not readable    502
"""

from __future__ import annotations

from firewall.errors import FirewallError
from firewall.proxy import headers


def check(status: int, received: headers.Pairs) -> None:
    """Raises FirewallError (upstream) for a head whose body nobody shall read."""
    if 300 <= status < 400 or status == 101:
        raise FirewallError("upstream_redirect", "The upstream answered with a redirect; it was not followed.",
                            fault="upstream", status=502)
    if status in (401, 403):
        raise FirewallError("upstream_denied", "The upstream refused the credential.", fault="upstream", status=status)
    if encoded := headers.encoding(received):
        raise FirewallError("upstream_encoding", "The upstream's answer is encoded in a way that was not asked for.",
                            fault="upstream", status=502, detail=f"content-encoding: {encoded}")


def unread(fault: FirewallError, status: int, received: headers.Pairs) -> FirewallError:
    """What a client is told of `fault`, when nothing of the answer has left. `status` is 0 before the upstream answered."""
    if fault.fault != "upstream" or fault.code == "upstream_denied" or not 400 <= status < 600:
        return fault
    return FirewallError("upstream_error", "The upstream answered with an error that could not be read.",
                         fault="upstream", status=status, detail=f"status {status}; {fault.code}: {fault.detail}",
                         retry_after=headers.patience(received))
