"""MLflow's registry: which model is served, which one challenges it, and the way back.

Every model that is registered becomes a version of `MODEL`, one for each content of its files. The
alias ``challenger`` is the last version that was registered, ``champion`` the one that is served.

A verdict and what follows from it are written down before anything is changed, and whoever comes
next ends what a kill has cut short: an alias, a version's tags and the journal
(``.mlflow/promotions.jsonl``) never say different things for longer than that.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trip_duration import gate, params, prediction, splits, tracking
from trip_duration.baselines import Baselines
from trip_duration.cards import card
from trip_duration.errors import TripDurationError, redacted
from trip_duration.files import read_json, write_json
from trip_duration.gate import Verdict
from trip_duration.locking import locked
from trip_duration.orchestration import environment
from trip_duration.origins import booster, origin
from trip_duration.prediction import FILES
from trip_duration.trips import month_path

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from trip_duration.params import Params

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "MODEL",
    "PROMOTED",
    "Registered",
    "RolledBack",
    "Served",
    "champion",
    "chosen",
    "digest",
    "follow",
    "journal",
    "local",
    "params_of",
    "register",
    "rollback",
    "tags_of",
]

MODEL = "trip-duration"
CHAMPION = "champion"
CHALLENGER = "challenger"
CACHE = Path(".cache/registry")  # has a folder for each of the versions that were fetched last
KEPT = 5  # more than anybody reads at a time
LAST = CACHE / "champion.json"  # the champion that was found last, for when nobody answers
FOLDER = Path(".mlflow")
JOURNAL = FOLDER / "promotions.jsonl"
SOURCE = "source"  # the tag that says where its trips came from
PROMOTED = "promoted"  # the tag that says how a version was judged
PREVIOUS = "previous"  # the one that says which version was champion before it
BACK = "rolled back"  # what the journal says of it
ROLLED_BACK = "rolled_back"  # the one that says when it was taken back
LOCAL = "local-"  # begins what the model in models/ is called
SAME = 0.001  # minutes by which two readings of one model's RMSE may differ

_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # no such model, no such alias


@dataclass(frozen=True)
class Served:
    """A model's files, and what it is called.

    Attributes
    ----------
    version : str
        MLflow's number of the version, like ``7``; of ``models/``, ``local-`` and its digest.
    folder : Path
        Holds the files of `prediction.FILES`.
    digest : str
        Names the content of these files, see `digest`.
    taxi, preset : str
        What it learned from: ``data.taxi``, and ``features.preset``.
    train_months : tuple of str
        The months that it learned from, YYYY-MM.
    """

    version: str
    folder: Path
    digest: str
    taxi: str
    preset: str
    train_months: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Served":
        """Read what `to_json` gave.

        Raises
        ------
        KeyError, TypeError
            If it is nothing of the kind.
        """
        return cls(
            version=str(said["version"]),
            folder=Path(said["folder"]),
            digest=str(said["digest"]),
            taxi=str(said["taxi"]),
            preset=str(said["preset"]),
            train_months=tuple(map(str, said["train_months"])),
        )


# -- which model is served -----------------------------------------------------------------------


def digest(folder: str | Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 over a model's files: names and contents."""
    found = hashlib.sha256()
    for name in FILES:
        found.update(name.encode() + b"\0")
        found.update((Path(folder) / name).read_bytes())
    return found.hexdigest()[:12]


def local(root: str | Path) -> Served | None:
    """The model in ``models/`` of the repository; None if one of its files is missing.

    Raises
    ------
    SettingsError
        If ``params.yaml``, which says what it learned from, cannot be used.
    """
    folder = Path(root) / "models"
    try:
        found = digest(folder)
    except FileNotFoundError:
        return None
    settings = params.load(Path(root) / "params.yaml")
    return Served(
        version=f"{LOCAL}{found}",
        folder=folder,
        digest=found,
        taxi=settings.data.taxi,
        preset=settings.features.preset,
        train_months=tuple(_learned(settings)),
    )


def champion(root: str | Path) -> Served | None:
    """The registry's champion, its files fetched to ``.cache/registry``; None if there is none.

    Raises
    ------
    TripDurationError
        If the registry does not answer, or the files are not those that were registered.
    """
    with _registry(root) as client:
        version = None if client is None else _aliased(client, CHAMPION)
        if version is None:
            (Path(root) / LAST).unlink(missing_ok=True)
            return None
        return _remember(Path(root), _served(Path(root), version))


def chosen(root: str | Path) -> Served:
    """The champion; where there is none, the model in ``models/``.

    Raises
    ------
    TripDurationError
        If there is neither, or the files in ``models/`` are not those of one run, or as `champion`
        does.
    """
    found = champion(root) or _own(Path(root))
    if found is None:
        raise TripDurationError(
            f"There is no model to serve in {root}: no champion in the registry, and models/ has "
            "not all of its files; run `make train`."
        )
    return found


def _own(root: Path) -> Served | None:
    """As `local`, where the files are those of one run."""
    found = local(root)
    if found is not None and not _is_whole(root):
        raise TripDurationError(
            f"The files in {root / 'models'} are not those that dvc.lock says came out of one run, "
            "so they may not fit each other: a run is at work or was cut short; run `make train`, "
            "which goes on from there."
        )
    return found


def _remember(root: Path, served: Served) -> Served:
    """Write down that a version is champion, and of which registry."""
    write_json({**served.to_json(), "registry": _store()}, root / LAST)
    return served


def _remembered(root: Path) -> Served | None:
    """The champion as `_remember` wrote it down, if its files are still there."""
    try:
        said = read_json(root / LAST)
        with _environment(root):
            if said["registry"] != _store():
                return None
        found = Served.from_json(said)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if _holds(found.folder, found.digest) else None


def _store() -> str:
    """A name for the registry: two of them have versions of their own."""
    return hashlib.sha256(os.environ["MLFLOW_TRACKING_URI"].encode()).hexdigest()[:12]


def tags_of(root: str | Path, alias: str) -> dict[str, str] | None:
    """The tags of the version that has an alias; None where there is none.

    Raises
    ------
    TripDurationError
        If the registry does not answer.
    """
    with _registry(root) as client:
        version = None if client is None else _aliased(client, alias)
        return None if version is None else dict(version.tags)


def params_of(root: str | Path, served: Served | None) -> dict[str, Any] | None:
    """XGBoost's parameters that a model was fitted with.

    Parameters
    ----------
    root : str or Path
        The repository's folder.
    served : Served or None
        A version of its registry, or the model in its ``models/``.

    Returns
    -------
    dict or None
        None for None, and where they are not known.

    Raises
    ------
    TripDurationError
        If the registry does not answer.
    """
    if served is None:
        return None
    if served.version.startswith(LOCAL):
        return booster(root)
    with _registry(root) as client:
        version = None if client is None else _version(client, served.version)
    said = None if version is None else version.tags.get("params")
    return None if said is None else dict(json.loads(said))


def _learned(settings: "Params") -> list[str]:
    data = settings.data
    return sorted([*data.train, *data.validation] if settings.train.refit else data.train)


@contextmanager
def _environment(root: str | Path) -> Iterator[None]:
    """MLflow's settings for the repository at ``root``, as `orchestration.begin` has them."""
    settings = environment(root)
    names = [name for name in settings if name.startswith("MLFLOW_")]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: settings[name] for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _registry(root: str | Path, *, make: bool = False) -> Iterator["MlflowClient | None"]:
    """A client of the repository's registry; None, and no import of MLflow, if there is no store.

    With ``make``, the store is made. Whatever MLflow raises becomes one sentence.
    """
    with _environment(root):
        store = tracking.store_file()
        if not make and store is not None and not store.exists():
            yield None
            return
        with _sentences():
            yield _connected()


def _connected() -> "MlflowClient":
    tracking.prepare()
    import mlflow

    uri = os.environ["MLFLOW_TRACKING_URI"]
    mlflow.set_tracking_uri(uri)  # a model that a version is made of is looked up there
    return mlflow.MlflowClient(uri)


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except (TripDurationError, OSError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise TripDurationError(
            f"MLflow's registry at {os.environ['MLFLOW_TRACKING_URI']} failed "
            f"({type(error).__name__}: {said}): see that it is there and can be written to, and "
            "run the same command again."
        ) from error


def _aliased(client: "MlflowClient", alias: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(MODEL, alias)
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


def _served(root: Path, version: "ModelVersion") -> Served:
    tags = version.tags
    return Served(
        version=str(version.version),
        folder=_fetched(root, version),
        digest=tags["digest"],
        taxi=tags.get("taxi", ""),
        preset=tags.get("preset", ""),
        train_months=tuple(tags.get("train_months", "").split()),
    )


def _fetched(root: Path, version: "ModelVersion") -> Path:
    """The folder with a version's files, which are fetched if they are not there yet."""
    expected = version.tags.get("digest")
    if expected is None:
        raise TripDurationError(
            f"Version {version.version} of {MODEL} has no tag `digest`, so `make register` did not "
            "make it: give the alias champion to a version that it made."
        )
    folder = root / CACHE / str(version.version)
    if _holds(folder, expected):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / "lock"):
        if _holds(folder, expected):  # another has fetched it while we waited
            return folder
        _remove(folder.parent.glob(".partial*"))
        partial = Path(tempfile.mkdtemp(prefix=".partial", dir=folder.parent))
        try:
            found = _download(f"models:/{MODEL}/{version.version}", partial)
            if found != expected:
                raise TripDurationError(
                    f"The files of version {version.version} of {MODEL} have the digest {found}, "
                    f"and {expected} was registered: they were changed since; go back to another "
                    "version with `make rollback`."
                )
            _remove([folder])
            partial.rename(folder)
            fetched = sorted(folder.parent.glob("[0-9]*"), key=lambda path: path.stat().st_mtime)
            _remove(fetched[:-KEPT])
        finally:
            _remove([partial])
    return folder


def _download(model: str, folder: Path) -> str:
    """Fetch the files of the model at a URI, which are data, and no more; give their digest."""
    from mlflow.artifacts import download_artifacts

    for name in FILES:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fetched = download_artifacts(
                f"{model}/artifacts/{name}",
                dst_path=scratch,
                tracking_uri=os.environ["MLFLOW_TRACKING_URI"],
            )
            with Path(fetched).open("rb+") as file:
                os.fsync(file.fileno())
            Path(fetched).replace(folder / name)
    folder.chmod(0o755)
    return digest(folder)


def _holds(folder: Path, expected: str) -> bool:
    try:
        return digest(folder) == expected
    except OSError:
        return False


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


# -- registering ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registered:
    """What `register` did.

    Attributes
    ----------
    version : str
        The model's number in the registry.
    digest : str
        Of its files.
    created : bool
        Whether the version is new; a model that is registered already keeps its own.
    verdict : Verdict
        How it was judged, now or when it was registered.
    card : str
        Its card, Markdown.
    rival : str or None
        The champion's version when it was judged.
    champion : str or None
        The champion's version now.
    """

    version: str
    digest: str
    created: bool
    verdict: Verdict
    card: str
    rival: str | None
    champion: str | None

    @property
    def promoted(self) -> bool:
        """Whether it is the champion now."""
        return self.champion == self.version

    @property
    def sentence(self) -> str:
        """What was decided, and why, with its RMSE and the one it had to beat."""
        if self.promoted and self.verdict.promoted:
            before = f" in place of version {self.rival}" if self.rival else ""
            return f"Version {self.version} is promoted to champion{before}: {self._errors}."
        reasons = _some(self.verdict.reasons)
        if self.promoted:
            return (
                f"Version {self.version} is champion by hand, and was kept as challenger when it "
                f"was judged ({self._errors}): {reasons}."
            )
        stays = "there is no champion"
        if self.champion:
            stays = f"version {self.champion} stays champion"
        if self.verdict.promoted:
            return (
                f"Version {self.version} was promoted before ({self._errors}) and is champion no "
                f"longer: {stays}."
            )
        return (
            f"Version {self.version} is kept as challenger and {stays} ({self._errors}): {reasons}."
        )

    @property
    def _errors(self) -> str:
        rmse, beside = self.verdict.rmse, self.verdict.champion_rmse
        if beside is None:
            best = min(self.verdict.baselines.values())
            return f"RMSE {rmse:.3f} minutes to the best baseline's {best:.3f}"
        return f"RMSE {rmse:.3f} minutes to the {beside:.3f} of version {self.rival}"


def _some(reasons: Sequence[str], most: int = 3) -> str:
    more = [f"and {len(reasons) - most} more"] if len(reasons) > most else []
    return "; ".join([*reasons[:most], *more])


def register(
    root: str | Path,
    workspace: str | Path | None = None,
    aliases: Sequence[str] = (),
    say: Callable[[str], object] = print,
) -> Registered:
    """Put the evaluated model into the registry, judge it, and promote it if it is the better one.

    Done again it changes nothing; after a kill at any moment it ends what was begun. A version that
    is not champion is judged again where the champion, the rules or the months that judge are
    others than when it was; one that was rolled back is not. Another that registers or rolls back
    meanwhile, on this machine, is waited for.

    Parameters
    ----------
    root : str or Path
        The repository whose registry it is.
    workspace : str or Path, optional
        The folder whose ``params.yaml``, ``data/``, ``models/`` and ``metrics/`` are those of the
        model; left out, ``root``.
    aliases : sequence of str
        Further aliases for the version, which has them once all else is done.
    say : callable
        Takes lines for a person.

    Raises
    ------
    TripDurationError
        If there is no evaluated model, or the registry fails.
    """
    root = Path(root)
    workspace = root if workspace is None else Path(workspace)
    model, errors = _evaluated(workspace)
    settings = params.load(workspace / "params.yaml")
    judges, source = _judges(settings), _source(settings)
    with _alone(root), _registry(root, make=True) as client:
        assert client is not None
        _finish(client, root)
        version = _registered(client, model.digest)
        created = version is None
        if version is None:
            version = _create(client, model, workspace)
        else:
            say(f"These files are version {version.version} already (digest {model.digest}).")
            if version.tags.get(SOURCE) != source:  # the same months are elsewhere now
                client.set_model_version_tag(MODEL, version.version, SOURCE, source)
        if _is_due(client, version, judges):
            client.set_registered_model_alias(MODEL, CHALLENGER, version.version)
            _judge(client, root, workspace, model, errors, str(version.version), judges)
            _finish(client, root)
            version = client.get_model_version(MODEL, version.version)
        for alias in aliases:
            client.set_registered_model_alias(MODEL, alias, version.version)
        present = _aliased(client, CHAMPION)
        return Registered(
            version=str(version.version),
            digest=model.digest,
            created=created,
            verdict=Verdict.from_json(json.loads(version.tags["verdict"])),
            card=version.description or "",
            rival=version.tags.get("rival") or None,
            champion=None if present is None else str(present.version),
        )


def _evaluated(workspace: Path) -> tuple[Served, dict[str, float]]:
    """The model in a workspace, and its errors on the split that judges."""
    model = _own(workspace)
    path = workspace / "metrics/evaluation.json"
    if model is None or not path.exists():
        raise TripDurationError(
            f"There is no evaluated model in {workspace}: expected the files of models/ and "
            "metrics/evaluation.json; run `make train` first."
        )
    settings = params.load(workspace / "params.yaml")
    split = settings.judged[-1]
    if split == settings.train.stop_on:
        raise TripDurationError(
            "train.stop_on is validation and data.test has no months, so the number of rounds was "
            "found on the very trips that would judge: set train.stop_on=inside, or name a later "
            "month in data.test, and run `make train` again."
        )
    try:
        return model, read_json(path)[split]["model"]
    except (ValueError, KeyError, TypeError):
        raise TripDurationError(
            f"{path} has no errors of the split {split}, which params.yaml has judge: run "
            "`make train` again."
        ) from None


def _source(settings: "Params") -> str:
    return redacted(settings.data.source)


def _registered(client: "MlflowClient", digest: str) -> "ModelVersion | None":
    found = client.search_model_versions(f"name='{MODEL}' and tags.digest='{digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def _create(client: "MlflowClient", model: Served, workspace: Path) -> "ModelVersion":
    """Make a version, in one step, of what the evaluate stage logged, or of what is logged now."""
    from mlflow.exceptions import MlflowException

    settings, made = params.load(workspace / "params.yaml"), origin(workspace)
    model_id = _logged(client, model) or _log_model(settings, workspace)
    try:
        client.create_registered_model(MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    logged = client.get_logged_model(model_id)
    return client.create_model_version(
        MODEL,
        source=logged.model_uri,
        run_id=logged.source_run_id,
        model_id=model_id,
        tags={
            "digest": model.digest,
            SOURCE: _source(settings),
            "taxi": model.taxi,
            "preset": model.preset,
            "train_months": " ".join(model.train_months),
            "validation_months": " ".join(settings.data.validation),
            "test_months": " ".join(settings.data.test),
            "git.commit": f"{made.commit}{'-dirty' if made.changed else ''}",
            "settings": made.settings,
            "params": json.dumps(made.booster, sort_keys=True),
        },
    )


def _logged(client: "MlflowClient", model: Served) -> str | None:
    """The id of the logged model that has these files, if the evaluate stage logged one."""
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    if experiment is None:
        return None
    tags = [f"tags.`dvc.models/{name}` = '{_md5(model.folder / name)}'" for name in FILES]
    runs = client.search_runs(
        [experiment.experiment_id],
        " and ".join(["attributes.status = 'FINISHED'", *tags]),
        order_by=["attributes.start_time DESC"],
    )
    for run in runs:
        for output in run.outputs.model_outputs if run.outputs else []:
            # MLflow takes models:/<id>/<file> for the name of a registered model.
            place = client.get_logged_model(output.model_id).artifact_location
            with tempfile.TemporaryDirectory() as folder:
                if _download(place, Path(folder)) == model.digest:
                    return str(output.model_id)
    return None


def _log_model(settings: "Params", workspace: Path) -> str:
    uri = tracking.log_model(
        [workspace / "models" / name for name in FILES],
        name=f"register {settings.data.span}",
        tags=tracking.tags("evaluate", months=settings.data.span, root=workspace),
    )
    if uri is None:
        raise TripDurationError(
            "MLflow did not take the model, so it is not registered: see the line above for why, "
            "and run the same command again."
        )
    return uri.removeprefix("models:/")


def _judges(settings: "Params") -> str:
    """What a model is judged by, beside the champion: a version's tag."""
    months = sorted(getattr(settings.data, settings.judged[-1]))
    return json.dumps({"months": months, **settings.promotion.model_dump()}, sort_keys=True)


def _is_due(client: "MlflowClient", version: "ModelVersion", judges: str) -> bool:
    """Whether a version was not judged yet, or would be judged by another rival or other rules."""
    tags = version.tags
    if PROMOTED not in tags:
        return True
    present = _aliased(client, CHAMPION)
    rival = None if present is None else str(present.version)
    if rival == str(version.version) or ROLLED_BACK in tags:
        return False
    return (tags.get("rival") or None, tags.get("judges")) != (rival, judges)


def _judge(
    client: "MlflowClient",
    root: Path,
    workspace: Path,
    model: Served,
    errors: Mapping[str, float],
    version: str,
    judges: str,
) -> None:
    """Judge a version beside the champion, and write down what follows from it."""
    settings = params.load(workspace / "params.yaml")
    present = _aliased(client, CHAMPION)
    rival = None if present is None or str(present.version) == version else _served(root, present)
    verdict = _verdict(settings, workspace, model, rival)
    if abs(verdict.rmse - errors["rmse"]) > SAME:
        raise TripDurationError(
            f"metrics/evaluation.json of {workspace} says an RMSE of {errors['rmse']:.3f} minutes "
            f"and its model has {verdict.rmse:.3f}: it is of another model; run `make train` again."
        )
    best = min(verdict.baselines.values())
    numbers = {"rmse": verdict.rmse, "baseline_rmse": best, "coverage": verdict.coverage}
    numbers |= {"width": verdict.width}
    tags = {name: f"{number:.6f}" for name, number in numbers.items()}
    beside = verdict.champion_rmse
    tags |= {
        "champion_rmse": "" if beside is None else f"{beside:.6f}",
        "judges": judges,
        "rival": rival.version if rival else "",
        "reasons": "; ".join(verdict.reasons),
        "notes": " ".join(verdict.notes),
        "verdict": json.dumps(verdict.to_json()),
    }
    changes: dict[str, dict[str, str | None]] = {}
    if verdict.promoted and rival is not None:
        tags |= {PREVIOUS: rival.version}
        changes[rival.version] = {ROLLED_BACK: None}  # if it was, it was made champion after that
    tags |= {PROMOTED: str(verdict.promoted).lower()}  # the last one: it says that all are there
    _write_down(
        root,
        champion=version if verdict.promoted else None,
        tags={**changes, version: dict(tags)},
        card={
            version: card(
                settings,
                origin(workspace),
                model.digest,
                verdict,
                errors,
                rival.version if rival else "",
            )
        },
        entry={
            "what": "promoted" if verdict.promoted else "kept",
            "version": version,
            "previous": rival.version if rival else None,
            "digest": model.digest,
            "reasons": list(verdict.reasons),
        },
    )


def _verdict(settings: "Params", workspace: Path, model: Served, rival: Served | None) -> Verdict:
    import pyarrow.parquet as pq

    split, data = settings.judged[-1], settings.data
    months = sorted(getattr(data, split))
    notes, champion = [], None
    if rival is not None and rival.taxi != data.taxi:
        notes.append(f"The champion was made for {rival.taxi} taxis.")
    if rival is not None and rival.preset != settings.features.preset:
        notes.append(
            f"The champion has the features {rival.preset}, and this model "
            f"{settings.features.preset}: where only one knows the metered distance, that one has "
            "the lower RMSE and not the better use."
        )
    if rival is not None:
        try:
            champion = prediction.load(rival.folder)
        except TripDurationError as error:  # made by other code: it cannot be served either
            notes.append(f"The champion, version {rival.version}, is not compared with: {error}")
    calibrates = None
    if split == "validation":
        every = settings.intervals.calibration_every
        notes.append(
            f"Judged on validation months; every {every} of their days, which calibrate the "
            "intervals, are left out of the coverage."
        )

        def calibrates(day: "np.ndarray") -> "np.ndarray":
            return splits.calibrates(day, data.validation, every)

    zones = pq.read_table(workspace / "data/zones.parquet", columns=["zone", "borough"])
    return gate.judge(
        prediction.load(model.folder),
        champion,
        Baselines.from_json(read_json(workspace / "models/baselines.json")),
        {month: month_path(workspace / "data/trips", data.taxi, month) for month in months},
        settings.promotion,
        boroughs={row["zone"]: row["borough"] for row in zones.to_pylist() if row["borough"]},
        calibrates=calibrates,
        learned=rival.train_months if rival else (),
        notes=notes,
    )


# -- the way back --------------------------------------------------------------------------------


@dataclass(frozen=True)
class RolledBack:
    """What `rollback` did.

    Attributes
    ----------
    version : str
        The champion now.
    previous : str
        The champion before, which was taken back.
    """

    version: str
    previous: str


def rollback(root: str | Path) -> RolledBack:
    """Make the champion before the present one champion again; done twice, the one before that.

    Where a kill cut a rollback short, it is ended, and no other is begun.

    Parameters
    ----------
    root : str or Path
        The repository whose registry it is.

    Raises
    ------
    TripDurationError
        If there is none before it, or its files are not there any more.
    """
    root = Path(root)
    with _alone(root), _registry(root) as client:
        done = None if client is None else _finish(client, root)
        if done is not None and done["what"] == BACK:
            return RolledBack(version=done["version"], previous=done["previous"])
        present = None if client is None else _aliased(client, CHAMPION)
        if client is None or present is None:
            raise TripDurationError(
                "There is no champion to roll back: `make register` registers the model."
            )
        target = _before(client, present)
        _fetched(root, target)
        before = str(target.version)
        _write_down(
            root,
            champion=before,
            tags={str(present.version): {ROLLED_BACK: _now()}},
            card={},
            entry={
                "what": BACK,
                "version": before,
                "previous": str(present.version),
                "digest": target.tags["digest"],
                "reasons": [],
            },
        )
        _finish(client, root)
        return RolledBack(version=before, previous=str(present.version))


def _before(client: "MlflowClient", present: "ModelVersion") -> "ModelVersion":
    """The last champion before a version that was not itself rolled back."""
    version, seen = present, {str(present.version)}
    while (before := version.tags.get(PREVIOUS)) is not None and before not in seen:
        seen.add(before)
        found = _version(client, before)
        if found is None:
            raise TripDurationError(
                f"Version {before}, the champion before version {version.version}, is no longer in "
                "the registry: give the alias champion to another in MLflow's pages (`make ui`)."
            )
        version = found
        if ROLLED_BACK not in version.tags:
            return version
    raise TripDurationError(
        f"Version {present.version} has no champion before it to go back to: it stays."
    )


# -- changes that a kill cannot cut short --------------------------------------------------------


def journal(root: str | Path) -> list[dict[str, Any]]:
    """What was promoted, kept and rolled back, from the first on.

    Each has ``time`` (UTC), ``what``, ``version``, ``previous``, ``digest`` and ``reasons``; a line
    that a kill cut short is passed over.
    """
    try:
        lines = (Path(root) / JOURNAL).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def _write_down(
    root: Path,
    *,
    champion: str | None,
    tags: dict[str, dict[str, str | None]],
    card: dict[str, str],
    entry: dict[str, Any],
) -> None:
    """What is to be done, before it is: `_finish` does it."""
    entry = {"time": _now(), **entry}
    todo = {"champion": champion, "tags": tags, "card": card, "entry": entry}
    write_json(todo, _pending(root))


def _pending(root: Path) -> Path:
    """Where a change of this registry is written down."""
    return root / FOLDER / f"promotion-{_store()}.json"


def _finish(client: "MlflowClient", root: Path) -> dict[str, Any] | None:
    """Do what is written down, and give its line in the journal; None if there is nothing to do.

    Each step may be done twice, and a version may be gone by now.
    """
    pending = _pending(root)
    if not pending.exists():
        return None
    todo = read_json(pending)
    for version, text in todo["card"].items():
        if _version(client, version) is not None:
            client.update_model_version(MODEL, version, text)
    for version, tags in todo["tags"].items():
        for name, value in tags.items() if _version(client, version) is not None else ():
            if value is None:
                client.delete_model_version_tag(MODEL, version, name)
            else:
                client.set_model_version_tag(MODEL, version, name, value)
    if todo["champion"] and _version(client, todo["champion"]) is not None:
        client.set_registered_model_alias(MODEL, CHAMPION, todo["champion"])
    if todo["entry"] not in journal(root):
        _append(root / JOURNAL, todo["entry"])
    pending.unlink()
    return dict(todo["entry"])


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line, on the disk when it returns; one that a kill cut short is ended first."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _version(client: "MlflowClient", version: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(MODEL, version)
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    with locked(root / FOLDER / "registry.lock"):
        yield


# -- following the champion ----------------------------------------------------------------------


def follow(
    root: str | Path,
    seconds: float,
    say: Callable[[str], object],
    stop: threading.Event | None = None,
) -> Iterator[Served]:
    """Give the model that is to be served, at once and whenever it becomes another.

    That is the champion, else the model in ``models/`` once a run of the pipeline has ended.
    A registry that does not answer changes nothing, and is asked again; where it does not answer
    at first, it is the champion that was found last, else the model in ``models/``.

    Parameters
    ----------
    root : str or Path
        The repository's folder.
    seconds : float
        Between two looks.
    say : callable
        Takes a sentence when following begins to fail, after the model that is served meanwhile was
        given, and an empty one once it works again.
    stop : threading.Event, optional
        Ends it.

    Raises
    ------
    TripDurationError
        If there is no model at first.
    """
    root, stop = Path(root), stop or threading.Event()
    served: Served | None = None
    failed = ""
    while not stop.is_set():
        try:
            found, trouble = _current(root, served), ""
        except TripDurationError as error:
            last = served or _remembered(root) or _whole(root)
            if last is None:
                raise
            found, trouble = last, str(error)
        if found != served:
            served = found
            yield found
        if trouble != failed:
            say(trouble and f"{trouble} Until then it is {found.version} that is served.")
        failed = trouble
        stop.wait(seconds)


def _current(root: Path, served: Served | None) -> Served:
    """As `chosen`, with as little work as it takes to see that it is still the same."""
    if served is None:
        return chosen(root)
    with _registry(root) as client:
        version = None if client is None else _aliased(client, CHAMPION)
        if version is not None:
            same = (str(version.version), version.tags.get("digest"))
            if same == (served.version, served.digest):
                return served
            return _remember(root, _served(root, version))
    return _whole(root) or served


def _whole(root: Path) -> Served | None:
    found = local(root)
    return found if found is not None and _is_whole(root) else None


def _is_whole(root: Path) -> bool:
    """Whether the files in models/ belong together: not while a run is replacing them.

    ``dvc.lock`` says what features the booster was trained on, and which files came out.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        stages = YAML(typ="safe", pure=True).load(root / "dvc.lock")["stages"]
        known = {
            file["path"]: file["md5"] for name in ("deps", "outs") for file in stages["train"][name]
        }
        return all(known[f"models/{name}"] == _md5(root / "models" / name) for name in FILES)
    except FileNotFoundError:
        return not (root / "dvc.lock").exists()
    except (KeyError, TypeError, ValueError, YAMLError):
        return False


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _follow(root: str, seconds: str) -> int:
    """Print what `follow` gives, line by line as JSON, until stdin closes or the parent is gone.

    What it says is printed as well, as ``trouble``.
    """
    from trip_duration.interrupts import end_with

    end_with(os.getppid())

    def wait() -> None:
        while sys.stdin.buffer.read(1):
            pass
        os._exit(0)

    def tell(what: dict[str, Any]) -> None:
        print(json.dumps(what), flush=True)

    try:
        following = follow(root, float(seconds), lambda trouble: tell({"trouble": trouble}))
        for number, served in enumerate(following):
            tell(served.to_json())
            if number == 0:
                threading.Thread(target=wait, name="stdin", daemon=True).start()
    except TripDurationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["follow", root, seconds]:
            sys.exit(_follow(root, seconds))
        case _:
            sys.exit("expected: python -m trip_duration.registry follow ROOT SECONDS")
