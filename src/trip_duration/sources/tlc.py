"""TLC's own files over HTTP: where they are, and one careful attempt to fetch one.

TLC answers 403 both when it throttles and when a month is not published, so only patience tells
them apart: `download` makes one attempt and says whether another may help, whoever calls it (a
Prefect task with retries) waits and tries again, and `not_published` is what to say in the end.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trip_duration.errors import SourceError
from trip_duration.files import read_json, sha256, write_json
from trip_duration.months import parse_month

if TYPE_CHECKING:
    import requests

__all__ = ["download", "lookup_url", "not_published", "unchanged", "url", "zones_url"]

BASE = "https://d37ci6vzurychx.cloudfront.net"
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of a file

_CHUNK = 1 << 16  # bytes; what a broken connection loses at most
_MAGIC = {".parquet": b"PAR1", ".zip": b"PK\x03\x04"}
_BUSY = {403, 408, 425, 429}  # and all 5xx: the same request may succeed later


def url(taxi: str, month: str) -> str:
    """Address of a month of trips; ``TRIP_DURATION_TLC_BASE`` in the environment moves its root."""
    parse_month(month)
    return f"{_base()}/trip-data/{taxi}_tripdata_{month}.parquet"


def zones_url() -> str:
    """Address of the zones' shapes, a zipped shapefile."""
    return f"{_base()}/misc/taxi_zones.zip"


def lookup_url() -> str:
    """Address of the zones' boroughs and names, a CSV file."""
    return f"{_base()}/misc/taxi_zone_lookup.csv"


def not_published(taxi: str, month: str) -> SourceError:
    """Say that a month cannot be had, once all retries have failed."""
    return SourceError(
        f"TLC does not give the {taxi} trips of {month}: it publishes about two months late and "
        "answers 403 both when it throttles and when a month is not there yet, so try again in an "
        "hour, or choose earlier months in data.train, data.validation and data.test."
    )


def download(
    url: str,
    path: str | Path,
    *,
    progress: bool = True,
    timeout: float | tuple[float, float] = TIMEOUT,
) -> None:
    """Make one attempt to fetch a file; what broke off is continued by the next attempt.

    The bytes go to ``.<name>.download`` beside ``path``. An attempt that finds some there asks for
    the rest, if the server has named a version (a strong ETag) and still has that one. The file is
    renamed to ``path`` when its length and, for Parquet and zip, its first and last bytes are
    right; ``<name>.json`` beside it then says which version it is, for `unchanged`.

    Parameters
    ----------
    url : str
        What to fetch.
    path : str or Path
        Where to put it; its folder is made.
    progress : bool
        Whether to draw a bar on standard error, if that is a terminal.
    timeout : float or (float, float)
        Seconds to connect, and to wait for the next bytes.

    Raises
    ------
    SourceError
        Transient (with ``retry_after`` where the server named a time) on 403, 408, 425, 429 and
        5xx, when the connection is refused, breaks or stalls, and when the file comes short; not so
        on other answers, and when what comes is a web page or no file of its kind.
    """
    import requests

    path = Path(path)
    partial = path.with_name(f".{path.name}.download")
    note = path.with_name(f".{path.name}.download.json")
    start, version = _started(partial, note)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            if response.status_code in (206, 416) and not _continues(response, start, version):
                _forget(partial, note)
                raise SourceError(
                    f"{url} changed while it was fetched: try again, from its beginning.",
                    transient=True,
                )
            _refuse(url, response)
            if response.status_code != 206:
                start = 0  # the whole file: it is another one, or the server knows no ranges
                _forget(partial, note)
            length = _length(response)
            etag = response.headers.get("ETag", "")
            write_json({"etag": etag, "length": length}, note)
            _stream(response, partial, start, length, path.name if progress else None)
    except requests.RequestException as error:
        raise _unreachable(url, error) from error
    except OSError as error:
        raise SourceError(
            f"{path} could not be written ({error.strerror or error}): free some space, or allow "
            "this folder to be written to."
        ) from error
    _finish(url, partial, note, path, etag, length)


def unchanged(url: str, path: str | Path, timeout: float | tuple[float, float] = TIMEOUT) -> bool:
    """Whether ``path`` is whole and still what the server has, so that no download is needed.

    Raises
    ------
    SourceError
        If the server cannot be asked, as for `download`.
    """
    import requests

    path = Path(path)
    note = _note(path)
    if not (path.is_file() and note.is_file()):
        return False
    known = read_json(note)
    if not known["etag"] or known["sha256"] != sha256(path):
        return False
    headers = {"Accept-Encoding": "identity"}
    try:
        with requests.head(url, headers=headers, timeout=timeout, allow_redirects=True) as response:
            _refuse(url, response)
            there = {"etag": response.headers.get("ETag"), "length": _length(response)}
    except requests.RequestException as error:
        raise _unreachable(url, error) from error
    return there == {"etag": known["etag"], "length": known["length"]}


def _base() -> str:
    return os.environ.get("TRIP_DURATION_TLC_BASE", BASE).rstrip("/")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _started(partial: Path, note: Path) -> tuple[int, str]:
    """How many bytes are there, and of which version; 0 where they cannot be continued."""
    if not (partial.is_file() and note.is_file()):
        return 0, ""
    known = read_json(note)
    size = partial.stat().st_size
    # Only a strong ETag promises the same bytes (RFC 9110, 8.8.1).
    strong = known["etag"].startswith('"')
    return (size, known["etag"]) if strong and size < (known["length"] or 0) else (0, "")


def _continues(response: "requests.Response", start: int, version: str) -> bool:
    first = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return first and response.headers.get("ETag") == version


def _length(response: "requests.Response") -> int | None:
    """The length of the whole file, if the server says it."""
    if response.status_code == 206:
        length = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        length = response.headers.get("Content-Length", "")
    as_it_is = response.headers.get("Content-Encoding", "identity") == "identity"
    return int(length) if length.isdecimal() and as_it_is else None


def _refuse(url: str, response: "requests.Response") -> None:
    status = response.status_code
    if status < 400:
        if "text/html" in response.headers.get("Content-Type", ""):
            raise _no_data(url)
        return
    transient = status in _BUSY or status >= 500
    advice = {
        403: "it is throttled or not published yet; wait and try again",
        404: "there is no such file; check data.taxi and the month",
    }.get(status, "wait and try again" if transient else "check the address")
    raise SourceError(
        f"{url} was refused with the status {status}: {advice}.",
        transient=transient,
        retry_after=_retry_after(response),
        status=status,
    )


def _no_data(url: str) -> SourceError:
    return SourceError(
        f"{url} gave a web page in place of data: open it in a browser to see whether a proxy or a "
        "login is in the way."
    )


def _retry_after(response: "requests.Response") -> float | None:
    """Seconds to wait, which a server writes as such or as a date (RFC 9110, 10.2.3)."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _stream(
    response: "requests.Response", partial: Path, start: int, length: int | None, name: str | None
) -> None:
    """Append the body to what is there, and force it to the disk."""
    from tqdm import tqdm

    bar: Any = tqdm(
        total=length,
        initial=start,
        desc=name,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=None if name else True,  # None: silent where standard error is no terminal
        leave=False,
    )
    with bar, partial.open("ab" if start else "wb") as file:
        try:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        finally:  # what is continued later must be on the disk
            file.flush()
            os.fsync(file.fileno())


def _finish(url: str, partial: Path, note: Path, path: Path, etag: str, length: int | None) -> None:
    """Check the bytes, then give them their name and note their version."""
    size = partial.stat().st_size
    if length is not None and size < length:
        raise SourceError(
            f"{url} came short: {size} bytes of {length}; try again, the rest will be fetched.",
            transient=True,
        )
    with partial.open("rb") as file:
        head = file.read(64)
        file.seek(max(0, size - 4))
        tail = file.read()
    magic = _MAGIC.get(path.suffix, b"")
    page = head.lstrip().startswith(b"<")
    footer = tail == magic if path.suffix == ".parquet" else True
    if page or not size or not head.startswith(magic) or not footer or size != (length or size):
        _forget(partial, note)
        if page:
            raise _no_data(url)
        raise SourceError(
            f"{url} gave {size} bytes that begin with {head[:4]!r} and end with {tail!r}: expected "
            f"a whole {path.suffix.lstrip('.') or 'data'} file; check the address."
        )
    known = {"etag": etag, "length": size, "sha256": sha256(partial)}
    partial.replace(path)
    write_json(known, _note(path))
    _forget(note)


def _forget(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _unreachable(url: str, error: "requests.RequestException") -> SourceError:
    import requests

    cause: BaseException = error
    while deeper := cause.__cause__ or cause.__context__:  # requests wraps the reason thrice
        cause = deeper
    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return SourceError(
        f"{url} could not be fetched ({str(cause) or type(cause).__name__}): check the network and "
        "try again.",
        transient=isinstance(error, broken),
    )
