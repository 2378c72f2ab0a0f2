"""The service's paths: what is asked at each, and what is answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse

from service.batches import Batches
from service.guard import Guard
from service.metrics import CONTENT_TYPE, Metrics
from service.schemas import (
    EXAMPLE,
    InvalidBodyError,
    Prediction,
    Problems,
    Readiness,
    Refusal,
    Trip,
    iso,
    read,
)
from trip_duration.errors import TripDurationError

if TYPE_CHECKING:
    from service.models import Models
    from service.predictor import Predictor
    from trip_duration.params import Serve

__all__ = ["app"]

BODY_SECONDS = 10.0  # that a body may take to arrive
PATHS = ("/predict", "/zones", "/health", "/ready", "/metrics", "/openapi.json", "/")

_DESCRIPTION = (
    "How long a taxi trip in New York will take, with an interval that holds nine trips of ten. "
    "The model is the registry's champion, followed while requests go on."
)
_JSON = "application/json"


class _RefusedError(Exception):
    """A request that is answered with a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def app(
    settings: "Serve",
    models: "Models",
    zones: "Callable[[Predictor], Mapping[str, Any]]",
    page: Path | None = None,
) -> FastAPI:
    """Make the service.

    Parameters
    ----------
    settings : trip_duration.params.Serve
        Its limits.
    models : Models
        Which model answers; started and stopped by the caller.
    zones : callable
        Gives what ``/zones`` answers while a model does, which is asked for once.
    page : Path, optional
        A folder of files for people: each is answered at its name, and index.html at ``/``.

    Returns
    -------
    fastapi.FastAPI
    """
    metrics = Metrics(models, PATHS)
    batches = Batches(metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batches.close()

    # FastAPI's own pages load their scripts from another host.
    service = FastAPI(
        title="Trip duration",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    service.add_middleware(Guard, metrics=metrics)
    service.add_exception_handler(_RefusedError, _refused)
    service.add_exception_handler(InvalidBodyError, _invalid)
    service.add_exception_handler(TripDurationError, _unable)

    def present() -> "Predictor":
        if models.current is None:
            raise _RefusedError(503, models.trouble or "The model is being loaded: ask again.")
        return models.current

    not_ready: dict[int | str, dict[str, Any]] = {
        503: {"model": Refusal, "description": "No model answers yet, or it can't: why."}
    }

    @service.post(
        "/predict",
        summary="How long trips will take",
        openapi_extra={"requestBody": _request_body(settings)},
        responses=_predict_responses(settings) | not_ready,
    )
    async def predict(request: Request) -> Response:
        """Take a trip, or a list of trips, and answer with a prediction, or a list of them."""
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != _JSON:
            raise _RefusedError(
                415, f"The content type is {kind[:100]!r}: expected 'application/json'."
            )
        trips = read(await _body(request, settings.max_bytes), settings.max_trips)
        predictor, said = await batches.predict(present(), trips.arrays)
        return Response(_predictions(predictor, said, trips.listed), media_type=_JSON)

    lock = asyncio.Lock()
    drawn: dict[str, bytes] = {}  # by the model's digest; no more than one

    @service.get(
        "/zones", summary="TLC's zones, as a map", responses=_zones_responses() | not_ready
    )
    async def zones_of_the_city() -> Response:
        """Give the zones with their names, and where they are drawn."""
        async with lock:
            now = present()
            if now.served.digest not in drawn:
                found = await asyncio.to_thread(zones, now)
                drawn.clear()
                drawn[now.served.digest] = orjson.dumps(found)
            return Response(drawn[now.served.digest], media_type=_JSON)

    @service.get("/health", summary="Whether the process is up")
    async def health() -> dict[str, str]:
        """Answer as long as the process does."""
        return {"status": "up"}

    @service.get(
        "/ready",
        summary="Which model answers",
        response_model=Readiness,
        responses=not_ready,
    )
    async def ready() -> Response:
        """Say which model answers since when, or 503 as long as there is none."""
        now = present()
        found = Readiness(
            model_version=now.served.version,
            since=iso(now.since),
            digest=now.served.digest,
            taxi=now.served.taxi,
            preset=now.served.preset,
            train_months=list(now.served.train_months),
            level=now.model.calibration.level,
            uses_distance=now.uses_distance,
            max_trips=settings.max_trips,
            trouble=models.trouble,
        )
        return Response(found.model_dump_json(), media_type=_JSON)

    @service.get(
        "/metrics",
        summary="The service's counters, for Prometheus",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def metrics_of_the_service() -> Response:
        """Give all counters."""
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    for path in sorted(page.iterdir()) if page else []:
        _add_file(service, path)

    def openapi() -> dict[str, Any]:
        if not service.openapi_schema:
            made = get_openapi(
                title=service.title,
                version=service.version,
                description=service.description,
                routes=service.routes,
            )
            for model in (Trip, Prediction):
                made["components"]["schemas"][model.__name__] = model.model_json_schema()
            service.openapi_schema = made
        return service.openapi_schema

    service.openapi = openapi  # type: ignore[method-assign]
    return service


def _add_file(service: FastAPI, path: Path) -> None:
    async def answer(_: Request) -> Response:
        return FileResponse(path, headers={"cache-control": "no-cache"})

    name = "" if path.name == "index.html" else path.name
    service.add_route(f"/{name}", answer, include_in_schema=False)


async def _body(request: Request, most: int) -> bytes:
    """The request's body, unless it is too long or too slow."""
    too_long = _RefusedError(413, f"The body is too long: expected at most {most:,} bytes.")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise too_long
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_long
                parts.append(part)
    except TimeoutError:
        raise _RefusedError(
            408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds."
        ) from None
    except ClientDisconnect:
        raise _RefusedError(400, "The connection ended before the body did.") from None
    return b"".join(parts)


def _predictions(predictor: "Predictor", said: Mapping[str, Any], listed: bool) -> bytes:
    """Numbers with as many digits as tell them from all others: they are read as the same bits."""
    version, names = predictor.served.version, ("minutes", "lower", "upper")
    made = [
        {"minutes": minutes, "lower": lower, "upper": upper, "model_version": version}
        for minutes, lower, upper in zip(*(said[name].tolist() for name in names), strict=True)
    ]
    return orjson.dumps(made if listed else made[0])


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, _RefusedError)
    found = Refusal(detail=str(error))
    return Response(found.model_dump_json(), status_code=error.status, media_type=_JSON)


async def _unable(_: Request, error: Exception) -> Response:
    found = Refusal(detail=str(error))
    return Response(found.model_dump_json(), status_code=503, media_type=_JSON)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidBodyError)
    return Response(error.problems.model_dump_json(), status_code=422, media_type=_JSON)


# -- OpenAPI -------------------------------------------------------------------------------------


def _one_or_list(name: str, most: int) -> dict[str, Any]:
    one = {"$ref": f"#/components/schemas/{name}"}
    return {"anyOf": [one, {"type": "array", "items": one, "maxItems": most}]}


def _request_body(settings: "Serve") -> dict[str, Any]:
    other = EXAMPLE | {"pickup": "2024-05-03T18:05:00-04:00", "pickup_zone": 166}
    unknown = {name: value for name, value in other.items() if name != "trip_distance"}
    examples = {
        "trip": {"summary": "One trip", "value": EXAMPLE},
        "trips": {"summary": "A list, one of unknown distance", "value": [EXAMPLE, unknown]},
    }
    schema = _one_or_list("Trip", settings.max_trips)
    return {"required": True, "content": {_JSON: {"schema": schema, "examples": examples}}}


def _predict_responses(settings: "Serve") -> dict[int | str, dict[str, Any]]:
    one = {"minutes": 12.6, "lower": 8.1, "upper": 19.4, "model_version": "7"}
    examples = {
        "trip": {"summary": "Of one trip", "value": one},
        "trips": {"summary": "Of a list", "value": [one, one | {"minutes": 14.2}]},
    }
    content = {
        _JSON: {"schema": _one_or_list("Prediction", settings.max_trips), "examples": examples}
    }
    refusals = {
        400: "The connection ended before the body did.",
        408: f"The body took longer than {BODY_SECONDS:.0f} seconds.",
        413: f"The body has more than {settings.max_bytes:,} bytes.",
        415: "The body is not said to be JSON.",
    }
    return {
        200: {"description": "In the order of the trips.", "content": content},
        **{status: {"model": Refusal, "description": said} for status, said in refusals.items()},
        422: {"model": Problems, "description": "The body holds no trips: which field, and why."},
    }


def _zones_responses() -> dict[int | str, dict[str, Any]]:
    zone = {
        "type": "object",
        "required": ["zone", "name", "borough", "path", "x", "y"],
        "properties": {
            "zone": {"type": "integer", "minimum": 1, "maximum": 265},
            "name": {"type": ["string", "null"]},
            "borough": {"type": ["string", "null"]},
            "path": {"type": ["string", "null"], "description": "An SVG path."},
            "x": {"type": ["number", "null"], "description": "Of a label."},
            "y": {"type": ["number", "null"]},
        },
    }
    schema = {
        "type": "object",
        "required": ["kind", "width", "height", "zones"],
        "properties": {
            "kind": {"enum": ["map", "schematic"]},
            "width": {"type": "number"},
            "height": {"type": "number"},
            "zones": {"type": "array", "items": zone},
        },
    }
    return {200: {"description": "All zones.", "content": {_JSON: {"schema": schema}}}}
