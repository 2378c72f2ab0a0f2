"""The service's paths, called without a server."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from tests.service.conftest import TRIP, bodies, drawn

from service import app as module
from service.app import app
from service.predictor import Predictor, load
from trip_duration.errors import TripDurationError
from trip_duration.params import Serve
from trip_duration.registry import Served

T = TypeVar("T")
JSON = {"content-type": "application/json"}


def models_of(predictor: Predictor | None, trouble: str | None = None) -> Any:
    return SimpleNamespace(current=predictor, trouble=trouble, followed=3, failures=1)


def zones_of(_: Predictor) -> dict[str, Any]:
    return {"kind": "schematic", "width": 9, "height": 9, "zones": []}


@pytest.fixture(scope="module")
def predictor(first: Served) -> Predictor:
    return load(first)


@pytest.fixture(scope="module")
def service(predictor: Predictor, settings: Serve) -> FastAPI:
    return app(settings, models_of(predictor), zones_of)


def within(service: FastAPI, ask: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    async def all_of_it() -> T:
        transport = httpx.ASGITransport(service)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await ask(client)

    return asyncio.run(all_of_it())


def get(service: FastAPI, path: str) -> httpx.Response:
    return within(service, lambda client: client.get(path))


def post(service: FastAPI, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return within(
        service, lambda client: client.post("/predict", content=content, headers=JSON | headers)
    )


# -- predictions ---------------------------------------------------------------------------------


def said(answers: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    assert {answer["model_version"] for answer in answers} == {"1"}
    names = ("minutes", "lower", "upper")
    return {name: np.array([answer[name] for answer in answers]) for name in names}


@pytest.mark.parametrize("rows", [1, 64, 65, 500])
def test_a_list_gets_the_models_own_bits(service: FastAPI, predictor: Predictor, rows: int) -> None:
    trips = drawn(rows)
    answer = post(service, bodies(trips))
    assert answer.status_code == 200
    found = said(answer.json())
    for name, values in predictor.predict(trips).items():
        np.testing.assert_array_equal(found[name], values)


def test_requests_that_come_together_get_the_same_bits(
    service: FastAPI, predictor: Predictor
) -> None:
    trips = drawn(150)

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        sent = [client.post("/predict", json=body, headers=JSON) for body in bodies(trips)]
        return await asyncio.gather(*sent)

    found = said([answer.json() for answer in within(service, ask)])
    for name, values in predictor.predict(trips).items():
        np.testing.assert_array_equal(found[name], values)
    batches = re.search(r'batch_trips_bucket{le="1.0"} (\S+)', get(service, "/metrics").text)
    count = re.search(r"batch_trips_count (\S+)", get(service, "/metrics").text)
    assert batches
    assert count
    assert float(batches[1]) < float(count[1])  # some were predicted together


def test_one_trip_gets_one_answer_and_no_trips_get_none(service: FastAPI) -> None:
    answer = post(service, TRIP)
    assert set(answer.json()) == {"minutes", "lower", "upper", "model_version"}
    assert answer.headers["content-type"] == "application/json"
    empty = post(service, [])
    assert (empty.status_code, empty.json()) == (200, [])


def test_a_one_hot_model_answers_too(course: Served, settings: Serve) -> None:
    made = load(course)
    service = app(settings, models_of(made), zones_of)
    trips = drawn(3)
    answers = post(service, bodies(trips)).json()
    assert [answer["minutes"] for answer in answers] == made.predict(trips)["minutes"].tolist()


def test_a_request_ends_with_the_model_that_it_began_with(
    first: Served, second: Served, settings: Serve
) -> None:
    """The swap comes while the body arrives, and between the parts of a list."""
    old, new = load(first), load(second)
    models = models_of(old)
    service = app(settings, models, zones_of)
    trips = drawn(300)

    async def ask(client: httpx.AsyncClient) -> tuple[Any, Any]:
        begun = asyncio.create_task(client.post("/predict", json=bodies(trips), headers=JSON))
        await asyncio.sleep(0)
        while not old_calls:
            await asyncio.sleep(0.001)
        models.current = new
        return (await begun).json(), (await client.post("/predict", json=TRIP)).json()

    old_calls: list[int] = []
    honest = old.model.builder.transform

    def noted(table: Any) -> Any:
        old_calls.append(table.num_rows)
        return honest(table)

    old.model.builder.transform = noted  # type: ignore[method-assign]
    listed, one = within(service, ask)
    assert {answer["model_version"] for answer in listed} == {"1"}
    assert one["model_version"] == "2"


def test_a_model_that_fails_costs_a_500_and_a_line(
    first: Served, settings: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    made = load(first)
    made.model.builder.rows = None  # type: ignore[method-assign, assignment]
    service = app(settings, models_of(made), zones_of)
    answer = post(service, TRIP)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "The service failed at this request; its log says why."}
    assert caplog.messages == ["POST /predict failed"]
    assert 'requests_total{path="/predict",status="500"} 1.0' in get(service, "/metrics").text


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"]
)
def test_what_is_not_said_to_be_json_is_refused(service: FastAPI, kind: str) -> None:
    answer = post(service, TRIP, **{"content-type": kind})
    assert answer.status_code == 415
    assert "expected 'application/json'" in answer.json()["detail"]


def test_json_may_have_a_charset(service: FastAPI) -> None:
    answer = post(service, TRIP, **{"content-type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 200


def test_a_wrong_trip_is_a_422_that_names_the_field(service: FastAPI) -> None:
    answer = post(service, [TRIP, TRIP | {"pickup_zone": 300}])
    assert answer.status_code == 422
    assert answer.json() == {
        "detail": [
            {
                "type": "less_than_equal",
                "loc": ["body", 1, "pickup_zone"],
                "msg": "Input should be less than or equal to 265",
            }
        ]
    }


def test_a_list_that_is_too_long_is_a_422(service: FastAPI) -> None:
    answer = post(service, [TRIP] * 501)
    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["msg"] == "The list holds 501 trips: expected at most 500"


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_long_is_a_413(service: FastAPI, chunked: bool) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(50):
            sent += 10_000
            yield b" " * 10_000

    content = chunks() if chunked else b" " * 100_001
    answer = within(service, lambda c: c.post("/predict", content=content, headers=JSON))
    assert answer.status_code == 413
    assert "at most 100,000 bytes" in answer.json()["detail"]
    assert sent <= 120_000


def test_a_body_that_does_not_arrive_is_a_408(
    service: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_SECONDS", 0.05)

    async def ask(_: httpx.AsyncClient) -> list[Any]:
        answers: list[Any] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(60)
            return {}

        async def send(message: Any) -> None:
            answers.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b""}
        headers = [(b"content-type", b"application/json")]
        await service(scope | {"headers": headers}, receive, send)
        return answers

    start, _ = within(service, ask)
    assert start["status"] == 408


def test_until_there_is_a_model_it_says_why(settings: Serve) -> None:
    service = app(settings, models_of(None, "No model: run `make train`."), zones_of)
    for answer in (get(service, "/ready"), get(service, "/zones"), post(service, TRIP)):
        assert (answer.status_code, answer.json()) == (
            503,
            {"detail": "No model: run `make train`."},
        )
    assert get(service, "/health").status_code == 200
    assert "trip_duration_ready 0.0" in get(service, "/metrics").text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/nothing", "/predict/", "//", "/../models"])
def test_other_paths_are_not_there(service: FastAPI, path: str) -> None:
    assert get(service, path).status_code in (404, 307)


# -- what else it says ---------------------------------------------------------------------------


def test_ready_says_which_model_answers(service: FastAPI, settings: Serve, first: Served) -> None:
    found = get(service, "/ready").json()
    assert found.pop("since").endswith("+00:00")
    assert found == {
        "model_version": "1",
        "digest": first.digest,
        "taxi": "green",
        "preset": "metered",
        "train_months": ["2024-01"],
        "level": 0.9,
        "uses_distance": True,
        "max_trips": settings.max_trips,
        "trouble": None,
    }


def test_ready_says_what_troubles_it(predictor: Predictor, settings: Serve) -> None:
    service = app(settings, models_of(predictor, "Version 9 is broken."), zones_of)
    answer = get(service, "/ready")
    assert (answer.status_code, answer.json()["trouble"]) == (200, "Version 9 is broken.")


def test_the_zones_are_asked_for_once(predictor: Predictor, settings: Serve) -> None:
    calls: list[Predictor] = []
    service = app(settings, models_of(predictor), lambda now: calls.append(now) or zones_of(now))

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.get("/zones") for _ in range(5)))

    assert [answer.json() for answer in within(service, ask)] == [zones_of(predictor)] * 5
    assert calls == [predictor]


def test_another_model_has_a_map_of_its_own(
    first: Served, booking: Served, settings: Serve
) -> None:
    made = [load(one) for one in (first, booking)]
    models = models_of(made[0])
    service = app(settings, models, lambda now: {"kind": now.served.version, "zones": []})

    async def ask(client: httpx.AsyncClient) -> list[Any]:
        said = []
        for number in (0, 1, 1, 0):
            models.current = made[number]
            said.append((await client.get("/zones")).json()["kind"])
        return said

    assert within(service, ask) == ["1", "3", "3", "1"]


def test_zones_that_cannot_be_drawn_are_a_sentence(predictor: Predictor, settings: Serve) -> None:
    def broken(_: Predictor) -> dict[str, Any]:
        raise TripDurationError("data/zones.parquet can't be read.")

    answer = get(app(settings, models_of(predictor), broken), "/zones")
    assert (answer.status_code, answer.json()) == (
        503,
        {"detail": "data/zones.parquet can't be read."},
    )


def test_metrics_count_what_was_asked(predictor: Predictor, settings: Serve) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    service = app(settings, models_of(predictor), zones_of)
    post(service, [TRIP] * 100)
    post(service, TRIP)
    post(service, {})
    get(service, "/invented/1")
    get(service, "/invented/2")
    answer = get(service, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = [sample.labels[name] for name in sorted(sample.labels)]
            found[sample.name.removeprefix("trip_duration_"), *labels] = sample.value
    assert found["requests_total", "/predict", "200"] == 2
    assert found["requests_total", "/predict", "422"] == 1
    assert found["requests_total", "other", "404"] == 2
    assert found["request_seconds_count", "/predict"] == 3
    assert found["trips_total",] == 101
    assert found["batch_trips_count",] == 2
    assert found["promotions_followed_total",] == 3
    assert found["load_failures_total",] == 1
    assert found["model_info", predictor.served.digest, "side_by_side", "1"] == 1
    assert found["ready",] == 1


# -- the page, and what a browser is told --------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("<p>Trips</p>")
    (tmp_path / "page.js").write_text("")
    return tmp_path


@pytest.fixture
def with_page(predictor: Predictor, settings: Serve, page: Path) -> FastAPI:
    return app(settings, models_of(predictor), zones_of, page)


def test_the_pages_files_are_answered_at_their_names(with_page: FastAPI) -> None:
    answer = get(with_page, "/")
    assert answer.text == "<p>Trips</p>"
    assert answer.headers["content-type"].startswith("text/html")
    assert get(with_page, "/page.js").headers["content-type"].startswith("text/javascript")
    assert get(with_page, "/index.html").status_code == 404


@pytest.mark.parametrize("path", ["/", "/page.js", "/health", "/nothing", "/predict"])
def test_nobody_frames_the_page_or_adds_to_it(with_page: FastAPI, path: str) -> None:
    headers = get(with_page, path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


def test_openapi_names_all_paths_and_no_other_host(service: FastAPI) -> None:
    answer = get(service, "/openapi.json")
    assert not re.search(r"https?://|//[a-z]", answer.text)
    found = answer.json()
    assert set(found["paths"]) == {"/predict", "/zones", "/health", "/ready", "/metrics"}
    asked = found["paths"]["/predict"]["post"]
    assert set(asked["responses"]) == {"200", "400", "408", "413", "415", "422", "503"}
    trips = asked["requestBody"]["content"]["application/json"]
    assert trips["schema"]["anyOf"][1]["maxItems"] == 500


def test_openapis_examples_are_answered(service: FastAPI) -> None:
    found = get(service, "/openapi.json").json()["paths"]["/predict"]["post"]
    for example in found["requestBody"]["content"]["application/json"]["examples"].values():
        assert post(service, example["value"]).status_code == 200
