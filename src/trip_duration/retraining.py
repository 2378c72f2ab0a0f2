"""The monthly run's decisions: which months, whether they are out and sound, and which way it goes.

All of it is plain functions of what was found; `flows.retrain` asks, runs and records. The months
are those of the course: train on the month two before a date, validate on the one before it.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from trip_duration.errors import SettingsError, SourceError
from trip_duration.months import parse_month
from trip_duration.params import Data, Retrain
from trip_duration.sources import files, tlc
from trip_duration.workspace import absolute

__all__ = [
    "DEPLOYMENT",
    "NEW_YORK",
    "Plan",
    "Way",
    "choose_way",
    "dates",
    "is_out",
    "other_data",
    "parse_date",
    "plan",
    "settings",
    "unsound",
]

DEPLOYMENT = "retrain/monthly"  # of prefect.yaml
NEW_YORK = ZoneInfo("America/New_York")
EXAMPLE = "2021-03-15"


@dataclass(frozen=True)
class Plan:
    """The months of one monthly run.

    Attributes
    ----------
    date : datetime.date
        The date that the run is for: its model is ``model-<date>``.
    train, validation, test : tuple of str
        Months, in the order of time; the model is tested on the validation months where ``test``
        is empty.
    """

    date: dt.date
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...] = ()

    @property
    def months(self) -> tuple[str, ...]:
        """All of them, in the order of time."""
        return (*self.train, *self.validation, *self.test)

    @property
    def aliases(self) -> tuple[str, str]:
        """What the course calls the model and what turns trips into its columns."""
        return f"model-{self.date}", f"dv-{self.date}"


def parse_date(text: str) -> dt.date:
    """Read ``"2021-03-15"``.

    Raises
    ------
    SettingsError
        If it is no such date.
    """
    try:
        return dt.datetime.strptime(text.strip(), "%Y-%m-%d").date()
    except (ValueError, AttributeError):
        raise SettingsError(
            f"{text!r} is no date: write it as YYYY-MM-DD, like {EXAMPLE}."
        ) from None


def plan(date: dt.date, chosen: Retrain, test: Sequence[str] = ()) -> Plan:
    """The months of the run for a date.

    Parameters
    ----------
    date : datetime.date
        Any day of its month gives the same months.
    chosen : Retrain
        How many months, and how much earlier.
    test : sequence of str
        Later months to test on; without any, the model is tested on the validation months.

    Raises
    ------
    SettingsError
        If a month lies before TLC's first, or a test month is not later than the validation's.
    """
    last = date.year * 12 + date.month - 1 - 1 - chosen.lag_months
    first = last - chosen.validation_months + 1
    validation = _months(first, chosen.validation_months)
    train = _months(first - chosen.train_months, chosen.train_months)
    for month in (*train[:1], *test):
        parse_month(month)
    late = tuple(sorted(set(test)))
    if late and late[0] <= validation[-1]:
        raise SettingsError(
            f"{late[0]} cannot test the run for {date}, which validates on {validation[-1]}: give "
            "later months, or none to test on the validation months."
        )
    return Plan(date, train, validation, late)


def _months(first: int, count: int) -> tuple[str, ...]:
    """So many months from one on, which is counted from the year 0."""
    return tuple(f"{n // 12:04d}-{n % 12 + 1:02d}" for n in range(first, first + count))


def dates(first: str, last: str) -> list[dt.date]:
    """The dates of the monthly runs from one month to another, as the schedule has them: the 15th.

    Raises
    ------
    SettingsError
        If one is no month, or the first comes after the last.
    """
    ends = [year * 12 + month - 1 for year, month in map(parse_month, (first, last))]
    if ends[0] > ends[1]:
        raise SettingsError(f"FROM is {first} and TO is {last}: expected FROM to come first.")
    return [dt.date(n // 12, n % 12 + 1, 15) for n in range(ends[0], ends[1] + 1)]


def is_out(data: Data, month: str) -> bool:
    """Whether the source has a month; nothing of it is fetched.

    Raises
    ------
    SourceError
        If the source cannot be asked; transient where another try may succeed.
    """
    if data.source == "simulated":
        return True
    if data.source == "tlc":
        url = tlc.url(data.taxi, month)
    else:
        url = files.resolve(data.source, data.taxi, month)
    if url.startswith(("http://", "https://")):
        return tlc.published(url)
    if "://" not in url and "::" not in url:
        return Path(url).expanduser().exists()

    import fsspec

    try:
        system, name = fsspec.url_to_fs(url)
        return bool(system.exists(name))
    except (ImportError, ValueError) as error:
        raise SourceError(f"{url} cannot be opened ({error}): correct data.source.") from None
    except Exception as error:  # each kind of store has errors of its own
        reason = str(error) or type(error).__name__
        raise SourceError(
            f"{url} could not be asked for ({reason}): try again, or correct data.source.",
            transient=True,
        ) from None


def unsound(ledger: Mapping[str, Any], months: Sequence[str], chosen: Retrain) -> list[str]:
    """What speaks against learning from these months, a sentence each; none where they are sound.

    Parameters
    ----------
    ledger : mapping
        What ``metrics/ingest.json`` holds.
    months : sequence of str
        The months to look at.
    chosen : Retrain
        The bounds.
    """
    found = []
    for month in months:
        counts = ledger["months"][month]
        read, kept = counts["read"], counts["kept"]
        if kept < chosen.fewest_trips:
            found.append(
                f"{month} keeps {kept:,} trips of {read:,}, fewer than retrain.fewest_trips "
                f"({chosen.fewest_trips:,})."
            )
        if kept < chosen.kept_share * read:
            reasons = sorted(counts["set_aside"].items(), key=lambda item: (-item[1], item[0]))
            most = ", ".join(f"{reason} {count:,}" for reason, count in reasons[:3])
            found.append(
                f"{month} keeps {kept / read:.0%} of {read:,} trips, less than retrain.kept_share "
                f"({chosen.kept_share:.0%}); set aside: {most}."
            )
    return found


@dataclass(frozen=True)
class Way:
    """Which way a run goes, and why.

    Attributes
    ----------
    kind : {"search", "refit"}
        Search the parameters again, or fit with those of the champion.
    reason : str
        For people.
    params : dict
        The champion's parameters, for a refit.
    """

    kind: Literal["search", "refit"]
    reason: str
    params: Mapping[str, Any]


def other_data(tags: Mapping[str, str], data: Data, root: Path) -> list[str]:
    """In what a version's data are not those of the settings, a phrase each.

    Parameters
    ----------
    tags : mapping
        The version's; what it has no tag for is not known, and no difference.
    data : Data
        The settings.
    root : Path
        The repository's folder, which paths of the settings begin at.
    """
    source = tags.get("source") or data.source
    pairs = {
        "source": (absolute(root, source), absolute(root, data.source)),
        "taxi": (tags.get("taxi") or data.taxi, data.taxi),
    }
    return [
        f"data.{name} was {was} and is {present}"
        for name, (was, present) in pairs.items()
        if was != present
    ]


def choose_way(
    params: Mapping[str, Any] | None, drift: Mapping[str, Any] | None, without: str = ""
) -> Way:
    """Search the parameters again, or keep the champion's.

    Parameters
    ----------
    params : mapping or None
        The champion's parameters of the booster; None where there is no champion.
    drift : mapping or None
        What `drift.compare` found of the newest month: its ``level`` (``none``, ``little`` or
        ``much``) and ``reasons``. None where there is nothing to compare with.
    without : str
        Why there is nothing, where there is a champion.
    """
    if params is None or drift is None:
        return Way("search", without or "there is no champion whose parameters could be kept", {})
    why = "; ".join(drift.get("reasons", ())) or "nothing stands out"
    if drift["level"] == "much":
        return Way(
            "search", f"{drift['month']} has drifted much from what the champion knows: {why}", {}
        )
    return Way(
        "refit", f"{drift['month']} has drifted {_how_far(drift['level'])}: {why}", dict(params)
    )


def _how_far(level: str) -> str:
    return "not at all" if level == "none" else level


def settings(plan: Plan, way: Way | None) -> dict[str, Any]:
    """The settings of a run's pipeline that differ from ``params.yaml``, by dotted key.

    Parameters
    ----------
    plan : Plan
        The months.
    way : Way, optional
        Left out, the months alone: enough to ingest them.
    """
    changed: dict[str, Any] = {
        "data.train": list(plan.train),
        "data.validation": list(plan.validation),
        "data.test": list(plan.test),
    }
    if not plan.test:  # the validation months judge, so they may choose nothing
        changed["train.stop_on"] = "inside"
    if way is not None and way.kind == "refit":
        changed |= {"search.max_evals": 0, "train.params": dict(way.params)}
    return changed
