"""``params.yaml``, typed and checked: a wrong setting is one sentence, before anything runs."""

import difflib
import math
import re
import reprlib
import string
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from trip_duration.errors import SettingsError, holds_credentials
from trip_duration.months import bounds, parse_month

__all__ = [
    "DISTRIBUTIONS",
    "Clean",
    "Data",
    "Engine",
    "Features",
    "Intervals",
    "Monitor",
    "Params",
    "Promotion",
    "Retrain",
    "Search",
    "Serve",
    "Train",
    "check",
    "load",
    "override",
    "parse_overrides",
]

# hyperopt's distributions by name, each with the number of its arguments (None: any from one on).
DISTRIBUTIONS: dict[str, int | None] = {
    "uniform": 2,
    "quniform": 3,
    "loguniform": 2,
    "qloguniform": 3,
    "normal": 2,
    "qnormal": 3,
    "lognormal": 2,
    "qlognormal": 3,
    "uniformint": 2,
    "choice": None,
}


_TINY = 1e-30  # nothing but 0 lies nearer to 0 than this: XGBoost's own numbers end there


class _Range(NamedTuple):
    """Which numbers a parameter of XGBoost takes."""

    low: float
    high: float
    whole: bool = False
    above: bool = False  # low itself is not taken

    def holds(self, value: Any) -> bool:
        if not _is_number(value) or (self.whole and not isinstance(value, int)):
            return False
        near = 0 < abs(value) < _TINY
        return self.low <= value <= self.high and not (near or (self.above and value == self.low))

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} {'above' if self.above else 'from'} {self.low:g} to {self.high:,.0f}"


_SHARE = _Range(0, 1, above=True)
_FROM_0 = _Range(0, 1e9)
_WHOLE = _Range(0, 1e9, whole=True)
# Parameters of XGBoost's tree booster that may be searched or set, with the ranges that its
# documentation gives ("XGBoost Parameters", xgboost.readthedocs.io, 3.2). What is open there ends
# at 1e9 here: nothing changes beyond, and XGBoost's own numbers end. Not among them is what this
# pipeline fixes itself: seed, nthread, max_bin, device, tree_method, the objective's metric.
_RANGES: dict[str, _Range] = {
    "learning_rate": _Range(0, 1),
    "gamma": _FROM_0,
    "max_depth": _WHOLE,
    "min_child_weight": _FROM_0,
    "max_delta_step": _FROM_0,
    "subsample": _SHARE,
    "colsample_bytree": _SHARE,
    "colsample_bylevel": _SHARE,
    "colsample_bynode": _SHARE,
    "reg_lambda": _FROM_0,
    "reg_alpha": _FROM_0,
    "max_leaves": _WHOLE,
    "num_parallel_tree": _Range(1, 100, whole=True),
    "max_cat_to_onehot": _Range(1, 1e9, whole=True),
    "max_cat_threshold": _Range(1, 1e9, whole=True),
    "base_score": _Range(0, 1440, above=True),  # minutes
    "huber_slope": _Range(0, 1e9, above=True),
    "tweedie_variance_power": _Range(1, 2),
}
_OTHER_NAMES = {
    "eta": "learning_rate",
    "min_split_loss": "gamma",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
}
_RANGES |= {name: _RANGES[usual] for name, usual in _OTHER_NAMES.items()}
OBJECTIVES = frozenset(
    [
        "reg:squarederror",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "reg:gamma",
        "reg:tweedie",
        "count:poisson",
    ]
)
_WORDS = {
    "objective": OBJECTIVES,
    "grow_policy": frozenset({"depthwise", "lossguide"}),
    "sampling_method": frozenset({"uniform"}),
}
BOOSTER_PARAMETERS = frozenset([*_RANGES, *_WORDS, "monotone_constraints"])
# What the presets give XGBoost in columns that can be named one by one; the others are one-hot.
_COLUMNS = {"metered": 31, "booking": 23}

_FIELDS = ("taxi", "year", "month")  # of data.source
# Months before these have no file of TLC's that says how long a trip took.
_FIRST_OF_TLC = {"fhv": "2017-01", "fhvhv": "2019-02"}

_FEW = 10  # trips that must be expected where one must be

_MOST_BYTES = 1 << 18  # of params.yaml: forty times the file as it is
_MOST_VALUES = 100_000  # in it, those of aliases counted where they are named
_DEEPEST = 20
_LONGEST = 500  # of a sentence
_LONGEST_PATH, _LONGEST_NAME = 1_024, 200  # characters; bytes, which temporary names add to


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _month(text: str) -> str:
    try:
        parse_month(text)
    except SettingsError as error:
        raise ValueError(str(error)) from error
    return text


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("expected a finite number.")
    return number


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _as_float(value: Any) -> Any:
    """YAML reads ``60`` as an integer where a number is meant; nothing else is turned."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if _is_number(value) else math.inf
    return value


def _path(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{_shown(text)} has characters that no path or URL can have.")
    longest = max(len(part.encode()) for part in text.split("/"))
    if len(text) > _LONGEST_PATH or longest > _LONGEST_NAME:
        raise ValueError(
            f"{_shown(text)} is too long: expected at most {_LONGEST_PATH} characters, and "
            f"{_LONGEST_NAME} bytes between slashes."
        )
    try:
        Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{_shown(text)} begins with a user that is not known here.") from None
    return text


Number = Annotated[float, BeforeValidator(_as_float), AfterValidator(_finite)]
Months = list[Annotated[str, AfterValidator(_month)]]
Place = Annotated[str, Field(min_length=1), AfterValidator(_path)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Rounds = Annotated[int, Field(ge=1, le=1_000_000)]
Days = Annotated[int, Field(ge=1, le=3_660)]


class Simulated(_Settings):
    """The simulated city."""

    trips_per_month: Annotated[int, Field(ge=100, le=100_000_000)]
    drift: Annotated[Number, Field(gt=-0.5, lt=0.5)]


class Data(_Settings):
    """Which months, and where they come from."""

    source: Place
    taxi: Literal["yellow", "green", "fhv", "fhvhv"]
    train: Annotated[Months, Field(min_length=1)]
    validation: Annotated[Months, Field(min_length=1)]
    test: Months
    zones: Place | None
    simulated: Simulated

    @property
    def months(self) -> list[str]:
        """All months, in the order of time."""
        return sorted([*self.train, *self.validation, *self.test])

    @property
    def judged(self) -> list[str]:
        """The splits that a model is judged on: ``test`` is last, unless it has no months."""
        return ["validation", "test"] if self.test else ["validation"]

    @property
    def span(self) -> str:
        """The taxi and the months, as people write them: ``green 2021-01 … 2021-02``."""
        return f"{self.taxi} {self.months[0]} … {self.months[-1]}"

    @model_validator(mode="after")  # the first of them: the others may repeat what they refuse
    def _public(self) -> "Data":
        _check_no_credentials("data.source", self.source)
        _check_no_credentials("data.zones", self.zones or "")
        return self

    @model_validator(mode="after")
    def _apart(self) -> "Data":
        seen: dict[str, str] = {}
        for name in ("train", "validation", "test"):
            for month in getattr(self, name):
                if month in seen:
                    where = f"data.{seen[month]} and data.{name}"
                    where = f"data.{name} twice" if seen[month] == name else where
                    raise ValueError(
                        f"{month} is in {where}: a month belongs to one list only, "
                        "so that the model is judged on trips it has not seen."
                    )
                seen[month] = name
        return self

    @model_validator(mode="after")
    def _in_order(self) -> "Data":
        for before, after in (("train", "validation"), ("validation", "test")):
            earlier, later = getattr(self, before), getattr(self, after)
            if earlier and later and max(earlier) > min(later):
                raise ValueError(
                    f"data.{after} has {min(later)}, which comes before {max(earlier)} of "
                    f"data.{before}: the months of data.{after} must follow those of data.{before}."
                )
        return self

    @model_validator(mode="after")
    def _published(self) -> "Data":
        first = _FIRST_OF_TLC.get(self.taxi, "")
        if self.source == "tlc" and self.months[0] < first:
            raise ValueError(
                f"data.taxi is {self.taxi} and {self.months[0]} is among the months: TLC's records "
                f"of {self.taxi} say how long a trip took from {first} on; name later months."
            )
        return self

    @model_validator(mode="after")
    def _template(self) -> "Data":
        if self.source in ("simulated", "tlc"):
            return self
        try:
            parts = [part[1:] for part in string.Formatter().parse(self.source)]
        except ValueError as error:
            raise ValueError(
                f"data.source is {_shown(self.source)}, which cannot be read ({error}): only "
                "{taxi}, {year} and {month} are filled in."
            ) from None
        fields = [name for name, _, _ in parts if name is not None]
        for name, layout, conversion in parts:
            if name is not None and (name not in _FIELDS or layout or conversion):
                raise ValueError(
                    f"data.source names the unknown field {{{name}}}: only {{taxi}}, {{year}} and "
                    "{month} are filled in, as they are."
                )
        if not {"year", "month"} <= set(fields):
            raise ValueError(
                f"data.source is {_shown(self.source)}: expected simulated, tlc, or a path or URL "
                "with {year} and {month} (and {taxi}), like trips/{taxi}_{year}-{month}.parquet."
            )
        return self


class Clean(_Settings):
    """Which trips are set aside."""

    min_minutes: Annotated[Number, Field(ge=0)]
    max_minutes: Annotated[Number, Field(gt=0, le=1440)]
    max_miles: Annotated[Number, Field(gt=0)] | None
    other_months: bool
    unknown_zones: bool

    @model_validator(mode="after")
    def _in_order(self) -> "Clean":
        if self.min_minutes >= self.max_minutes:
            raise ValueError(
                f"clean.min_minutes is {self.min_minutes:g} and clean.max_minutes "
                f"{self.max_minutes:g}: expected the first to be the smaller."
            )
        return self


class Features(_Settings):
    """What the model sees of a trip."""

    preset: Literal["course", "metered", "booking", "custom"]
    categorical: list[str]
    numerical: list[str]
    folds: Annotated[int, Field(ge=2, le=50)]
    geometry: Literal["map", "learned"]
    trend: bool

    @model_validator(mode="after")
    def _columns(self) -> "Features":
        named = [*self.categorical, *self.numerical]
        if self.preset == "custom" and not named:
            raise ValueError(
                "features.categorical and features.numerical are both empty: with features.preset "
                "custom, name at least one column, like features.categorical=[PU_DO]."
            )
        if self.preset != "custom" and named:
            raise ValueError(
                f"features.preset is {self.preset}, which has columns of its own: set "
                f"features.preset=custom to use {', '.join(named)}."
            )
        return self


class Search(_Settings):
    """The search for the booster's parameters."""

    max_evals: Annotated[int, Field(ge=0, le=100_000)]
    algorithm: Literal["tpe", "random"]
    startup_trials: Annotated[int, Field(ge=1, le=100_000)]
    parallel_trials: Annotated[int, Field(ge=1, le=256)]
    num_boost_round: Rounds
    early_stopping_rounds: Rounds
    reduction_factor: Annotated[int, Field(ge=2, le=100)] | None
    first_rung: Annotated[Number, Field(gt=0, le=1_000_000)]
    max_bin: Annotated[int, Field(ge=2, le=65_536)] | None
    sample_rows: Count | None
    timeout_minutes: Annotated[Number, Field(gt=0)] | None
    space: dict[str, dict[str, list[Any]]]
    points_to_evaluate: list[dict[str, Any]]

    @model_validator(mode="after")
    def _space(self) -> "Search":
        if self.max_evals and not self.space:
            raise ValueError(
                "search.space is empty: name at least one parameter with a distribution, like "
                "{max_depth: {uniformint: [4, 10]}}, or set search.max_evals=0 to search nothing."
            )
        _check_names("search.space", self.space)
        for name, distribution in self.space.items():
            _check_distribution(f"search.space.{name}", name, distribution)
        for number, point in enumerate(self.points_to_evaluate):
            for name, value in point.items():
                where = f"search.points_to_evaluate[{number}].{name}"
                if name not in self.space:
                    raise ValueError(
                        f"search.points_to_evaluate[{number}] has {name!r}, which is not searched: "
                        f"{_closest(name, frozenset(self.space))}"
                    )
                _check_value(where, name, value)
                _check_within(where, value, self.space[name])
        return self


class Train(_Settings):
    """The last fit."""

    device: Literal["cpu", "cuda"]
    nthread: Annotated[int, Field(ge=1, le=256)]
    max_bin: Annotated[int, Field(ge=2, le=65_536)]
    rows_in_memory: Count
    sample_rows: Count | None
    num_boost_round: Rounds
    early_stopping_rounds: Rounds
    stop_on: Literal["inside", "validation"]
    stop_days: Days
    num_parallel_tree: Annotated[int, Field(ge=1, le=100)]
    half_life: Annotated[Number, Field(gt=0, le=100)] | None
    level_days: Days | None
    refit: bool
    params: dict[str, Any]

    @model_validator(mode="after")
    def _params(self) -> "Train":
        _check_names("train.params", self.params)
        for name, value in self.params.items():
            _check_value(f"train.params.{name}", name, value)
        return self


class Intervals(_Settings):
    """The prediction intervals."""

    level: Annotated[Number, Field(ge=0.5, le=0.99)]
    calibration_every: Annotated[int, Field(ge=2, le=28)]


class Retrain(_Settings):
    """The monthly run."""

    train_months: Annotated[int, Field(ge=1, le=120)]
    validation_months: Annotated[int, Field(ge=1, le=24)]
    lag_months: Annotated[int, Field(ge=0, le=24)]
    wait_hours: Annotated[Number, Field(gt=0, le=24 * 31)]
    patience_days: Annotated[int, Field(ge=0, le=3_660)]
    kept_share: Annotated[Number, Field(ge=0, le=1)]
    fewest_trips: Annotated[int, Field(ge=1, le=10**9)]


class Promotion(_Settings):
    """What a model must show to become champion."""

    over_baselines: Annotated[Number, Field(ge=0, lt=1)]
    over_champion: Annotated[Number, Field(ge=0, lt=1)]
    slice_bound: Annotated[Number, Field(ge=0, le=10)]
    slice_trips: Count
    coverage_within: Annotated[Number, Field(gt=0, le=1)]


class Monitor(_Settings):
    """How far a month may drift."""

    sample_rows: Annotated[int, Field(ge=100, le=10_000_000)]
    column_drift: Annotated[Number, Field(gt=0, le=10)]
    much_drift: Annotated[Number, Field(gt=0, le=10)]
    much_share: Annotated[Number, Field(gt=0, le=1)]
    much_error: Annotated[Number, Field(gt=0, le=10)]


class Engine(_Settings):
    """Where the work is done."""

    runner: Literal["local", "dask"]
    dask_scheduler: str | None
    workers: Annotated[int, Field(ge=1, le=1024)]
    distributed_training: bool
    storage: str | None

    @model_validator(mode="after")
    def _addresses(self) -> "Engine":
        if self.dask_scheduler is not None:
            # No user and no password: what is refused is not repeated, it may hold one.
            host = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
            found = re.fullmatch(rf"(?:tcp|tls)://{host}:([0-9]{{1,5}})", self.dask_scheduler)
            if not found or not 0 < int(found[2]) < 65_536:
                raise ValueError(
                    "engine.dask_scheduler is no address of a scheduler: expected one like "
                    "tcp://10.0.0.5:8786 (or tls://…), or null for a cluster on this machine."
                )
        if self.storage is not None:
            kind, apart, rest = self.storage.partition("://")
            known = apart and re.fullmatch(r"[a-z][a-z0-9+.-]*", kind) and rest.isprintable()
            if not known or not rest.strip("/") or len(rest) > _LONGEST_PATH:
                raise ValueError(
                    "engine.storage is no URL: expected one like s3://bucket/folder or "
                    "file:///mnt/shared, or null where all workers see this folder."
                )
            _check_no_credentials("engine.storage", self.storage)
            if kind == "memory":
                raise ValueError(
                    "engine.storage is in memory://, which each process has for itself: expected "
                    "a URL that all workers reach, like s3://bucket/folder."
                )
        return self

    @model_validator(mode="after")
    def _distributed(self) -> "Engine":
        if self.distributed_training and self.runner != "dask":
            raise ValueError(
                f"engine.distributed_training is true and engine.runner is {self.runner}: set "
                "engine.runner=dask, or engine.distributed_training=false."
            )
        return self


class Serve(_Settings):
    """The HTTP service."""

    host: str
    port: Annotated[int, Field(ge=1, le=65_535)]
    max_trips: Annotated[int, Field(ge=1, le=100_000)]
    max_bytes: Annotated[int, Field(ge=1_000, le=100_000_000)]
    poll_seconds: Annotated[Number, Field(ge=0.1, le=86_400)]

    @model_validator(mode="after")
    def _address(self) -> "Serve":
        if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:.]{2,45}", self.host):
            raise ValueError(
                f"serve.host is {_shown(self.host)}: expected an address of this machine, like "
                "127.0.0.1, which only this machine reaches, or 0.0.0.0, which all do."
            )
        return self


class Params(_Settings):
    """All of ``params.yaml``."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data: Data
    clean: Clean
    features: Features
    search: Search
    train: Train
    intervals: Intervals
    retrain: Retrain
    promotion: Promotion
    monitor: Monitor
    engine: Engine
    serve: Serve

    @property
    def judged(self) -> list[str]:
        """The splits that nothing has learned from; the last is the one that counts."""
        return ["test"] if self.train.refit else self.data.judged

    @model_validator(mode="after")
    def _refit(self) -> "Params":
        if self.train.refit and not self.data.test:
            raise ValueError(
                "train.refit is true and data.test has no months: a model that has learned from "
                "the validation months can be judged on test months only; name one in data.test."
            )
        return self

    @model_validator(mode="after")
    def _one_name(self) -> "Params":
        for name in self.search.space:
            usual = _OTHER_NAMES.get(name, name)
            for other in self.train.params:
                if other != name and _OTHER_NAMES.get(other, other) == usual:
                    raise ValueError(
                        f"search.space has {name} and train.params has {other}, which are one "
                        "parameter: use the same name for both."
                    )
        return self

    @model_validator(mode="after")
    def _constraints(self) -> "Params":
        for where, text in self._chosen("monotone_constraints"):
            preset = self.features.preset
            if preset not in _COLUMNS:
                raise ValueError(
                    f"{where} is set, and the columns of features.preset {preset} are one-hot: "
                    "remove it, or choose metered or booking."
                )
            columns, count = _COLUMNS[preset] + self.features.trend, text.count(",") + 1
            if count > columns:
                raise ValueError(
                    f"{where} has {count} entries, and features.preset {preset} has {columns} "
                    "columns: expected no more than that."
                )
        return self

    @model_validator(mode="after")
    def _answers(self) -> "Params":
        for where, objective in self._chosen("objective"):
            if objective == "reg:gamma" and self.clean.min_minutes == 0:
                raise ValueError(
                    f"{where} is reg:gamma, which cannot learn trips of 0 minutes, and "
                    "clean.min_minutes is 0: raise it, or choose another objective."
                )
        return self

    def _chosen(self, name: str) -> list[tuple[str, str]]:
        """Where the settings give a parameter whose values are words, and each of its values."""
        searched = self.search.space.get(name, {}).get("choice", [])
        found = [(f"search.space.{name}", value) for value in searched]
        fixed = self.train.params.get(name)
        return [*found, *([(f"train.params.{name}", fixed)] if fixed is not None else [])]

    @model_validator(mode="after")
    def _some_stop(self) -> "Params":
        """With train.stop_on inside, there must be days to learn from and trips to stop on."""
        if self.train.stop_on != "inside":
            return self
        first, last = (bounds(pick(self.data.train))[i] for i, pick in enumerate((min, max)))
        days, stop = (last - first).days, self.train.stop_days
        if stop >= days:
            raise ValueError(
                f"train.stop_days is {stop}, and the months of data.train have {days} days: "
                "expected some to learn from; lower it, name more months, or set "
                "train.stop_on=validation."
            )
        sample = self.train.sample_rows
        if sample is not None and sample * stop < _FEW * days:
            raise ValueError(
                f"train.sample_rows is {sample}, of which about {sample * stop / days:.1g} lie in "
                f"the last {stop} of {days} days, where fits stop: expected at least "
                f"{math.ceil(_FEW * days / stop)}; or set train.stop_on=validation."
            )
        return self

    @model_validator(mode="after")
    def _enough_simulated(self) -> "Params":
        """Of months that are drawn it is known beforehand, roughly, how many trips are kept."""
        if self.data.source != "simulated":
            return self
        trips = self.data.simulated.trips_per_month
        for month in self.data.months:
            share = _kept(month, self.data.simulated.drift, self.clean)
            first, after = bounds(month)
            length = (after - first).days
            wanted = {"no month may be empty": (length, _FEW)}
            if month in self.data.validation:
                every, level = self.intervals.calibration_every, self.intervals.level
                count = math.ceil(length / every) if month == max(self.data.validation) else 0
                needed = math.ceil(1 / (0.3 * (1 - level))) + 1  # as in intervals.calibrate
                what = f"intervals.level {level:g} needs {needed} trips that calibrate"
                wanted[what] = (count or length, needed if count else _FEW)
            if month == max(self.data.train) and self.train.stop_on == "inside":
                wanted["fits must stop on some"] = (min(self.train.stop_days, length), _FEW)
            for why, (days, needed) in wanted.items():
                expected = trips * share * days / length
                # A Sunday has half as many trips as a Friday.
                needed = math.ceil(needed * (2 if days < 7 else 1.5))
                if expected < needed:
                    least = f"{needed * length / days / share:,.0f}" if share > 1e-6 else "more"
                    raise ValueError(
                        f"data.simulated.trips_per_month is {trips}, of which about "
                        f"{expected:.2g} would be left on {days} of the {length} days of {month}, "
                        f"and {why}: expected at least {least}, or wider rules under clean and a "
                        "data.simulated.drift nearer to 0."
                    )
        return self


def _kept(month: str, drift: float, clean: Clean) -> float:
    """About which share of a simulated month's trips passes the rules on minutes and miles.

    The logarithms of both are nearly normal and correlated; what they are was measured over all
    taxis and some cities.
    """
    year, number = parse_month(month)
    pace = (12 * (year - 2020) + number - 1) * math.log1p(drift)
    low, high = (math.log(max(end, 1e-3)) for end in (clean.min_minutes, clean.max_minutes))
    correlation, spread, share, parts = 0.83, 0.64, 0.0, 64
    for part in range(parts):
        z = -4 + 8 * (part + 0.5) / parts  # log miles in standard deviations
        if clean.max_miles is not None and 0.65 + 0.83 * z > math.log(clean.max_miles):
            break
        middle = 2.45 + pace + correlation * spread * z
        scale = spread * math.sqrt(2 * (1 - correlation**2))
        inside = math.erf((high - middle) / scale) - math.erf((low - middle) / scale)
        share += inside / 2 * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * 8 / parts
    return share


class _Short(reprlib.Repr):
    """What was found, in a few words, however long or deep it is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist = 3, 3, 6
        self.maxstring = self.maxother = 100

    def repr_int(self, number: int, level: int) -> str:
        digits = number.bit_length() * math.log10(2)
        return repr(number) if digits < 30 else f"a whole number of about {digits:.0f} digits"


def _shown(value: Any) -> str:
    return _Short().repr(value)


def _sayable(text: str) -> str:
    """One line that is not too long, with nothing in it that a terminal could take for orders."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: 4 * _LONGEST])
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} … {text[-half:]}"


def _closest(name: str, known: list[str] | frozenset[str]) -> str:
    if not known:
        return "there is nothing of that kind."
    near = difflib.get_close_matches(name[:50], sorted(known), n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(known))}."


def _check_names(where: str, names: dict[str, Any]) -> None:
    for name in names:
        if name not in BOOSTER_PARAMETERS:
            raise ValueError(
                f"{where} has {_shown(name)}, which is no XGBoost parameter that can be set here: "
                f"{_closest(name, BOOSTER_PARAMETERS)}"
            )
    for name, usual in _OTHER_NAMES.items():
        if name in names and usual in names:
            raise ValueError(
                f"{where} has both {name} and {usual}, which are one parameter: name it once."
            )


def _check_no_credentials(where: str, url: str) -> None:
    """Refuse what git would keep for ever: params.yaml, dvc.lock and metrics are committed."""
    if holds_credentials(url):
        raise ValueError(
            f"{where} holds a password, a token or a signature: expected the plain URL, since "
            "params.yaml is committed; credentials come from the environment, as the store's own "
            "tools read them, or for http(s) from ~/.netrc."
        )


def _check_value(where: str, name: str, value: Any) -> None:
    if name in _WORDS:
        words = _WORDS[name]
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"{where} is {_shown(value)}: expected {', '.join(sorted(words))}.")
    elif name == "monotone_constraints":
        if not isinstance(value, str) or not re.fullmatch(r"\((-?1|0)(,(-?1|0))*\)", value):
            raise ValueError(f"{where} is {_shown(value)}: expected text like '(1,0,-1)'.")
    elif not _RANGES[name].holds(value):
        near = _is_number(value) and 0 < abs(value) < _TINY
        also = f", and none nearer to 0 than {_TINY:g} but 0 itself" if near else ""
        raise ValueError(f"{where} is {_shown(value)}: expected {_RANGES[name]}{also}.")


def _check_within(where: str, value: Any, distribution: dict[str, list[Any]]) -> None:
    """Refuse a point that the distribution could not have drawn, as far as it has bounds."""
    [(name, arguments)] = distribution.items()
    if name == "choice":
        if value not in arguments:
            raise ValueError(f"{where} is {_shown(value)}: expected one of {_shown(arguments)}.")
    elif "normal" not in name:
        low, high = _reach(name, arguments)
        if not low <= value <= high:
            raise ValueError(
                f"{where} is {_shown(value)}, which search.space cannot draw: expected {low:.4g} "
                f"to {high:.4g}."
            )


def _check_distribution(where: str, parameter: str, distribution: dict[str, list[Any]]) -> None:
    if len(distribution) != 1:
        raise ValueError(
            f"{where} has {len(distribution)} distributions: expected one, like "
            "{loguniform: [-3, 0]}."
        )
    [(name, arguments)] = distribution.items()
    if name not in DISTRIBUTIONS:
        raise ValueError(
            f"{where} has the unknown distribution {_shown(name)}: "
            f"{_closest(name, frozenset(DISTRIBUTIONS))}"
        )
    count = DISTRIBUTIONS[name]
    if count is None:
        if not arguments:
            raise ValueError(f"{where}.{name} is empty: expected at least one value.")
        for value in arguments:
            _check_value(f"{where}.{name}", parameter, value)
        return
    if parameter not in _RANGES:
        raise ValueError(f"{where} has {name}, and its values are words: expected {{choice: […]}}.")
    found = f"{where}.{name} is {_shown(arguments)}"
    if len(arguments) != count or not all(map(_is_number, arguments)):
        raise ValueError(f"{found}: expected {count} numbers.")
    if "normal" in name:
        if arguments[1] <= 0:
            raise ValueError(f"{found}: expected a spread above 0.")
    elif arguments[0] >= arguments[1]:
        raise ValueError(f"{found}: expected the lower bound first.")
    if "log" in name and max(map(abs, arguments[:2])) > 30:
        raise ValueError(f"{found}: natural logarithms, expected -30 to 30.")
    if name == "uniformint" and any(value != int(value) for value in arguments):
        raise ValueError(f"{found}: expected whole numbers.")
    if count == 3 and arguments[2] <= 0:
        raise ValueError(f"{found}: expected a step above 0.")
    takes = _RANGES[parameter]
    if takes.whole and not (name == "uniformint" or (count == 3 and arguments[2] % 1 == 0)):
        raise ValueError(
            f"{found}, and {parameter} is a whole number: expected {{uniformint: [low, high]}}, or "
            "a distribution with a whole step, like {quniform: [low, high, 1]}."
        )
    low, high = _reach(name, arguments)
    inside = takes._replace(whole=False)
    if not (inside.holds(low) and inside.holds(high)):
        far = ", five spreads either way" if "normal" in name else ""
        raise ValueError(
            f"{found}, which draws from {low:.4g} to {high:.4g}{far}, and XGBoost's {parameter} is "
            f"{takes}: expected a distribution within."
        )
    if count == 3 and not 1e-6 * (high - low) <= arguments[2] <= high - low:
        raise ValueError(f"{found}: expected a step that fits between {low:.4g} and {high:.4g}.")


def _reach(name: str, arguments: list[Any]) -> tuple[float, float]:
    """The lowest and the highest value that a distribution draws; hardly ever, if it is normal."""
    low, high = arguments[:2]
    if "normal" in name:
        low, high = low - 5 * high, low + 5 * high
    if "log" in name:
        low, high = math.exp(low), math.exp(min(high, 700))
    if name.startswith("q"):  # hyperopt rounds what it draws to multiples of the step
        step = arguments[2]
        low, high = (
            round(end / step) * step if abs(end / step) < 1e15 else end for end in (low, high)
        )
    return low, high


def check(settings: Any) -> Params:
    """Check settings as read from YAML.

    Raises
    ------
    SettingsError
        One sentence that names the key, what was found and what was expected.
    """
    if not isinstance(settings, dict):
        raise SettingsError("params.yaml holds no settings: expected keys like seed and data.")
    try:
        return Params.model_validate(settings)
    except ValidationError as error:
        raise SettingsError(_sayable(_sentence(error))) from None


def _sentence(error: ValidationError) -> str:
    """The first problem, as a sentence; an unknown key goes first, since it explains others."""
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path = [str(part) for part in problem["loc"]]
    found = _shown(problem["input"])
    if problem["type"] == "extra_forbidden":
        key = ".".join(part if part.isidentifier() else _shown(part) for part in path)
        return f"{key} is no setting: {_closest(path[-1], _siblings(path))}"
    if path[-1:] == ["[key]"] or problem["type"] == "invalid_key":
        where = ".".join(path[:-2]) or "params.yaml"
        return f"{where} has the key {found}: expected the name of a setting."
    key = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(path))
    if problem["type"] == "missing":
        return f"{key} is missing from params.yaml: `git checkout params.yaml` brings it back."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if not path or f"{path[0]}." in message else f"{key}: {message}"
    expected = re.sub(r"^Input should be ", "", message).removeprefix("a valid ")
    if "literal" in problem["type"] or "greater" in problem["type"] or "less" in problem["type"]:
        number = "a number " if expected.startswith(("greater", "less")) else ""
        return f"{key} is {found}: expected {number}{expected}."
    names = {
        "int_type": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list, like [2021-01]" if path[0] == "data" else "a list",
        "dict_type": "a mapping, like {max_depth: {uniformint: [4, 10]}}",
        "model_type": "a group of settings",
        "too_short": "at least one entry",
        "string_too_short": "a path or URL",
    }
    if key == "data.source":
        names["string_too_short"] = "simulated, tlc, or a path or URL"
    if re.fullmatch(r"data\.(train|validation|test)\[\d+\]", key):
        names["string_type"] = "a month as text, YYYY-MM"
        date = problem["input"]
        found = repr(str(date)) if hasattr(date, "isoformat") else found
    return f"{key} is {found}: expected {names.get(problem['type'], expected)}."


def _siblings(path: list[str]) -> list[str]:
    model: Any = Params
    for part in path[:-1]:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check ``params.yaml``.

    Raises
    ------
    SettingsError
        If the file is missing, is no YAML, or holds a wrong setting.
    """
    return check(_read(path))


def _read(path: str | Path) -> Any:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise SettingsError(
                f"{path} has more than {_MOST_BYTES:,} bytes: `git checkout params.yaml` brings "
                "the settings back."
            )
        text = content.decode()
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path} is no UTF-8 text at line {line}: save it as UTF-8.") from None
    try:
        return _parsed(text)
    except ValueError as error:
        raise SettingsError(_sayable(f"{path} is no valid YAML{error}: mend it there.")) from None


def _parsed(text: str) -> Any:
    """YAML as plain data; a ValueError that says where and why, if it is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    def yaml() -> YAML:
        return YAML(typ="safe", pure=True)

    try:
        if "&" in text:  # aliases and merges make much of little, when they are filled in
            _refuse_large(yaml().compose(text))
        found = yaml().load(text)
        _refuse_large(found)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        problem = (error.problem or "").partition(" with value")[0]  # it might be a password
        reason = f" ({problem})" if problem else ""
        raise ValueError(f" at line {mark.line + 1}{reason}" if mark else reason) from None
    except RecursionError:
        raise ValueError(" (nested too deep)") from None
    except _LargeError as error:
        raise ValueError(f" ({error})") from None
    except Exception:  # a tag whose value does not fit it fails in a way of its own
        raise ValueError("") from None
    return found


class _LargeError(Exception):
    """Data that is no settings, or more than anybody writes by hand."""


def _refuse_large(whole: Any) -> None:
    """Refuse data, or a graph of YAML's nodes, that would swell, and what is no plain data."""
    waiting, values = [(whole, 0)], 0
    while waiting:
        found, depth = waiting.pop()
        found = getattr(found, "value", found)  # of a node
        values += 1
        if depth > _DEEPEST:
            raise _LargeError(f"nested deeper than {_DEEPEST} levels")
        if values > _MOST_VALUES:
            raise _LargeError(f"more than {_MOST_VALUES:,} values")
        if isinstance(found, dict):
            waiting += [(part, depth + 1) for pair in found.items() for part in pair]
        elif isinstance(found, list | tuple):
            waiting += [(part, depth + 1) for part in found]
        elif isinstance(found, bytes | set):
            raise _LargeError("sets and bytes are no settings")


def parse_overrides(text: str) -> dict[str, Any]:
    """Read ``"key=value key=value"``, the values as YAML.

    A value ends where the next ``key=`` begins, so lists may hold spaces.

    Raises
    ------
    SettingsError
        If the text does not read as ``key=value`` pairs, or a key comes twice.
    """
    text = text.strip()
    starts = list(re.finditer(r"(?:^|\s+)([A-Za-z_][A-Za-z0-9_.]*)=", text))
    if text and (not starts or starts[0].start() != 0):
        first = text.split()[0]
        raise SettingsError(
            f'SET has {_shown(first)}: expected key=value pairs, like SET="search.max_evals=5".'
        )
    found: dict[str, Any] = {}
    ends = [*(start.start() for start in starts[1:]), len(text)]
    for start, end in zip(starts, ends, strict=False):
        key, value = start[1], text[start.end() : end].strip()
        if key in found:
            raise SettingsError(_sayable(f"SET has {key} twice: give it once."))
        if re.search(r"\{(taxi|year|month)\}", value):  # a template of paths, no YAML mapping
            found[key] = value.strip("'\"")
            continue
        try:
            found[key] = _parsed(value)
        except ValueError:  # 2021-13-01 reads as a date, and is none
            raise SettingsError(
                _sayable(f"{key} is {_shown(value)}: that is no valid YAML value.")
            ) from None
    return found


def override(text: str, overrides: dict[str, Any]) -> tuple[str, Params]:
    """Set keys in the text of a ``params.yaml``, keeping its comments, and check the result.

    Parameters
    ----------
    text : str
        The file's text.
    overrides : dict
        Values by dotted key, as `parse_overrides` gives them.

    Returns
    -------
    text : str
        The new file's text.
    params : Params
        The new settings, checked.

    Raises
    ------
    SettingsError
        If a key does not exist or a value does not fit it.
    """
    import io

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    document = yaml.load(text)
    for key, value in overrides.items():
        *groups, last = key.split(".")
        node, walked = document, []
        for group in groups:
            walked.append(group)
            if not isinstance(node, dict) or group not in node:
                known = list(node) if isinstance(node, dict) else []
                raise SettingsError(_sayable(f"{key} is no setting: {_closest(group, known)}"))
            node = node[group]
        if not isinstance(node, dict) or (last not in node and not _is_open(walked)):
            known = list(node) if isinstance(node, dict) else []
            raise SettingsError(_sayable(f"{key} is no setting: {_closest(last, known)}"))
        node[last] = _in_flow(value)
    stream = io.StringIO()
    yaml.dump(document, stream)
    changed = stream.getvalue()
    try:
        return changed, check(_parsed(changed))
    except ValueError as error:
        raise SettingsError(_sayable(f"SET makes no valid YAML{error}.")) from None


def _in_flow(value: Any) -> Any:
    """Lists and mappings in one line, as in the file: ``[2021-01]``, ``{max_depth: 3}``."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, dict):
        turned: Any = CommentedMap((key, _in_flow(inner)) for key, inner in value.items())
    elif isinstance(value, list):
        turned = CommentedSeq(_in_flow(inner) for inner in value)
    else:
        return value
    turned.fa.set_flow_style()
    return turned


def _is_open(groups: list[str]) -> bool:
    """Whether a group takes keys that it does not have yet: XGBoost's own parameters."""
    return groups in (["search", "space"], ["train", "params"])
