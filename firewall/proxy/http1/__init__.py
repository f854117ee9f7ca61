"""The data plane: a strict HTTP/1.1 server and upstream client on asyncio, llhttp and uvloop.

`Server` serves an `App`; `Pool` sends to one `Origin` and tells a `Sink` what comes back. Nothing else of the
firewall is known here but its errors. Start reading at request.py.
"""

from __future__ import annotations

from .client import Call, Origin, Pool, Sink
from .limits import Limits, UpstreamLimits
from .reply import Reply
from .request import Reader, Request
from .response import Response
from .server import App, Refusal, Server

__all__ = ["App", "Call", "Limits", "Origin", "Pool", "Reader", "Refusal", "Reply", "Request", "Response", "Server",
           "Sink", "UpstreamLimits"]
