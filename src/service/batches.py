"""Requests that are there at the same time are predicted together.

A call of the model costs about as much for eight trips as for two, and rows do not depend on each
other. So trips wait until the event loop has read what else has come in, which takes no time where
nothing has, and then go to the model in one call. Lists go to a thread, in parts: XGBoost lets
other threads run, so requests for one trip are answered meanwhile.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from service.metrics import Metrics
from service.predictor import FEW, Predictor

__all__ = ["Batches", "Said"]

PART = 512  # trips of a list that go to XGBoost at once: 10 ms

Said = tuple[Predictor, dict[str, np.ndarray]]
"""Who predicted, and what."""


class Batches:
    """Predicts for requests; its methods belong to one event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: list[tuple[Mapping[str, np.ndarray], asyncio.Future[Said]]] = []
        self._predictor: Predictor
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lists")

    async def predict(self, predictor: Predictor, columns: Mapping[str, np.ndarray]) -> Said:
        """Predict trips that came as arrays.

        Parameters
        ----------
        predictor : Predictor
            The model that answers now.
        columns : mapping of str to array of shape (trips,)
            As `Predictor.predict` takes them.
        """
        loop = asyncio.get_running_loop()
        rows = len(columns["pickup"])
        self._metrics.trips.inc(rows)
        if predictor.trees is None or rows > FEW:
            return await loop.run_in_executor(self._thread, self._list, predictor, columns)
        if not self._waiting:
            loop.call_soon(self._flush)
        self._predictor = predictor
        answer: asyncio.Future[Said] = loop.create_future()
        self._waiting.append((columns, answer))
        return await answer

    def close(self) -> None:
        """End the thread, once it has predicted what it was given."""
        self._thread.shutdown()

    def _flush(self) -> None:
        """Predict for all who wait, a few trips at a time."""
        waiting, self._waiting = self._waiting, []
        group: list[tuple[Mapping[str, np.ndarray], asyncio.Future[Said]]] = []
        rows = 0
        for one in waiting:
            size = len(one[0]["pickup"])
            if group and rows + size > FEW:
                self._answer(group)
                group, rows = [], 0
            group.append(one)
            rows += size
        self._answer(group)

    def _answer(self, group: list[tuple[Mapping[str, np.ndarray], asyncio.Future[Said]]]) -> None:
        given = [columns for columns, _ in group]
        joined = given[0]
        if len(given) > 1:
            joined = {name: np.concatenate([part[name] for part in given]) for name in given[0]}
        self._metrics.batches.observe(len(joined["pickup"]))
        try:
            said = self._predictor.predict(joined)
        except Exception as error:
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            return
        start = 0
        for columns, answer in group:
            end = start + len(columns["pickup"])
            if not answer.done():  # it is, where the client has gone
                part = {name: values[start:end] for name, values in said.items()}
                answer.set_result((self._predictor, part))
            start = end

    def _list(self, predictor: Predictor, columns: Mapping[str, np.ndarray]) -> Said:
        parts = []
        for start in range(0, max(len(columns["pickup"]), 1), PART):
            part = {name: values[start : start + PART] for name, values in columns.items()}
            self._metrics.batches.observe(len(part["pickup"]))
            parts.append(predictor.predict(part))
        return predictor, {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
