"""The monthly runs of past months, one after another, as if each had run on its day."""

from collections.abc import Mapping

from prefect import State
from prefect.states import Completed

from flows.retrain import ROOT, retrain
from trip_duration import registry, retraining
from trip_duration.errors import TripDurationError
from trip_duration.orchestration import stage_flow
from trip_duration.params import Data
from trip_duration.params import load as load_params

__all__ = ["backfill"]


@stage_flow("backfill", lambda first, last: f"{first} … {last}")
def backfill(first: str, last: str) -> State:
    """Run `retrain` for the 15th of each month, in order.

    A month whose model is registered and judged, and learned from the present ``data.source`` and
    ``data.taxi``, is not run again, so what was stopped is continued.

    Parameters
    ----------
    first, last : str
        Months of the runs' dates, ``YYYY-MM``; both are run.

    Raises
    ------
    TripDurationError
        If a run fails, or its months are not out; those before it are kept.
    """
    dates = retraining.dates(first, last)
    data, there = load_params(ROOT / "params.yaml").data, 0
    for number, date in enumerate(dates):
        counted = f"backfill {number + 1} of {len(dates)}"
        tags = registry.tags_of(ROOT, f"model-{date}")
        again = _why_again(tags, data) if tags else ""
        if tags and not again:
            there += 1
            done = f"model-{date} is registered and judged, so it is not run again"
            print(f"{counted}: {done}", flush=True)
            continue
        print(f"{counted}: {date}, again: {again}" if again else f"{counted}: {date}", flush=True)
        state = retrain(str(date), return_state=True)
        if state.name == "Waiting":
            raise TripDurationError(
                f"{state.message}, which the run for {date} needs: the runs before it are kept, "
                "and the same command goes on from there."
            )
        state.result()  # raises what the run did
    ran = len(dates) - there
    return Completed(message=f"{dates[0]} to {dates[-1]}: {ran} run, {there} there already")


def _why_again(tags: Mapping[str, str], data: Data) -> str:
    """Why a month is run again whose version has these tags; empty where it is not."""
    if registry.PROMOTED not in tags:
        return "it was not judged"
    return ", ".join(retraining.other_data(tags, data, ROOT))
