"""``make serve``: the model as an HTTP service, until Ctrl-C or SIGTERM."""

import os
from pathlib import Path

__all__ = ["serve_model"]


def serve_model(root: Path) -> int:
    """Serve the registry's champion, or ``models/`` where there is none.

    Parameters
    ----------
    root : Path
        The repository's folder.

    Returns
    -------
    int
        The exit code, 0: it was asked to end.

    Raises
    ------
    SettingsError
        If params.yaml is wrong.
    TripDurationError
        If the port is taken, or there is no model.
    """
    # XGBoost predicts lists in one thread: the other cores answer other requests. OpenMP reads it
    # when it is loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from service.server import run
    from trip_duration import orchestration, params

    settings = params.load(root / "params.yaml").serve
    os.environ.update(orchestration.environment(root))  # where the registry is
    run(root, settings)
    return 0
