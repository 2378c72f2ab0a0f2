"""HTTP over a connection, with a limit on how large a request's head may be and how long it takes.

uvicorn's parser takes a URL and headers of any length for as long as they come; a body's limits are
those of `service.app`.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

__all__ = ["Protocol"]

HEAD_BYTES = 32_768  # of a request line and headers, in all
HEAD_SECONDS = 10.0  # that they may take to arrive


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._in_head = True  # or before the next one
        self._begun = False
        self._head = 0  # bytes that came of a head that is not whole
        self._messages = 0  # that are whole
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._begin_to_wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, and refuse a head that is too large."""
        messages = self._messages
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if messages == self._messages:
            self._head += len(data)
        elif self._begun:  # in the middle of what came, behind the end of a body
            self._head = 1
        if self._head > HEAD_BYTES:
            limit = f"The request's head has more than {HEAD_BYTES:,} bytes."
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, limit)
        elif self._head and self._late is None:
            self._begin_to_wait()

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Go on with a head that is whole."""
        self._in_head, self._begun, self._head = False, False, 0
        self._wait_no_more()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next head, for as long as uvicorn keeps an idle connection."""
        self._in_head = True
        self._messages += 1
        super().on_message_complete()

    def _begin_to_wait(self) -> None:
        self._late = self.loop.call_later(HEAD_SECONDS, self._end_waiting)

    def _wait_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end_waiting(self) -> None:
        if self._head:
            limit = f"The request's head did not arrive within {HEAD_SECONDS:g} seconds."
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, limit)
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        body = sentence.encode()
        head = f"content-type: text/plain\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + b"\r\n" + body)
        self.transport.close()
