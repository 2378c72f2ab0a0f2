"""The service as a process: promotions under load, its end, and what it reads off the wire."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import psutil
import pytest
import uvicorn
from tests.service.conftest import ROOT, TRIP, Registry, Server, bodies, drawn

from service import server as module
from service.models import Models
from service.predictor import load
from trip_duration.params import Serve
from trip_duration.registry import Served

Start = Callable[..., Server]
JSON = {"content-type": "application/json"}
PROMOTIONS = 6


class Asker(threading.Thread):
    """Asks one trip after another over one connection, until told to stop."""

    def __init__(self, server: Server, trips: list[dict[str, Any]], first: int) -> None:
        super().__init__(daemon=True)
        self._server, self._trips, self._first = server, trips, first
        self.stop = threading.Event()
        self.answers: list[tuple[int, int, dict[str, Any]]] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            connection = self._server.connection()
            place = self._first
            while not self.stop.is_set():
                place = (place + 1) % len(self._trips)
                connection.request("POST", "/predict", json.dumps(self._trips[place]), JSON)
                answer = connection.getresponse()
                self.answers.append((place, answer.status, json.loads(answer.read())))
            connection.close()
        except BaseException as error:
            self.error = error

    def versions(self) -> set[str]:
        return {answer["model_version"] for _, _, answer in self.answers}


def test_promotions_under_load_lose_no_request(
    serving: Start, registry: Registry, first: Served, second: Served
) -> None:
    trips = drawn(200)
    models = {model.version: load(model).predict(trips) for model in (first, second)}
    registry.promote(first)
    server = serving()
    assert "answers with model 1" in server.ready_line()
    askers = [Asker(server, bodies(trips), 50 * number) for number in range(4)]
    for asker in askers:
        asker.start()
    deadline = time.monotonic() + 60
    for number in range(PROMOTIONS):
        champion = (second, first)[number % 2]
        before = [len(asker.answers) for asker in askers]
        registry.promote(champion)
        while not all(  # until each has had an answer of the new champion
            any(
                answer["model_version"] == champion.version
                for _, _, answer in asker.answers[place:]
            )
            for asker, place in zip(askers, before, strict=True)
        ):
            assert time.monotonic() < deadline, "the promotion was not followed"
            assert all(asker.is_alive() for asker in askers)
            time.sleep(0.01)
    for asker in askers:
        asker.stop.set()
    for asker in askers:
        asker.join(30)
        assert asker.error is None
        assert asker.versions() == {"1", "2"}
        for place, status, answer in asker.answers:
            assert status == 200
            expected = models[answer["model_version"]]
            for name in ("minutes", "lower", "upper"):
                assert answer[name] == expected[name][place]
    connection = server.connection()
    connection.request("GET", "/metrics")
    said = connection.getresponse().read().decode()
    assert f"promotions_followed_total {PROMOTIONS:.1f}" in said
    assert 'status="5' not in said
    connection.close()
    code, out, err = server.ended(signal.SIGTERM)
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["model 2 answers now.", "model 1 answers now."]


class Promoting(Models):
    """Loads a second model right behind the first."""

    def __init__(self, *champions: Served) -> None:
        super().__init__([])
        self._champions = champions

    def start(self) -> None:
        for champion in self._champions:
            self._take(json.dumps(asdict(champion), default=str))


def test_a_promotion_while_the_service_starts_is_announced(
    settings: Serve,
    first: Served,
    second: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "listen", lambda: None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    module.run(ROOT, settings.model_copy(update={"port": port}), Promoting(first, second))
    assert capsys.readouterr().out.splitlines() == [
        f"http://127.0.0.1:{port} answers with model 1; Ctrl-C ends it.",
        "model 2 answers now.",
    ]


def test_lists_do_not_hold_up_single_trips(
    serving: Start, registry: Registry, first: Served
) -> None:
    """While lists are predicted all the time, a single trip is answered between their parts."""
    registry.promote(first)
    server = serving()
    server.ready_line()
    trips = bodies(drawn(500))
    listed = Asker(server, [trips] * 2, 0)  # type: ignore[list-item]
    listed.versions = lambda: set()  # type: ignore[method-assign]
    single = Asker(server, trips, 0)
    listed.start()
    single.start()
    deadline = time.monotonic() + 30
    while len(listed.answers) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for asker in (listed, single):
        asker.stop.set()
        asker.join(30)
        assert asker.error is None
        assert {status for _, status, _ in asker.answers} == {200}
    assert len(single.answers) > len(listed.answers)


# -- its end -------------------------------------------------------------------------------------


def raw(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def head(length: int) -> bytes:
    return (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % length
    )


def received(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_has_begun_is_answered_before_it_ends(
    serving: Start, registry: Registry, first: Served, signum: int
) -> None:
    registry.promote(first)
    server = serving()
    server.ready_line()
    [child] = psutil.Process(server.process.pid).children()
    body = json.dumps(TRIP).encode()
    with raw(server) as connection:
        connection.sendall(head(len(body)) + body[:20])
        with raw(server) as other:  # when it is answered, the head before has been read
            other.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert b"200 OK" in received(other)
        server.process.send_signal(signum)
        deadline = time.monotonic() + 30
        while True:  # until it takes no more connections
            try:
                raw(server).close()
            except OSError:
                break
            assert time.monotonic() < deadline
            time.sleep(0.01)
        connection.sendall(body[20:])
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"model_version":"1"' in answer
    code, out, err = server.ended()
    assert (code, out.strip(), err) == (0, "", "")
    assert not child.is_running()


def test_it_ends_with_what_follows_when_it_is_killed(
    serving: Start, registry: Registry, first: Served
) -> None:
    registry.promote(first)
    server = serving()
    server.ready_line()
    [child] = psutil.Process(server.process.pid).children()
    server.process.kill()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()


# -- its start -----------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_a_sentence(
    serving: Start, registry: Registry, first: Served
) -> None:
    registry.promote(first)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = serving(port).ended()
    assert ended == (
        1,
        "",
        f"The service can't listen at http://127.0.0.1:{port} (Address already in use): set "
        "serve.port, or serve.host, in params.yaml to one that is free on this machine.\n",
    )


def test_without_a_model_it_ends_with_the_reason(serving: Start, registry: Registry) -> None:
    registry.command[1:] = ["-c", "raise SystemExit('There is no model: run `make train`.')"]
    server = serving()
    code, out, err = server.ended()
    assert (code, out) == (1, "")
    assert err.count("There is no model: run `make train`.") == 1
    assert "Traceback" not in err


# -- what it reads off the wire ------------------------------------------------------------------


def test_a_body_that_is_too_long_is_refused_before_it_comes(server: Server) -> None:
    with raw(server) as connection:
        connection.sendall(head(10**12))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_refused_where_it_becomes_too_long(server: Server) -> None:
    with raw(server) as connection:
        connection.sendall(head(0).replace(b"content-length: 0", b"transfer-encoding: chunked"))
        chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
        connection.sendall(chunk * 10)
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):  # 100,000 bytes are allowed
            connection.recv(1)
        connection.settimeout(30)
        connection.sendall(chunk)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_long_list_is_answered_with_the_models_own_bits(server: Server, first: Served) -> None:
    trips = drawn(500)
    connection = server.connection()
    connection.request("POST", "/predict", json.dumps(bodies(trips)), JSON)
    answers = json.loads(connection.getresponse().read())
    connection.close()
    for name, values in load(first).predict(trips).items():
        np.testing.assert_array_equal([answer[name] for answer in answers], values)


@pytest.mark.parametrize(
    "sent", [b"\r\n\r\n", b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_what_is_no_http_harms_nobody(server: Server, sent: bytes) -> None:
    with raw(server) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received(connection)
    connection_after = server.connection()
    connection_after.request("GET", "/health")
    assert connection_after.getresponse().status == 200
    connection_after.close()
