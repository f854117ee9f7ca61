"""The end of exchanges: those that end in one turn of the event loop are recorded and counted together, at its end.

In one go, because code that runs right after itself takes a third of the time, and the records of a turn go out in one
write. The client may have its answer a turn before its line stands in the file; what an exchange took is measured at `add`.
"""

from __future__ import annotations

import asyncio
import time

import orjson
import structlog

from firewall.exchange import Exchange
from firewall.proxy import metrics
from firewall.proxy.records import Records

SHOWN = 0.1         # seconds until other workers' pages show what was counted


class Ledger:
    """What ended and is not written yet. For one event loop; without a running one nothing waits."""

    def __init__(self, records: Records, explain: bool = False) -> None:
        self.records, self.explain = records, explain
        self._ended: list[Exchange] = []
        self._showing: asyncio.TimerHandle | None = None

    def add(self, exchange: Exchange) -> None:
        """An exchange has ended: exactly one record, always."""
        exchange.ended = time.perf_counter()
        self._ended.append(exchange)
        if len(self._ended) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Writes and counts what ended. To be called, too, before something is read or closed. Never raises."""
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        lines = []
        for exchange in ended:
            try:
                lines.append(orjson.dumps(exchange.record(self.explain)))
                metrics.settle(exchange)
            except Exception as error:      # ours, and not the others'
                structlog.get_logger().error("internal", where=type(error).__name__, id=exchange.id)
        self.records.extend(lines)
        if self._showing is None:
            try:
                self._showing = asyncio.get_running_loop().call_later(SHOWN, self._show)
            except RuntimeError:
                metrics.pour()

    def close(self) -> None:
        """Writes and counts the last."""
        self.flush()
        if self._showing is not None:
            self._showing.cancel()
            self._show()

    def _show(self) -> None:
        self._showing = None
        metrics.pour()
