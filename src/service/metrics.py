"""What the service counts, in Prometheus' words, in a registry of its own."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from service.models import Models

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_TRIPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
OTHER = "other"  # paths that are not the service's: anybody may invent more


class Metrics:
    """The service's counters.

    Parameters
    ----------
    models : Models
        The models that are followed.
    paths : iterable of str
        The paths that are told apart.
    """

    def __init__(self, models: "Models", paths: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "trip_duration_requests",
            "Requests that were answered.",
            ["path", "status"],
            registry=self.registry,
        )
        seconds = Histogram(
            "trip_duration_request_seconds",
            "From a request's head to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._seconds = {path: seconds.labels(path) for path in (*paths, OTHER)}
        self.trips = Counter(
            "trip_duration_trips", "Trips that were predicted.", registry=self.registry
        )
        self.batches = Histogram(
            "trip_duration_batch_trips",
            "Trips that were predicted in one call.",
            buckets=_TRIPS,
            registry=self.registry,
        )
        self._counts: dict[tuple[str, int], Counter] = {}
        self.registry.register(_OfModels(models))
        ProcessCollector(registry=self.registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        path = path if path in self._seconds else OTHER
        counter = self._counts.get((path, status))
        if counter is None:
            counter = self._counts[path, status] = self._requests.labels(path, str(status))
        counter.inc()
        self._seconds[path].observe(seconds)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)


class _OfModels:
    """What is known of the models when somebody asks."""

    def __init__(self, models: "Models") -> None:
        self._models = models

    def collect(self) -> "Iterable[Metric]":
        """For the registry."""
        models, now = self._models, self._models.current
        ready = GaugeMetricFamily("trip_duration_ready", "1 while a model answers.")
        ready.add_metric([], float(now is not None))
        yield ready
        info = GaugeMetricFamily(
            "trip_duration_model_info",
            "The model that answers, and how it predicts few trips.",
            labels=["version", "digest", "trees"],
        )
        since = GaugeMetricFamily(
            "trip_duration_model_since_seconds", "When it began to answer, in seconds since 1970."
        )
        if now:
            way = "side_by_side" if now.trees else "xgboost"
            info.add_metric([now.served.version, now.served.digest, way], 1.0)
            since.add_metric([], now.since)
        yield from (info, since)
        yield CounterMetricFamily(
            "trip_duration_promotions_followed",
            "Models that took the place of another.",
            value=models.followed,
        )
        yield CounterMetricFamily(
            "trip_duration_load_failures",
            "How often a champion could not be asked for or loaded; the one before went on.",
            value=models.failures,
        )
