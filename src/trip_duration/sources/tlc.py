"""Files over HTTP: where TLC's are, and one careful attempt to fetch one from anywhere.

TLC answers 403 both when it throttles and when a month is not published, so only patience tells
them apart: `download` makes one attempt and says whether another may help, whoever calls it (a
Prefect task with retries) waits and tries again, and `not_published` is what to say in the end.

Proxies and certificates are those of the environment. Credentials are those that ``~/.netrc`` has
for the very host of an address; its default entry is for nobody, and none follow a redirect to
another host.
"""

import os
import re
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa

from trip_duration.errors import SettingsError, SourceError, holds_credentials
from trip_duration.files import read_json, sha256, write_json
from trip_duration.months import parse_month

if TYPE_CHECKING:
    import requests

__all__ = ["download", "lookup_url", "not_published", "published", "unchanged", "url", "zones_url"]

BASE = "https://d37ci6vzurychx.cloudfront.net"
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of a file
SLOWEST = (1 << 16, 60.0)  # a server that gives fewer bytes in so many seconds has stalled

_CHUNK = 1 << 16  # bytes; what a broken connection loses at most
_MAGIC = {".parquet": b"PAR1", ".zip": b"PK\x03\x04"}
_BUSY = {202, 403, 408, 425, 429}  # the same request may succeed later; and all 5xx but these:
_INCAPABLE = {501, 505}
_ABSENT = {403, 404, 410}
_STRONG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')  # RFC 9110, 8.8.3
_HOPS = 5  # redirects that are followed


class _Version(NamedTuple):
    """Which version of a file a server has."""

    etag: str
    modified: str
    length: int | None  # bytes of the whole file, if the server says it


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
    slowest: tuple[int, float] = SLOWEST,
) -> None:
    """Make one attempt to fetch a file; what broke off is continued by the next attempt.

    The bytes go to ``.<name>.download`` beside ``path``. An attempt that finds some there asks for
    the rest, if the server has named a version (a strong ETag) and still has that one. The file is
    renamed to ``path`` when its length is right and, for Parquet and zip, what its last bytes say
    of the rest; one of several pieces is read through, where it is Parquet. ``<name>.json`` beside
    it then says which version it is, for `unchanged`.

    Parameters
    ----------
    url : str
        What to fetch, by http or https.
    path : str or Path
        Where to put it; its folder is made.
    progress : bool
        Whether to draw a bar on standard error, if that is a terminal.
    timeout : float or (float, float)
        Seconds to connect, and to wait for the next bytes; all headers are there within their sum.
    slowest : (int, float)
        A server that gives fewer bytes than this within so many seconds has stalled.

    Raises
    ------
    SourceError
        Transient (with ``retry_after`` where the server named a time) on 202, 403, 408, 425, 429
        and 5xx, when the connection is refused, breaks or stalls, and when the file comes short or
        broken; not so on other answers, and when what comes is a web page or no file of its kind.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.download")
    note = path.with_name(f".{path.name}.download.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        start, known = _started(partial, note)
        headers = {"Range": f"bytes={start}-", "If-Range": known.etag} if start else {}
        with _answer("GET", url, timeout, headers) as response:
            if start and response.status_code in (206, 416):
                if not _continues(response, start, known):
                    _forget(partial, note)
                    raise SourceError(
                        f"{url} changed while it was fetched: try again, from its beginning.",
                        transient=True,
                    )
            else:
                start = 0
            _refuse(url, response, {200, 206} if start else {200})
            if not start:  # the whole file: it is another one, or the server knows no ranges
                _forget(partial, note)
            version = _version(response)
            write_json(version._asdict(), note)
            ends = _says_its_end(response)
            _stream(url, response, partial, start, version.length, slowest, progress and path.name)
        _check(url, partial, note, path.suffix, version.length, ends=ends, pieces=start > 0)
        found = version._replace(length=partial.stat().st_size)._asdict()
        found["sha256"] = sha256(partial)
        partial.replace(path)
        write_json(found, _note(path))
        _forget(note)
    except OSError as error:
        raise SourceError(
            f"{path} could not be written ({error.strerror or error}): free some space, or allow "
            "this folder to be written to."
        ) from error


def unchanged(url: str, path: str | Path, timeout: float | tuple[float, float] = TIMEOUT) -> bool:
    """Whether ``path`` is whole and still what the server has, so that no download is needed.

    False as well where the server names no version or does not answer such a question (HEAD).

    Raises
    ------
    SourceError
        If the server cannot be asked, as for `download`.
    """
    path = Path(path)
    known = _read_note(_note(path))
    if not path.is_file() or not known.get("etag") or known.get("sha256") != sha256(path):
        return False
    with _answer("HEAD", url, timeout, {}) as response:
        if response.status_code in (405, 501):
            return False
        _refuse(url, response, {200})
        there = _version(response)._asdict()
    said = {name: value for name, value in there.items() if value not in ("", None)}
    return "etag" in said and all(known.get(name, value) == value for name, value in said.items())


def published(url: str, timeout: float | tuple[float, float] = TIMEOUT) -> bool:
    """Whether a file is there, without fetching it; TLC says 403 of a month that is not out yet.

    Raises
    ------
    SourceError
        If the server cannot be asked, or gives another answer than yes or no; as for `download`.
    """
    for method in ("HEAD", "GET"):
        with _answer(method, url, timeout, {}) as response:
            if method == "HEAD" and response.status_code in (405, 501):
                continue  # it does not answer such a question; of a GET only the head is read
            if response.status_code in _ABSENT:
                return False
            _refuse(url, response, {200})
            return True
    raise AssertionError("a GET is answered or refused")


def _base() -> str:
    base = os.environ.get("TRIP_DURATION_TLC_BASE", BASE).rstrip("/")
    if holds_credentials(base):
        raise SettingsError(
            "TRIP_DURATION_TLC_BASE holds a password, a token or a signature: expected the plain "
            "URL, since it is written into metrics/ingest.json; put credentials into ~/.netrc."
        )
    return base


# -- what is there -------------------------------------------------------------------------------


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_note(note: Path) -> dict[str, Any]:
    """What a note says; nothing where there is none or it is damaged."""
    try:
        found = read_json(note)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _started(partial: Path, note: Path) -> tuple[int, _Version]:
    """How many bytes are there, and of which version; 0 where they cannot be continued."""
    found = _read_note(note)
    known = _Version(*(found.get(name) for name in _Version._fields))  # type: ignore[arg-type]
    size = partial.stat().st_size if partial.is_file() else 0
    # Only a strong ETag promises the same bytes (RFC 9110, 8.8.1).
    strong = isinstance(known.etag, str) and _STRONG.fullmatch(known.etag)
    whole = isinstance(known.length, int) and size < known.length
    return (size if strong and whole else 0), known


def _forget(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


# -- asking --------------------------------------------------------------------------------------


@contextmanager
def _answer(
    method: str, url: str, timeout: float | tuple[float, float], headers: dict[str, str]
) -> "Iterator[requests.Response]":
    """The answer to a request, its body still to be read."""
    import requests

    class Session(requests.Session):
        def rebuild_auth(
            self, prepared_request: requests.PreparedRequest, response: requests.Response
        ) -> None:
            """Take credentials away where a redirect leads to another host; find no others."""
            if self.should_strip_auth(str(response.request.url), str(prepared_request.url)):
                prepared_request.headers.pop("Authorization", None)

    given = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    with Session() as session:
        session.max_redirects = _HOPS
        with _asking(url, ValueError):  # ValueError: requests on some redirects to nonsense
            response = _within(
                sum(given),
                lambda: session.request(
                    method,
                    url,
                    headers={"Accept-Encoding": "identity", **headers},
                    auth=_credentials(url),
                    stream=True,
                    timeout=given,
                    allow_redirects=True,
                ),
            )
        with response:
            hops = [urlsplit(str(hop.url)).scheme for hop in (*response.history, response)]
            if "https" in hops and hops[-1] != "https":
                raise SourceError(
                    f"{url} was redirected from https to {hops[-1]}, where anybody on the way "
                    "could change it: check the address."
                )
            yield response


def _within(seconds: float, call: "Callable[[], requests.Response]") -> "requests.Response":
    """What a call gives, if it is there in time.

    A server that sends its headers byte by byte, or one redirect after another, keeps every
    timeout of a single read. Who is late goes on in a thread that nobody waits for.
    """
    import requests

    done: Future[requests.Response] = Future()

    def work() -> None:
        try:
            answer = call()
        except BaseException as error:
            if done.set_running_or_notify_cancel():
                done.set_exception(error)
        else:
            if done.set_running_or_notify_cancel():
                done.set_result(answer)
            else:
                answer.close()

    threading.Thread(target=work, name="asking", daemon=True).start()
    try:
        return done.result(timeout=seconds)
    except TimeoutError:
        if done.cancel():
            raise requests.Timeout(f"no answer within {seconds:g} s") from None
        return done.result()  # it came just now


def _credentials(url: str) -> Any:
    """For `requests`: what ~/.netrc has for this very host, or nothing at all."""
    import netrc

    try:
        path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        found = netrc.netrc(str(path)).hosts.get(urlsplit(url).hostname or "")
    except (OSError, ValueError, RuntimeError, netrc.NetrcParseError):
        found = None
    return (found[0], found[2]) if found else lambda request: request


@contextmanager
def _asking(url: str, *others: type[Exception]) -> Iterator[None]:
    """Say of a request that failed whether another may succeed.

    The errors themselves go no further: a proxy's may hold its password, and Prefect keeps what
    an error was raised from.
    """
    import http.client
    import ssl

    import requests
    from urllib3 import exceptions as urllib3

    failures: tuple[type[Exception], ...] = (requests.RequestException, urllib3.HTTPError, *others)
    try:
        yield
    except failures as error:
        cause: BaseException = error
        while deeper := _reason(cause):  # requests wraps it thrice
            cause = deeper
        broken = isinstance(
            error,
            requests.ConnectionError
            | requests.Timeout
            | requests.exceptions.ChunkedEncodingError
            | urllib3.ProtocolError
            | urllib3.TimeoutError
            | urllib3.SSLError,
        )
        # What is neither HTTP nor TLS, or has a wrong certificate, stays so.
        ended = http.client.IncompleteRead | http.client.RemoteDisconnected
        ended |= ssl.SSLEOFError | ssl.SSLZeroReturnError
        foreign = isinstance(cause, http.client.HTTPException | ssl.SSLError)
        transient = broken and (isinstance(cause, ended) or not foreign)
        at_proxy = isinstance(error, requests.exceptions.ProxyError)
        where = " at the proxy of HTTP_PROXY or HTTPS_PROXY" if at_proxy else ""
        advice = "check the network and try again" if transient else "check the address"
        raise SourceError(
            f"{url} could not be fetched ({_brief(cause)}{where}): {advice}.", transient=transient
        ) from None


def _reason(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _brief(error: BaseException) -> str:
    """An error's own words: a server may have put anything into them."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(letter if letter.isprintable() else "?" for letter in text).rstrip(".")
    return text if len(text) <= 160 else f"{text[:159]}…"


# -- what is answered ----------------------------------------------------------------------------


def _refuse(url: str, response: "requests.Response", expected: set[int]) -> None:
    status = response.status_code
    if status in expected:
        if "text/html" in response.headers.get("Content-Type", ""):
            raise _no_data(url)
        if _encoding(response) not in ("identity", "gzip"):
            raise SourceError(
                f"{url} came in the encoding {_encoding(response)[:20]!r}, which was not asked "
                "for: have the server give the file as it is."
            )
        return
    transient = status in _BUSY or (status >= 500 and status not in _INCAPABLE)
    gone = "there is no such file; check data.source, data.taxi and the month"
    advice = {
        206: "it gave a part that nobody asked for; check the address",
        401: "it asks for credentials; put those for this host into ~/.netrc",
        403: "it is throttled or not published yet; wait and try again",
        404: gone,
        407: "the proxy asks for credentials; put them into HTTP_PROXY or HTTPS_PROXY",
        410: gone,
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
        return min(float(text), 1e9)
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _encoding(response: "requests.Response") -> str:
    return response.headers.get("Content-Encoding", "").strip().lower() or "identity"


def _version(response: "requests.Response") -> _Version:
    headers = response.headers
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    else:
        length = headers.get("Content-Length", "")
    known = length.isdecimal() and len(length) < 19 and _encoding(response) == "identity"
    return _Version(
        headers.get("ETag", ""), headers.get("Last-Modified", ""), int(length) if known else None
    )


def _continues(response: "requests.Response", start: int, known: _Version) -> bool:
    """Whether the answer is the rest of that very version."""
    first = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    as_it_is = _encoding(response) == "identity"
    return response.status_code == 206 and first and as_it_is and _version(response) == known


def _says_its_end(response: "requests.Response") -> bool:
    """Whether a body that breaks off can be told from one that is over."""
    chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
    return chunked or response.headers.get("Content-Length", "").isdecimal()


def _stream(
    url: str,
    response: "requests.Response",
    partial: Path,
    start: int,
    length: int | None,
    slowest: tuple[int, float],
    name: str | bool,
) -> None:
    """Append the body to what is there, and force it to the disk."""
    from tqdm import tqdm

    bar: Any = tqdm(
        total=length,
        initial=start,
        desc=name or None,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=None if name else True,  # None: silent where standard error is no terminal
        leave=False,
    )
    packed = zlib.decompressobj(wbits=31) if _encoding(response) == "gzip" else None
    with bar, partial.open("ab" if start else "wb") as file, _asking(url, zlib.error):
        try:
            for chunk in _chunks(url, response, slowest):
                file.write(packed.decompress(chunk) if packed else chunk)
                bar.update(len(chunk))
        finally:  # what is continued later must be on the disk
            file.flush()
            os.fsync(file.fileno())
    if packed and not packed.eof:
        raise SourceError(
            f"{url} came short: its compressed bytes have no end; try again.", transient=True
        )


def _chunks(url: str, response: "requests.Response", slowest: tuple[int, float]) -> Iterator[bytes]:
    """The body as it comes: a larger read would wait for a server that trickles to fill it."""
    least, seconds = slowest
    began, came = time.monotonic(), 0
    while chunk := response.raw.read1(_CHUNK, decode_content=False):
        yield chunk
        came += len(chunk)
        now = time.monotonic()
        if now - began >= seconds:
            if came < least:
                raise SourceError(
                    f"{url} stalled: fewer than {least:,} bytes came in {seconds:g} s; try again, "
                    "the rest will be fetched.",
                    transient=True,
                )
            began, came = now, 0


# -- what has come -------------------------------------------------------------------------------


def _check(
    url: str,
    partial: Path,
    note: Path,
    suffix: str,
    length: int | None,
    *,
    ends: bool,
    pieces: bool,
) -> None:
    """Refuse bytes that are not all of a file of its kind; only what came short is kept."""
    size = partial.stat().st_size
    if length is not None and size < length:
        raise SourceError(
            f"{url} came short: {size} bytes of {length}; try again, the rest will be fetched.",
            transient=True,
        )
    try:
        _check_whole(url, partial, suffix, size, length, ends=ends, pieces=pieces)
    except SourceError:
        _forget(partial, note)
        raise


def _check_whole(
    url: str, partial: Path, suffix: str, size: int, length: int | None, *, ends: bool, pieces: bool
) -> None:
    with partial.open("rb") as file:
        head = file.read(64)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise _no_data(url)
    if not size or not head.startswith(_MAGIC.get(suffix, b"")):
        raise SourceError(
            f"{url} gave {size} bytes that begin with {head[:4]!r}: expected a "
            f"{suffix.lstrip('.') or 'data'} file; check the address."
        )
    kind = next((kind for kind, magic in _MAGIC.items() if head.startswith(magic)), "")
    if not kind and not ends:
        raise SourceError(
            f"{url} comes without its length, so that a broken connection looks like its end: have "
            "the server say the length, or give a Parquet file, which knows its own."
        )
    try:
        if length is not None and size > length:
            raise ValueError(f"{size} bytes of {length}")
        if kind == ".parquet":
            _check_parquet(partial, size, read_through=pieces)
        elif kind == ".zip":
            zipfile.ZipFile(partial).close()
    except (ValueError, OSError, pa.ArrowException, zipfile.BadZipFile) as error:
        raise SourceError(
            f"{url} came broken ({_brief(error)}): try again, from its beginning.", transient=True
        ) from None


def _check_parquet(path: Path, size: int, *, read_through: bool) -> None:
    """Raise ValueError, OSError or pyarrow's own unless the footer is whole and of this file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
        found = file.metadata
        for group in range(found.num_row_groups):
            for column in range(found.num_columns):
                part = found.row_group(group).column(column)
                start = part.dictionary_page_offset or part.data_page_offset
                if start < 4 or not 0 <= part.total_compressed_size <= size - start:
                    raise ValueError(f"the column {part.path_in_schema!r} is not all there")
        if read_through:
            for _ in file.iter_batches(1 << 16, use_threads=False):
                pass
