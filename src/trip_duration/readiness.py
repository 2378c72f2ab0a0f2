"""What can be known before anything runs, but not from ``params.yaml`` alone."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trip_duration.params import Params

__all__ = ["check"]


def check(params: "Params") -> None:
    """Refuse columns that are no features, and a device that is not here.

    What is needed for it is imported only where a setting asks for it.

    Raises
    ------
    TripDurationError
        One sentence that names the setting.
    """
    if params.features.preset == "custom":
        from trip_duration import features

        features.check(params.features.categorical, params.features.numerical)
    if params.train.device != "cpu":
        from trip_duration import training

        training.check_device(params.train.device)
