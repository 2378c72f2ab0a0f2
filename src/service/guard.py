"""What surrounds every request: its count, the headers of its answer, and faults as sentences."""

import logging
import time
from typing import TYPE_CHECKING

import orjson

from service.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "Guard"]

# The page loads nothing but the service's own files, and nobody frames it.
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        b"object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
_FAULT = orjson.dumps({"detail": "The service failed at this request; its log says why."})

_log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware."""

    def __init__(self, app: "ASGIApp", metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def answer(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                kind = (b"content-type", b"application/json")
                await answer({"type": "http.response.start", "status": 500, "headers": [kind]})
                await answer({"type": "http.response.body", "body": _FAULT})
        finally:
            self._metrics.answered(scope["path"], status, time.perf_counter() - began)
