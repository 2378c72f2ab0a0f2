"""Training on all workers of a cluster (`xgboost.dask`), for months beyond one machine.

Each worker holds the bins of its share of the trips, and in each round the workers add up their
histograms. The trees are not those of `training.train_model`: the bins' edges are found share by
share, rows are drawn share by share, and sums are taken in another order. The same number of
workers gives a model that is as good, and another number of workers another such model.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from trip_duration.cluster import Cluster, Home
from trip_duration.errors import SettingsError, TripDurationError
from trip_duration.features import FeatureBuilder
from trip_duration.splits import FEATURES, Batch, Roles, Rows, divide_by, thinning, weigher
from trip_duration.training import Fit, boost, booster_params, level_of
from trip_duration.trips import month_paths

if TYPE_CHECKING:
    import xgboost as xgb

    from trip_duration.params import Params

__all__ = ["share", "train_model"]

ATTEMPTS = 3  # as many times a fit begins again on the workers that are left
SPLITS = ("train", "validation")
Counts = dict[str, tuple[np.ndarray, np.ndarray]]


def train_model(
    cluster: Cluster, params: "Params", builder: FeatureBuilder, found: dict[str, Any]
) -> "tuple[xgb.Booster, Fit]":
    """Find the number of rounds, then fit on all that may be learned from, on all workers.

    Parameters
    ----------
    cluster : Cluster
        Its workers see the features' files, or have them from the storage.
    params : Params
        ``data``, ``train`` and ``intervals``.
    builder : FeatureBuilder
        As featurize fitted it.
    found : dict
        Parameters of XGBoost's tree booster; ``train.params`` win over them.

    Returns
    -------
    booster : xgboost.Booster
    fit : Fit
        Both as `training.train_model` gives them.

    Raises
    ------
    SettingsError
        If the features are one-hot: sparse rows are not distributed.
    TripDurationError
        If XGBoost refuses the parameters, or workers ended in each of `ATTEMPTS` attempts.
    """
    if set(builder.feature_types) == {"q"} and len(builder.columns) != len(builder.features):
        raise SettingsError(
            f"engine.distributed_training is true and features.preset is {builder.preset}, whose "
            "columns are one-hot and sparse: expected metered or booking; choose one of these, or "
            "set engine.distributed_training=false."
        )
    for attempt in range(ATTEMPTS):
        try:
            with cluster.client.as_current():  # XGBoost asks Dask for it
                return _train(cluster, params, builder, {**found, **params.train.params})
        except _EndedError as error:
            if attempt == ATTEMPTS - 1 or not cluster.client.nthreads():
                raise TripDurationError(
                    f"workers of the Dask scheduler {cluster.address} ended in each of "
                    f"{attempt + 1} attempts to train: see their logs; too little memory is the "
                    "usual reason, so add workers, or set engine.distributed_training=false."
                ) from error
    raise AssertionError("not reached")


def _train(
    cluster: Cluster, params: "Params", builder: FeatureBuilder, found: dict[str, Any]
) -> "tuple[xgb.Booster, Fit]":
    import pyarrow.parquet as pq
    import xgboost as xgb

    chosen = params.train
    months = {split: month_paths(params.data, split, f"{FEATURES}/{split}") for split in SPLITS}
    trips = sum(pq.read_metadata(path).num_rows for path in months["train"])
    every = {"train": thinning(trips, chosen.sample_rows), "validation": 1}
    read = {name: Rows.read(paths, builder, every=every[name]) for name, paths in months.items()}
    roles = divide_by(params, read["train"], read["validation"])
    counts = {split: (rows.days, rows.trips) for split, rows in read.items()}
    shares = _Shares(cluster, params, builder, counts, every)

    learned = shares.matrix("fit")
    held_out = shares.matrix("stop", ref=learned)
    booster, history = shares.boost(
        learned,
        found,
        num_boost_round=chosen.num_boost_round,
        evals=[(learned, "train"), (held_out, "held_out")],
        callbacks=[xgb.callback.EarlyStopping(rounds=chosen.early_stopping_rounds)],
    )
    rounds = booster.best_iteration + 1
    fit = Fit(
        booster=booster[:rounds],
        rounds=rounds,
        rmse=float(booster.best_score),
        curve={name: [float(rmse) for rmse in said["rmse"]] for name, said in history.items()},
    )
    level = level_of(fit.booster, roles.stop, chosen.level_days, builder.feature_types)
    last = fit.booster
    if roles.final is not roles.fit or chosen.num_parallel_tree > 1:
        del learned, held_out
        several = {"num_parallel_tree": chosen.num_parallel_tree, **found}
        last, _ = shares.boost(shares.matrix("final"), several, num_boost_round=rounds)
    if level is not None:
        last.set_attr(level=repr(level))
    return last, fit


class _EndedError(Exception):
    """A worker ended during a fit."""


class _Shares:
    """The trips of each role, spread over the workers: part after part, in the order of time."""

    def __init__(
        self,
        cluster: Cluster,
        params: "Params",
        builder: FeatureBuilder,
        counts: Counts,
        every: dict[str, int],
    ) -> None:
        self._cluster = cluster
        self._client = cluster.client
        self._params = params
        self._builder = builder
        self._counts = counts
        self._every = every
        self._at: dict[str, str] = {}  # the worker that has a part, by its future's key
        known = self._client.scheduler_info(n_workers=-1)["workers"]
        self._workers = sorted(known, key=lambda address: (str(known[address]["name"]), address))

    def matrix(self, role: str, ref: Any = None) -> Any:
        """A ``DaskQuantileDMatrix`` of a role's trips, with weights where the model has them."""
        import dask
        import dask.array as da
        from xgboost.dask import DaskQuantileDMatrix

        futures = self._parts(role)
        rows = self._client.gather([self._beside(future, _len) for future in futures])
        arrays: dict[str, list[Any]] = {"X": [], "minutes": [], "weight": []}
        weighed = ref is None and self._params.train.half_life is not None
        for future, count in zip(futures, rows, strict=True):
            if not count:
                continue
            for place, name in enumerate(arrays):
                if name == "weight" and not weighed:
                    continue
                shape = (count, len(self._builder.columns)) if name == "X" else (count,)
                kind = np.float32 if name == "X" else np.float64
                piece = self._beside(future, _item, place)
                arrays[name].append(da.from_delayed(dask.delayed(piece), shape, dtype=kind))
        joined = {name: da.concatenate(parts) for name, parts in arrays.items() if parts}
        found = DaskQuantileDMatrix(
            self._client,
            joined["X"],
            joined["minutes"],
            weight=joined.get("weight"),
            feature_names=list(self._builder.columns),
            feature_types=list(self._builder.feature_types),
            max_bin=self._params.train.max_bin,
            ref=ref,
            enable_categorical=True,
        )
        for held in found.worker_map.values():  # in the order of time, not of arrival
            held.sort(key=lambda future: found.partition_order[future.key])
        return found

    def boost(self, learned: Any, params: dict[str, Any], **how: Any) -> tuple[Any, Any]:
        """Boost on all workers; gives the booster and what it said of the matrices it watched."""
        import xgboost.dask
        from xgboost.collective import Config

        def train(complete: dict[str, Any]) -> Any:
            try:
                return xgboost.dask.train(
                    self._client,
                    {name: value for name, value in complete.items() if name != "nthread"},
                    learned,
                    verbose_eval=False,
                    coll_cfg=Config(retry=3, timeout=60),
                    **how,
                )
            except Exception as error:
                if self._ended():
                    raise _EndedError from error
                raise

        chosen = self._params.train
        complete = booster_params(
            params,
            seed=self._params.seed,
            nthread=1,
            max_bin=chosen.max_bin,
            device=chosen.device,
        )
        done = boost(train, params, complete)
        return done["booster"], done["history"]

    def _ended(self) -> bool:
        """Whether one of the workers is gone; the scheduler takes a moment to see it."""
        for _ in range(20):
            if not set(self._workers) <= set(self._client.nthreads()):
                return True
            time.sleep(0.1)
        return False

    def _parts(self, role: str) -> list[Any]:
        """Futures of what `share` gives, each pinned to a worker in turn."""
        import pyarrow.parquet as pq

        groups = [
            (split, path, group)
            for split in SPLITS
            for path in month_paths(self._params.data, split, f"{FEATURES}/{split}")
            for group in range(pq.read_metadata(path).num_row_groups)
        ]
        # Only groups with trips of this role, so that every worker gets about as many.
        groups = [each for each in groups if self._has(role, *each)]
        many = math.ceil(len(self._workers) / max(len(groups), 1))
        pieces = [(*each, piece) for each in groups for piece in range(many)]
        digests = self._cluster.put({path for _, path, _ in groups})
        futures = []
        for number, (split, path, group, piece) in enumerate(pieces):
            worker = self._workers[number % len(self._workers)]
            needed = {str(path): digests[str(path)]} if digests else {}
            futures.append(
                self._client.submit(
                    _share_at,
                    self._cluster.home,
                    needed,
                    self._params,
                    self._builder,
                    self._counts,
                    role,
                    split,
                    str(path),
                    group,
                    (piece, many),
                    self._every[split],
                    workers=[worker],
                    allow_other_workers=True,  # were it to end, its part would wait for ever
                    pure=False,
                )
            )
            self._at[futures[-1].key] = worker
        return futures

    def _beside(self, future: Any, function: Callable[..., Any], *more: Any) -> Any:
        """A function of a future, on the worker that has it."""
        worker = self._at[future.key]
        return self._client.submit(
            function, future, *more, workers=[worker], allow_other_workers=True, pure=False
        )

    def _has(self, role: str, split: str, path: Any, group: int) -> bool:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            days = file.read_row_group(group, columns=["day"])
        mine = np.unique(days["day"].to_numpy().astype("datetime64[D]").astype(np.int64))
        batch = Batch(np.zeros((len(mine), 1)), np.zeros(len(mine)), mine)
        rows = _roles(self._params, self._counts, split, batch)
        return any(True for _ in getattr(rows, role))


def _roles(params: "Params", counts: Counts, split: str, batch: Batch) -> Roles:
    """Roles in which the batch is all that can be read, and the days of all trips are known."""

    def reading(name: str) -> Callable[[], Iterator[Batch]]:
        return lambda: iter([batch] if name == split else [])

    return divide_by(params, *(Rows(reading(name), *counts[name]) for name in SPLITS))


def share(
    params: "Params",
    builder: FeatureBuilder,
    counts: Counts,
    role: str,
    split: str,
    path: str,
    group: int,
    piece: tuple[int, int] = (0, 1),
    every: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A part of a role's trips: those of one row group of a month's features.

    Parameters
    ----------
    params, builder
        The settings and the fitted features.
    counts : dict
        Days and trips of each, as `Rows` has them, by split: of all months.
    role : {"fit", "stop", "final"}
        Whose trips.
    split, path, group
        The file, whose it is, and the number of the row group.
    piece : (int, int)
        ``(1, 3)`` takes every third trip, from the second on.
    every : int
        As in `Rows.read`: what a month is thinned to before it is divided.

    Returns
    -------
    X : array of float32, shape (trips, columns)
    minutes : array of float64, shape (trips,)
    weight : array of float64, shape (trips,)
        What each trip counts in the fit.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read_row_group(group, columns=[*builder.features, "day", "duration"])
        before = sum(file.metadata.row_group(each).num_rows for each in range(group))
    table = table.take(np.arange(-before % every, len(table), every))
    rows = getattr(_roles(params, counts, split, Rows.read([table], builder).whole), role)
    weigh = weigher(rows, params.train.half_life)
    found = list(rows)
    first, step = piece
    if not found:
        return np.zeros((0, len(builder.columns)), np.float32), np.zeros(0), np.zeros(0)
    [mine] = found
    mine = mine.where(np.arange(first, len(mine.minutes), step))
    weight = np.ones(len(mine.minutes)) if weigh is None else weigh(mine.day)
    return np.ascontiguousarray(mine.X, np.float32), mine.minutes, weight


def _share_at(home: Home, needed: dict[str, str], *rest: Any) -> tuple[np.ndarray, ...]:
    home.enter()
    home.place(needed)
    return share(*rest)


def _len(part: tuple[np.ndarray, ...]) -> int:
    """How many trips a `share` has."""
    return len(part[1])


def _item(part: tuple[np.ndarray, ...], place: int) -> np.ndarray:
    return part[place]
