"""Errors that are meant for a person: one sentence, no traceback."""

__all__ = ["SettingsError", "SourceError", "TripDurationError"]


class TripDurationError(Exception):
    """What was found, where, what was expected and what to do, in one sentence."""


class SettingsError(TripDurationError):
    """A key of ``params.yaml`` or of ``SET`` that cannot be used; the message names the key."""


class SourceError(TripDurationError):
    """A month that cannot be had from its source.

    Parameters
    ----------
    message : str
        The sentence for the person who meets it.
    transient : bool
        Whether the same request may succeed later: a retry is worth its wait.
    retry_after : float or None
        Seconds that the server asked us to wait, where it did.
    status : int or None
        The HTTP status that it answered with, where it did.

    Attributes
    ----------
    month : str or None
        Which month it was, where that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        transient: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after
        self.status = status
        self.month: str | None = None
