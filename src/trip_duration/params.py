"""``params.yaml``, typed and checked: a wrong setting is one sentence, before anything runs."""

import difflib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from trip_duration.errors import SettingsError
from trip_duration.months import parse_month

__all__ = [
    "DISTRIBUTIONS",
    "Clean",
    "Data",
    "Engine",
    "Features",
    "Intervals",
    "Params",
    "Search",
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

# Parameters of XGBoost's tree booster that may be searched or set. What this pipeline fixes itself
# (seed, nthread, max_bin, device, tree_method, objective's metric) is not among them.
BOOSTER_PARAMETERS = frozenset(
    [
        "learning_rate",
        "eta",
        "gamma",
        "min_split_loss",
        "max_depth",
        "min_child_weight",
        "max_delta_step",
        "subsample",
        "sampling_method",
        "colsample_bytree",
        "colsample_bylevel",
        "colsample_bynode",
        "lambda",
        "reg_lambda",
        "alpha",
        "reg_alpha",
        "grow_policy",
        "max_leaves",
        "num_parallel_tree",
        "max_cat_to_onehot",
        "max_cat_threshold",
        "objective",
        "base_score",
        "huber_slope",
        "tweedie_variance_power",
        "monotone_constraints",
    ]
)
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


def _as_float(value: Any) -> Any:
    """YAML reads ``60`` as an integer where a number is meant; nothing else is turned."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Number = Annotated[float, BeforeValidator(_as_float), AfterValidator(_finite)]
Months = list[Annotated[str, AfterValidator(_month)]]
Count = Annotated[int, Field(ge=1)]


class Simulated(_Settings):
    """The simulated city."""

    trips_per_month: Annotated[int, Field(ge=100)]
    drift: Annotated[Number, Field(gt=-0.5, lt=0.5)]


class Data(_Settings):
    """Which months, and where they come from."""

    source: Annotated[str, Field(min_length=1)]
    taxi: Literal["yellow", "green", "fhv", "fhvhv"]
    train: Annotated[Months, Field(min_length=1)]
    validation: Annotated[Months, Field(min_length=1)]
    test: Months
    zones: str | None
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
    def _template(self) -> "Data":
        if self.source in ("simulated", "tlc"):
            return self
        fields = re.findall(r"\{([^{}]*)\}", self.source)
        unknown = sorted({f"{{{name}}}" for name in fields} - {"{taxi}", "{year}", "{month}"})
        if unknown:
            raise ValueError(
                f"data.source names the unknown field {unknown[0]}: "
                "only {taxi}, {year} and {month} are filled in."
            )
        if not {"year", "month"} <= set(fields):
            raise ValueError(
                f"data.source is {self.source!r}: expected simulated, tlc, or a path or URL with "
                "{year} and {month} (and {taxi}), like trips/{taxi}_{year}-{month}.parquet."
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
    startup_trials: Count
    parallel_trials: Annotated[int, Field(ge=1, le=256)]
    num_boost_round: Count
    early_stopping_rounds: Count
    reduction_factor: Annotated[int, Field(ge=2, le=100)] | None
    first_rung: Annotated[Number, Field(gt=0)]
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
        for name, distribution in self.space.items():
            _check_parameter("search.space", name)
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
    nthread: Annotated[int, Field(ge=1, le=1024)]
    max_bin: Annotated[int, Field(ge=2, le=65_536)]
    rows_in_memory: Count
    sample_rows: Count | None
    num_boost_round: Count
    early_stopping_rounds: Count
    stop_on: Literal["inside", "validation"]
    stop_days: Count
    num_parallel_tree: Annotated[int, Field(ge=1, le=100)]
    half_life: Annotated[Number, Field(gt=0, le=100)] | None
    level_days: Count | None
    refit: bool
    params: dict[str, int | float | str]

    @model_validator(mode="after")
    def _params(self) -> "Train":
        for name, value in self.params.items():
            _check_parameter("train.params", name)
            _check_value(f"train.params.{name}", name, value)
        return self


class Intervals(_Settings):
    """The prediction intervals."""

    level: Annotated[Number, Field(ge=0.5, le=0.99)]
    calibration_every: Annotated[int, Field(ge=2, le=28)]


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
            found = re.fullmatch(rf"(?:tcp|tls)://{host}:(\d{{1,5}})", self.dask_scheduler)
            if not found or not 0 < int(found[2]) < 65_536:
                raise ValueError(
                    "engine.dask_scheduler is no address of a scheduler: expected one like "
                    "tcp://10.0.0.5:8786 (or tls://…), or null for a cluster on this machine."
                )
        if self.storage is not None:
            kind, apart, rest = self.storage.partition("://")
            if not apart or not re.fullmatch(r"[a-z][a-z0-9+.-]*", kind) or not rest.strip("/"):
                raise ValueError(
                    "engine.storage is no URL: expected one like s3://bucket/folder or "
                    "file:///mnt/shared, or null where all workers see this folder."
                )
            if "@" in rest or "?" in rest:
                raise ValueError(
                    "engine.storage holds a user, a password or a query: expected the plain URL; "
                    "credentials come from the environment, as the store's own tools read them."
                )
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


class Params(_Settings):
    """All of ``params.yaml``."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data: Data
    clean: Clean
    features: Features
    search: Search
    train: Train
    intervals: Intervals
    engine: Engine

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


def _closest(name: str, known: list[str] | frozenset[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(known))}."


def _check_parameter(where: str, name: str) -> None:
    if name not in BOOSTER_PARAMETERS:
        raise ValueError(
            f"{where} has {name!r}, which is no XGBoost parameter that can be set here: "
            f"{_closest(name, BOOSTER_PARAMETERS)}"
        )


def _check_value(where: str, name: str, value: Any) -> None:
    words = {
        "objective": OBJECTIVES,
        "grow_policy": frozenset({"depthwise", "lossguide"}),
        "sampling_method": frozenset({"uniform"}),
    }
    if name in words:
        if value not in words[name]:
            raise ValueError(f"{where} is {value!r}: expected {', '.join(sorted(words[name]))}.")
    elif name == "monotone_constraints":
        if not isinstance(value, str):
            raise ValueError(f"{where} is {value!r}: expected text, like '(1,0,-1)'.")
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where} is {value!r}: expected a number.")


def _check_within(where: str, value: Any, distribution: dict[str, list[Any]]) -> None:
    """Refuse a point that the distribution could not have drawn, as far as it has bounds."""
    [(name, arguments)] = distribution.items()
    if name == "choice":
        if value not in arguments:
            raise ValueError(f"{where} is {value!r}: expected one of {arguments}.")
    elif "normal" not in name:
        low, high = arguments[:2]
        if "log" in name:
            low, high = math.exp(low), math.exp(high)
        if not low <= value <= high:
            raise ValueError(
                f"{where} is {value!r}, which search.space cannot draw: expected {low:.4g} to "
                f"{high:.4g}."
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
            f"{where} has the unknown distribution {name!r}: "
            f"{_closest(name, frozenset(DISTRIBUTIONS))}"
        )
    count = DISTRIBUTIONS[name]
    if count is None:
        if not arguments:
            raise ValueError(f"{where}.{name} is empty: expected at least one value.")
        for value in arguments:
            _check_value(f"{where}.{name}", parameter, value)
        return
    numbers = [value for value in arguments if isinstance(value, int | float)]
    numbers = [value for value in numbers if not isinstance(value, bool) and math.isfinite(value)]
    if len(arguments) != count or len(numbers) != count:
        raise ValueError(f"{where}.{name} is {arguments}: expected {count} numbers.")
    if "normal" in name:
        if numbers[1] <= 0:
            raise ValueError(f"{where}.{name} is {arguments}: expected a spread above 0.")
    elif numbers[0] >= numbers[1]:
        raise ValueError(f"{where}.{name} is {arguments}: expected the lower bound first.")
    if "log" in name and max(numbers[:2]) > 30:
        raise ValueError(f"{where}.{name} is {arguments}: natural logarithms, expected 30 at most.")
    if name == "uniformint" and any(value != int(value) for value in numbers):
        raise ValueError(f"{where}.{name} is {arguments}: expected whole numbers.")
    if count == 3 and numbers[2] <= 0:
        raise ValueError(f"{where}.{name} is {arguments}: expected a step above 0.")


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
        raise SettingsError(_sentence(error, settings)) from None


def _sentence(error: ValidationError, settings: dict) -> str:
    """The first problem, as a sentence; an unknown key goes first, since it explains others."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    path = [str(part) for part in problem["loc"]]
    key = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", ".".join(path))
    found = problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"{key} is no setting: {_closest(path[-1], _siblings(path))}"
    if problem["type"] == "missing":
        return f"{key} is missing from params.yaml: `git checkout params.yaml` brings it back."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if not path or f"{path[0]}." in message else f"{key}: {message}"
    expected = re.sub(r"^Input should be ", "", message).removeprefix("a valid ")
    if "literal" in problem["type"] or "greater" in problem["type"] or "less" in problem["type"]:
        number = "a number " if expected.startswith(("greater", "less")) else ""
        return f"{key} is {found!r}: expected {number}{expected}."
    names = {
        "int_type": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list, like [2021-01]" if path[0] == "data" else "a list",
        "dict_type": "a mapping, like {max_depth: {uniformint: [4, 10]}}",
        "model_type": "a group of settings",
        "too_short": "at least one entry",
        "string_too_short": "simulated, tlc, or a path or URL",
    }
    if re.fullmatch(r"data\.(train|validation|test)\[\d+\]", key):
        names["string_type"] = "a month as text, YYYY-MM"
        found = str(found) if hasattr(found, "isoformat") else found
    return f"{key} is {found!r}: expected {names.get(problem['type'], expected)}."


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
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}.") from None
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path} is no valid YAML{where}: mend it there.") from None


def parse_overrides(text: str) -> dict[str, Any]:
    """Read ``"key=value key=value"``, the values as YAML.

    A value ends where the next ``key=`` begins, so lists may hold spaces.

    Raises
    ------
    SettingsError
        If the text does not read as ``key=value`` pairs, or a key comes twice.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    text = text.strip()
    starts = list(re.finditer(r"(?:^|\s+)([A-Za-z_][A-Za-z0-9_.]*)=", text))
    if text and (not starts or starts[0].start() != 0):
        first = text.split()[0]
        raise SettingsError(
            f'SET has {first!r}: expected key=value pairs, like SET="search.max_evals=5".'
        )
    found: dict[str, Any] = {}
    ends = [*(start.start() for start in starts[1:]), len(text)]
    for start, end in zip(starts, ends, strict=False):
        key, value = start[1], text[start.end() : end].strip()
        if key in found:
            raise SettingsError(f"SET has {key} twice: give it once.")
        if re.search(r"\{(taxi|year|month)\}", value):  # a template of paths, no YAML mapping
            found[key] = value.strip("'\"")
            continue
        try:
            found[key] = YAML(typ="safe", pure=True).load(value)
        except (YAMLError, ValueError):  # ValueError: 2021-13-01 reads as a date, and is none
            raise SettingsError(f"{key} is {value!r}: that is no valid YAML value.") from None
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
                raise SettingsError(f"{key} is no setting: {_closest(group, known)}")
            node = node[group]
        if not isinstance(node, dict) or (last not in node and not _is_open(walked)):
            known = list(node) if isinstance(node, dict) else []
            raise SettingsError(f"{key} is no setting: {_closest(last, known)}")
        node[last] = _in_flow(value)
    stream = io.StringIO()
    yaml.dump(document, stream)
    changed = stream.getvalue()
    return changed, check(YAML(typ="safe", pure=True).load(changed))


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
