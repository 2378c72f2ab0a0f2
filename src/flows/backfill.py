"""The monthly runs of past months, one after another, as if each had run on its day."""

from prefect import State
from prefect.states import Completed

from flows.retrain import ROOT, retrain
from trip_duration import registry, retraining
from trip_duration.errors import TripDurationError
from trip_duration.orchestration import stage_flow

__all__ = ["backfill"]


@stage_flow("backfill", lambda first, last: f"{first} … {last}")
def backfill(first: str, last: str) -> State:
    """Run `retrain` for the 15th of each month, in order.

    A month whose model is registered is not run again, so what was stopped is continued.

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
    for number, date in enumerate(dates):
        counted = f"backfill {number + 1} of {len(dates)}"
        if registry.has_alias(ROOT, f"model-{date}"):
            print(f"{counted}: model-{date} is registered", flush=True)
            continue
        print(f"{counted}: {date}", flush=True)
        state = retrain(str(date), return_state=True)
        if state.name == "Waiting":
            raise TripDurationError(
                f"{state.message}, which the run for {date} needs: the runs before it are kept, "
                "and the same command goes on from there."
            )
        state.result()  # raises what the run did
    return Completed(message=f"{len(dates)} runs, {dates[0]} to {dates[-1]}")
