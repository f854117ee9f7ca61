"""Lists of models: the one thing that is asked without words. `Front` adds it to `App`.

    GET /v1/models -> key, table -> forward without a body -> relay: the answer is judged like any other -> settle

The path is ours plus a name of a safe shape, the answer's words pass the guard, and there is one record: nothing about
a list is trusted because it is a list (docs/decisions/0005).
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from firewall.errors import FirewallError
from firewall.exchange import Exchange
from firewall.proxy import routes
from firewall.proxy.http1.request import Request
from firewall.proxy.http1.server import Refusal, Reply
from firewall.proxy.phases import NO_KEY, NOT_ALLOWED, App

NO_BODY = FirewallError("unexpected_body", "A GET has no body here.", status=400)


class Front(App):
    """`App`, and the GETs of `routes.LISTS`."""

    def head(self, request: Request) -> Refusal | None:
        """The head is here: refuse what needs no more."""
        if request.method != "GET":
            return super().head(request)
        request.matched = self._match(request)
        if request.matched is None:
            return self._refuse(request, NOT_ALLOWED)
        if request.length:
            return self._refuse(request, NO_BODY)
        if self.house.client_keys and not self._known_client(request):
            return self._refuse(request, NO_KEY)
        return None

    def _match(self, request: Request) -> routes.Match | None:
        if request.method != "GET":
            return super()._match(request)
        return routes.listing(request.path, request.query, request.get(b"anthropic-version") is not None)

    def _through(self, request: Request, matched: routes.Match, exchange: Exchange,
                 reply: Reply) -> Coroutine[Any, Any, bool]:
        """One exchange, of whichever kind."""
        go = self._list if request.method == "GET" else super()._through
        return go(request, matched, exchange, reply)

    async def _list(self, request: Request, matched: routes.Match, exchange: Exchange, reply: Reply) -> bool:
        self.house.records.check()
        asked = replace(matched.route.wire.ask({}), model=matched.model)
        self._forward(request, matched, asked, self.house.policies, b"", exchange, reply)
        return True
