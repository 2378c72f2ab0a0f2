"""The service as a process: its socket, its ready line, and its end."""

import logging
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from service.app import app
from service.models import Models, command
from service.predictor import Predictor
from service.zone_map import zones
from trip_duration.errors import TripDurationError
from trip_duration.interrupts import listen

if TYPE_CHECKING:
    from trip_duration.params import Serve

__all__ = ["run"]

PAGE = Path(__file__).resolve().parent / "page"
GRACE = 20  # seconds that requests may take to end, once the service is asked to


def run(root: Path, settings: "Serve", models: Models | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that have begun are answered.

    Parameters
    ----------
    root : Path
        The repository's folder.
    settings : trip_duration.params.Serve
        Where to listen, and the service's limits.
    models : Models, optional
        What is served; by default the champion of the repository's registry.

    Raises
    ------
    TripDurationError
        If the port is taken, or there is no model at first.
    """
    import uvicorn

    from service.protocol import Protocol

    listen()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with _listening(settings.host, settings.port) as listener:
        models = models or Models(command(root, settings.poll_seconds))
        service = app(settings, models, lambda now: zones(root, now.model.builder.places), PAGE)
        # No lines of its own: what goes wrong is said by Guard.
        config = uvicorn.Config(
            service,
            loop="uvloop",
            http=Protocol,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        server = uvicorn.Server(config)
        address = _address(settings.host, settings.port)

        def announce(new: Predictor) -> None:
            if models.followed:
                print(f"{_name(new)} answers now.", flush=True)
            else:
                print(f"{address} answers with {_name(new)}; Ctrl-C ends it.", flush=True)

        def end_without_a_model() -> None:
            if not models.wait():
                server.should_exit = True

        try:
            models.changed = announce
            models.start()
            threading.Thread(target=end_without_a_model, name="first model", daemon=True).start()
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            print()
        finally:
            never = models.current is None and models.trouble
            models.stop()
    if never:
        raise TripDurationError(never)


def _name(predictor: Predictor) -> str:
    return f"model {predictor.served.version}"


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises
    ------
    TripDurationError
        If the port is taken, or the host is none of this machine's.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(kind, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1024)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise TripDurationError(
            f"The service can't listen at {_address(host, port)} ({error.strerror or error}): set "
            "serve.port, or serve.host, in params.yaml to one that is free on this machine."
        ) from None
    return listener


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
