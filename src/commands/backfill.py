"""``make backfill``: the monthly runs of past months, in order."""

from pathlib import Path

from trip_duration import drift, interrupts, orchestration, params, readiness, retraining
from trip_duration.errors import SettingsError

__all__ = ["backfill"]


def backfill(root: Path, first: str, last: str) -> int:
    """Run the monthly runs of the dates from one month to another; what is done is not done again.

    The last line says how many were run, and how many were there already.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    TripDurationError
        If a run fails; those before it are kept.
    """
    if not first or not last:
        raise SettingsError(
            "FROM and TO are the months of the runs' dates: run "
            "`make backfill FROM=2021-03 TO=2021-08`."
        )
    retraining.dates(first.strip(), last.strip())
    readiness.check(params.load(root / "params.yaml"))
    drift.prepare(root)
    interrupts.listen()
    orchestration.begin(root)
    from flows.backfill import backfill as flow

    orchestration.ready()
    state = flow(first.strip(), last.strip(), return_state=True)
    state.result()
    print(state.message)
    return 0
