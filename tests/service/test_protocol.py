"""A request's head on a real socket: how large it may be, and how long it may take."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from service import protocol
from service.protocol import Protocol

SECONDS = 30.0  # that an answer may take


async def echo(
    scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]
) -> None:
    """Answer with the number of bytes of the body."""
    count, more = 0, True
    while more:
        message = await receive()
        count += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(count).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(echo, http=Protocol, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as made:
        yield made


def said(connection: socket.socket, end: bytes = b"") -> bytes:
    """What comes until an end, or until the other side closes."""
    found = b""
    while not (end and found.endswith(end)) and (more := connection.recv(65_536)):
        found += more
    return found


def request(headers: bytes = b"", body: bytes = b"") -> bytes:
    length = b"content-length: %d\r\n" % len(body)
    return b"POST / HTTP/1.1\r\nhost: here\r\n" + length + headers + b"\r\n" + body


@pytest.mark.parametrize(
    "endless", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\n", b"\r\n"]
)
def test_a_head_without_an_end_is_refused(connection: socket.socket, endless: bytes) -> None:
    more = b"x: y\r\n" if endless.endswith(b"1.1\r\n") else b"\r\n" if endless == b"\r\n" else b"y"
    connection.sendall(endless)
    sent = 0
    try:
        while sent < 20_000_000:
            sent += connection.send(more * 1000)
    except OSError:  # the other side has closed
        pass
    assert sent < 20_000_000


def test_a_head_that_is_too_large_is_a_431(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * protocol.HEAD_BYTES)
    answer = said(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.endswith(b"The request's head has more than 32,768 bytes.")


@pytest.mark.parametrize("begun", [b"", b"GET / HT", request() + b"GET / HT"])
def test_a_head_that_does_not_come_is_waited_for_no_longer(
    port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(begun)
        answer = said(connection)
    assert answer.count(b"HTTP/1.1 200 OK") == begun.count(b"POST")
    late = b"HTTP/1.1 408 Request Timeout" in answer
    assert late is begun.endswith(b"HT")
    assert answer.endswith(b"did not arrive within 0.2 seconds.") is late


def test_many_requests_with_large_bodies_are_answered(connection: socket.socket) -> None:
    body = b"z" * 3 * protocol.HEAD_BYTES
    headers = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 1000) for number in range(25))
    for _ in range(3):
        connection.sendall(request(headers, body))
        assert said(connection, str(len(body)).encode()).startswith(b"HTTP/1.1 200 OK")
    connection.sendall(2 * request(headers, body))  # the second before the first is answered
    both = said(connection, str(len(body)).encode())
    if both.count(b"200 OK") == 1:
        both += said(connection, str(len(body)).encode())
    assert both.count(b"200 OK") == 2
    for byte in request(b"", b"abc"):
        connection.sendall(bytes([byte]))
    assert said(connection, b"\r\n\r\n3").startswith(b"HTTP/1.1 200 OK")
