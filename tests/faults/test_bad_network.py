"""A bad network.

A server on 127.0.0.1 answers in each of these ways. Whatever it does, a month is either there and
the very bytes of the good file, or not there (an earlier good copy then stays as it was); the next
run against an honest server fetches it whole. Requests are counted: what can pass is tried five
times, what cannot once. All is tried for `data.source: tlc` and for a URL of one's own, with and
without an earlier copy.
"""

import contextlib
import gc
import gzip
import io
import json
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.misbehaving import (
    OTHER,
    WHOLE,
    Answer,
    Answers,
    Server,
    certificate,
    chunked,
    file,
    free_port,
    hanging,
    parquet,
    reset,
    says,
    serving,
    status,
    then,
    trickling,
)
from tests.pipeline.conftest import Clone

from trip_duration import orchestration
from trip_duration.errors import SourceError
from trip_duration.orchestration import fetching, waiting_as_asked
from trip_duration.sources import files, tlc
from trip_duration.sources.simulated import SimulatedMonth


def zipped(body: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("trips"), body)
    return buffer.getvalue()


CUT = 1 << 17  # bytes after which a body breaks off
REST = f"bytes={CUT}-"
TRIES = 5
OLD = parquet(3)  # an earlier good copy

# WHOLE with a footer whose length is nonsense, whose own bytes are, or that speaks of bytes which
# are not there.
NONSENSE = WHOLE[:-8] + b"\xff\xff\xff\x7f" + b"PAR1"
SCRAMBLED = WHOLE[:-200] + bytes(192) + WHOLE[-8:]
BEYOND = WHOLE[:4] + WHOLE[-1000:]

CSV = b"pickup_datetime,dropoff_datetime\n" * 1000
ZIP, OTHER_ZIP = zipped(WHOLE), zipped(OLD)
GZIPPED = gzip.compress(WHOLE, mtime=0)
OK = "HTTP/1.1 200 OK"
SPLITS = ("train", "validation", "test")
LENGTH = f"Content-Length: {len(WHOLE)}"


@dataclass(frozen=True)
class Case:
    """What a server does, and what comes of it."""

    fault: str
    script: list[Answer]
    said: str = ""  # in the last sentence; where there is none, the file arrives
    tries: int = 1
    first: str = ""  # in the first sentence
    ranges: list[str | None] | None = None  # that the requests asked for
    waits: list[float] | None = None  # seconds that the server asked for
    suffix: str = ".parquet"
    limits: dict[str, Any] = field(default_factory=dict)  # of the try that meets the fault


def part(
    body: bytes = WHOLE, start: int = CUT, said: str = "", etag: str = '"one"', extra: str = "X: x"
) -> Answer:
    """A 206 that says and holds what it likes."""
    return says(
        "HTTP/1.1 206 Partial Content",
        f"Content-Range: {said or f'bytes {start}-{len(body) - 1}/{len(body)}'}",
        f"Content-Length: {len(body) - start}",
        f"ETag: {etag}",
        extra,
        body=body[start:],
    )


def to(place: str) -> Answer:
    return says("HTTP/1.1 302 Found", f"Location: {place}", "Content-Length: 0")


def seconds(wait: str) -> Answer:
    return status(429, Retry_After=wait)


def soon(request: Answers) -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    seconds(format_datetime(later, usegmt=True))(request)


CUT_ONCE = file(cut=CUT)
SILENCE = [
    Case(
        "hangs before its headers",
        [hanging, file()],
        tries=2,
        first="timed out",
        limits={"timeout": (10.0, 0.4)},
    ),
    Case(
        "hangs in the body",
        [then(CUT_ONCE, hanging), file()],
        tries=2,
        first="timed out",
        ranges=[None, REST],
        limits={"timeout": (10.0, 1.0)},
    ),
    Case(
        "trickles its headers for ever",
        [trickling(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10**4, 1, 0.02, headers=False), file()],
        tries=2,
        first="no answer within 2 s",
        limits={"timeout": (1.0, 1.0)},
    ),
    Case(
        "trickles the body for ever",
        [trickling(WHOLE, 1, 0.02), file()],
        tries=2,
        first="stalled: fewer than 1,000 bytes came in 0.2 s",
        limits={"slowest": (1000, 0.2)},
    ),
    Case(
        "is slow, but goes on",
        [trickling(WHOLE, 1 << 13, 0.01)],
        ranges=[None],
        limits={"slowest": (1000, 0.2)},
    ),
]
REFUSALS = [
    Case("401", [status(401)], "401: it asks for credentials; put those for this host into"),
    Case("403 at each try", [status(403)], "403: it is throttled or not published", TRIES),
    Case("403, then the file", [status(403), file()], tries=2),
    Case("404", [status(404)], "404: there is no such file; check data.source"),
    Case("407", [status(407)], "407: the proxy asks for credentials"),
    Case("408, then the file", [status(408), file()], tries=2),
    Case("410", [status(410)], "410: there is no such file"),
    Case("416 that nobody asked for", [status(416)], "416: check the address"),
    Case("429, Retry-After 7", [seconds("7"), file()], tries=2, waits=[7]),
    Case("429, Retry-After a date", [soon, file()], tries=2, waits=[90]),
    Case(
        "429, Retry-After a date long ago",
        [seconds("Wed, 21 Oct 2015 07:28:00 GMT"), file()],
        tries=2,
        waits=[],
    ),
    Case("429, Retry-After 99999", [seconds("99999")], "it asks for 1,667 minutes without another"),
    Case("429, Retry-After of 400 digits", [seconds("9" * 400)], "it asks for 16,666,667 minutes"),
    Case("429, Retry-After -5", [seconds("-5"), file()], tries=2, waits=[]),
    Case("429, Retry-After garbage", [seconds("soon, \xff"), file()], tries=2, waits=[]),
    *(Case(f"{code}, then the file", [status(code), file()], tries=2) for code in (500, 502, 504)),
    Case("503 at each try", [status(503)], "503: wait and try again", TRIES),
    Case("501", [status(501)], "501: check the address"),
    Case("202, it is being made", [status(202, b"soon"), file()], tries=2),
    Case("204", [says("HTTP/1.1 204 No Content")], "204: check the address"),
    Case("304 that nobody asked for", [says("HTTP/1.1 304 Not Modified")], "304: check the addr"),
    Case("redirects to itself", [to("/trips.parquet")], "Exceeded 5 redirects): check the address"),
    Case("redirects to another path", [to("/moved.parquet"), file()]),
    Case("redirects to file:///etc/passwd", [to("file:///etc/passwd")], "file:///etc/passwd"),
    Case("redirects to ftp", [to("ftp://127.0.0.1/x")], "No connection adapters"),
    Case("redirects to the port 99999", [to("http://127.0.0.1:99999/")], "check the address"),
    Case("redirects to nonsense", [to("http://[::1/x")], "check the address"),
]
LENGTHS = [
    Case("cuts the body", [CUT_ONCE, file()], "", 2, "IncompleteRead", [None, REST]),
    Case(
        "cuts the body three times",
        [CUT_ONCE, file(cut=1000), file(cut=1000), file()],
        tries=4,
        ranges=[None, REST, f"bytes={CUT + 1000}-", f"bytes={CUT + 2000}-"],
    ),
    Case("cuts the body at each try", [file(cut=1000)], "IncompleteRead", TRIES),
    Case("cuts it, knows no ranges", [file(cut=CUT, ranges=False), file(ranges=False)], tries=2),
    Case(
        "cuts a body without a length",
        [says(OK, body=WHOLE[:CUT]), file()],
        "",
        2,
        "came broken",
        [None, None],
    ),
    Case("a whole body without a length", [says(OK, body=WHOLE)]),
    Case(
        "cuts a CSV without a length",
        [says(OK, body=CSV[:500])],
        "comes without its length, so that a broken connection looks like its end",
        suffix=".csv",
    ),
    Case("cuts in a chunk", [chunked(WHOLE[:CUT], ends=False), file()], "", 2, "IncompleteRead"),
    Case("a CSV cut in a chunk", [chunked(CSV[:99], ends=False)], "Incompl", TRIES, suffix=".csv"),
    Case("sends one chunk", [chunked(WHOLE)]),
    Case(
        "garbage in place of a chunk",
        [says(OK, "Transfer-Encoding: chunked", body=b"zz\r\nx"), file()],
        tries=2,
    ),
    Case("resets in the body", [then(CUT_ONCE, reset), file()], tries=2),
    Case(
        "says too great a length",
        [says(OK, f"Content-Length: {len(WHOLE) + 9}", body=WHOLE)],
        "9 more expected",
        TRIES,
    ),
    Case(
        "says too small a length",
        [says(OK, "Content-Length: 999", body=WHOLE), file()],
        "",
        2,
        "came broken",
    ),
    Case("says two lengths", [says(OK, LENGTH, "Content-Length: 5", body=WHOLE)], "check the add"),
    Case("says the length 'abc'", [says(OK, "Content-Length: abc", body=WHOLE)]),
    Case("says a length of 5000 digits", [says(OK, f"Content-Length: {'9' * 5000}", body=WHOLE)]),
    Case("says the length -1", [says(OK, "Content-Length: -1", body=WHOLE)]),
]
VERSIONS = [
    Case("a weak ETag", [file(etag='W/"one"', cut=CUT), file()], "", 2, ranges=[None, None]),
    Case("no ETag", [file(etag="", cut=CUT), file()], "", 2, ranges=[None, None]),
    Case(
        "an ETag of two lines",
        [says(OK, 'ETag: "a', ' b"', LENGTH, body=WHOLE[:CUT]), file()],
        tries=2,
        ranges=[None, None],
    ),
    Case(
        "changes, and honours If-Range",
        [file(OTHER, '"old"', cut=CUT), file()],
        tries=2,
        ranges=[None, REST],
    ),
    Case(
        "changes, and ignores If-Range",
        [file(OTHER, '"old"', CUT), part(), file()],
        tries=3,
        ranges=[None, REST, None],
    ),
    Case(
        "another length under the same ETag",
        [file(OTHER[:-9], cut=CUT), part(), file()],
        tries=3,
        ranges=[None, REST, None],
    ),
    Case(
        "another date under the same ETag",
        [CUT_ONCE, part(extra="Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT"), file()],
        tries=3,
        ranges=[None, REST, None],
    ),
    Case(
        "other bytes under the same ETag",
        [file(OTHER[:CUT] + WHOLE[CUT:], cut=CUT), file(), file()],
        tries=3,
        ranges=[None, REST, None],
    ),
    Case("a range that starts elsewhere", [CUT_ONCE, part(start=CUT + 9), file()], tries=3),
    Case("a range of garbage", [CUT_ONCE, part(said="x"), file()], tries=3),
    Case("a range with no whole length", [CUT_ONCE, part(said=f"bytes {CUT}-/*"), file()], tries=3),
    Case(
        "a range that is compressed",
        [CUT_ONCE, part(extra="Content-Encoding: gzip"), file()],
        tries=3,
    ),
    Case(
        "half the range",
        [
            CUT_ONCE,
            part(said=f"bytes {CUT}-{CUT + 99}/{len(WHOLE)}", body=WHOLE[: CUT + 100]),
            file(),
        ],
        "",
        3,
        "IncompleteRead",
        [None, REST, f"bytes={CUT + 100}-"],
    ),
    Case("416 for the rest", [CUT_ONCE, status(416), file()], tries=3, ranges=[None, REST, None]),
    Case("206 that nobody asked for", [part(start=0)], "206: it gave a part that nobody asked for"),
]
CONTENTS = [
    Case("an empty body", [file(b"")], "gave 0 bytes that begin with b'': expected a parquet file"),
    Case("a web page", [status(200, b"<html>log in", Content_Type="text/html")], "a web page"),
    Case("a web page without its type", [file(b"\xef\xbb\xbf\n<!DOCTYPE html>")], "a web page"),
    Case("a web page for a CSV", [file(b" <html>")], "a web page", suffix=".csv"),
    Case("an error as JSON", [file(b'{"error": "no"}')], "begin with b'{\"er': expected a parquet"),
    Case("a zip in place of Parquet", [file(b"PK\x03\x04")], "expected a parquet file"),
    Case("half a zip", [file(b"PK\x03\x04" + WHOLE[:99])], "came broken", TRIES, suffix=".zip"),
    Case("compressed, unasked", [says(OK, "Content-Encoding: gzip", body=GZIPPED)]),
    Case(
        "compressed, unasked and cut",
        [says(OK, "Content-Encoding: gzip", body=GZIPPED[:CUT]), file()],
        "",
        2,
        "its compressed bytes have no end",
        [None, None],
    ),
    Case(
        "says it is compressed, and is not",
        [says(OK, "Content-Encoding: gzip", body=WHOLE)],
        "incorrect header check): check the address",
    ),
    Case(
        "in an encoding of its own",
        [says(OK, "Content-Encoding: br", body=b"x")],
        "the encoding 'br', which was not asked for",
    ),
    Case("a footer of nonsense length", [file(NONSENSE)], "came broken", TRIES),
    Case("a footer of zeros, then the file", [file(SCRAMBLED), file()], "", 2, "came broken"),
    Case("half a footer", [file(WHOLE[:-90])], "came broken", TRIES),
    Case("a footer that speaks of more", [file(BEYOND)], "the column 'trip' is not all", TRIES),
]
PROTOCOLS = [
    Case("a garbage status line", [says("\x00\x01 hello")], "check the address"),
    Case("a status line of 100 kB", [says("HTTP/1.1 200 " + "x" * 100_000)], "check the address"),
    Case("a header of 100 kB", [says(OK, "X: " + "x" * 100_000)], "more than 65536 bytes"),
    Case("500 headers", [says(OK, *["X: x"] * 500)], "more than 100 headers"),
    Case("closes without a word", [lambda request: None, file()], "", 2, "closed connection"),
    Case("resets without a word", [reset, file()], tries=2),
]
CASES = [*SILENCE, *REFUSALS, *LENGTHS, *VERSIONS, *CONTENTS, *PROTOCOLS]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("NETRC", raising=False)
    with serving() as server:
        yield server


@pytest.fixture
def collected(case: Case) -> Iterator[None]:
    """Clean up after urllib3, which leaves the socket of an answer that it refuses."""
    yield
    if case.fault == "says two lengths":
        gc.collect()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the policy would have slept."""
    waits: list[float] = []
    monkeypatch.setattr(orchestration, "time", SimpleNamespace(sleep=waits.append))
    return waits


def by_tlc(url: str, folder: Path) -> Path:
    """As `data.source: tlc` fetches."""
    path = folder / url.rpartition("/")[2]
    tlc.download(url, path)
    return path


def by_url(url: str, folder: Path) -> Path:
    """As a URL in `data.source` or `data.zones` is fetched."""
    return files.local_copy(url, folder)


def tried(fetch: Callable[[str, Path], Path], url: str, folder: Path) -> tuple[bool, list[str]]:
    """Fetch under the policy of the pipeline's tasks; whether it came, and what was said."""
    said: list[str] = []
    for _ in range(fetching()["retries"] + 1):
        try:
            with waiting_as_asked():
                fetch(url, folder)
            return True, said
        except SourceError as error:
            said.append(str(error))
            if not error.transient:
                break
    return False, said


def kept(folder: Path) -> list[bytes]:
    """The files that are there; notes, and what the next try continues, are not."""
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return [path.read_bytes() for path in found if path.suffix != ".json"]


def plain(text: str, *folders: Path) -> str:
    """A sentence as it is on every machine."""
    for folder in folders:
        text = text.replace(f"{folder}/", "…/")
    text = re.sub(r" \(_ssl\.c:\d+\)", "", text)  # a line of Python's own source
    return re.sub(r"127\.0\.0\.1:\d+", "…", text)


@each_case
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("collected")
def test_a_month_is_whole_or_not_there(
    case: Case,
    server: Server,
    tmp_path: Path,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    all_faults: bool,
) -> None:
    honest = tlc.download

    def download(url: str, path: Path) -> None:
        limits = case.limits if server.script[0] is case.script[0] else {}
        honest(url, path, progress=False, **{"timeout": 10.0, **limits})

    monkeypatch.setattr(tlc, "download", download)
    url = f"{server.base}/trips{case.suffix}"
    good = CSV if case.suffix == ".csv" else ZIP if case.suffix == ".zip" else WHOLE
    earlier = {".csv": CSV * 2, ".zip": OTHER_ZIP}.get(case.suffix, OLD)
    rounds = [(by_tlc, False), (by_url, True)]
    if all_faults:
        rounds += [(by_tlc, True), (by_url, False)]
    record_property("tried", len(rounds))
    for number, (fetch, there) in enumerate(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        if there:
            server.script, server.head = [file(earlier, '"earlier"')], None
            fetch(url, folder)
        before = kept(folder)
        server.head = file(good)
        server.requests.clear()
        waits.clear()
        server.script = [*case.script]
        came, said = tried(fetch, url, folder)

        assert came == (not case.said), said
        assert len(said) + came == case.tries
        assert case.said in (said or [""])[-1]
        assert case.first in (said or [""])[0]
        assert "\n" not in "".join(said)
        assert kept(folder) == ([good] if came else before)
        if case.ranges is not None:
            assert server.ranges == case.ranges
        if case.waits is not None:
            assert waits == pytest.approx(case.waits, abs=10)
        if number == 0:
            record_property("fault", case.fault)
            last = plain(said[-1], folder) if said else ""
            arrived = f"The file, at try {case.tries}." if came else ""
            record_property("said", " ".join(filter(None, [last, arrived])))

        server.script = [file(good)]  # whatever is left is in nobody's way
        fetch(url, folder)
        assert kept(folder) == [good]
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@dataclass(frozen=True)
class Place:
    """An address at which there is no such server."""

    fault: str
    url: str  # {free}: a port nobody listens on; {plain}, {tls}: such servers
    said: str
    tries: int  # 0: as the machine's own TLS ends it
    environment: dict[str, str] = field(default_factory=dict)


PROXY = {"HTTP_PROXY": "http://me:canary-canary@127.0.0.1:{free}", "NO_PROXY": ""}
PLACES = [
    Place("nobody listens", "http://127.0.0.1:{free}/x.parquet", "Connection refused", TRIES),
    Place("TLS spoken to a plain port", "https://127.0.0.1:{plain}/x.parquet", "check the addr", 1),
    Place("plain HTTP spoken to a TLS port", "http://127.0.0.1:{tls}/x.parquet", "could not be", 0),
    Place("a certificate of nobody", "https://127.0.0.1:{tls}/x.parquet", "self-signed certif", 1),
    Place(
        "redirects from https to http",
        "https://127.0.0.1:{tls}/to",
        "was redirected from https to http, where anybody on the way could change it",
        1,
        {"REQUESTS_CA_BUNDLE": "{pem}"},
    ),
    Place(
        "a proxy that is not there", "http://example.org/x.parquet", "at the proxy", TRIES, PROXY
    ),
    Place("a host of nonsense", "http://[::1/x.parquet", "http://[::1/x.parquet c", 1),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.fault)
def test_where_no_such_server_is(
    place: Place,
    server: Server,
    tmp_path: Path,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    pem, context = certificate(tmp_path)
    with serving(context) as tls:
        ports = {"free": free_port(), "plain": server.server_port, "tls": tls.server_port}
        server.script, tls.script = [file()], [to(server.url)]
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value.format(**ports, pem=pem))
        for number, fetch in enumerate((by_tlc, by_url)):
            folder = tmp_path / str(number)
            folder.mkdir()
            came, said = tried(
                fetch, place.url.format(**ports) if "{" in place.url else place.url, folder
            )
            assert not came
            assert kept(folder) == []
            assert place.said in said[-1]
            assert "canary" not in "".join(said)
            if place.tries:
                assert len(said) == place.tries
    if place.tries:
        record_property("fault", place.fault)
        record_property("said", plain(said[-1]))


@each_case
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("collected")
def test_who_asks_for_a_newer_version_is_not_told_a_lie(
    case: Case, server: Server, tmp_path: Path, all_faults: bool
) -> None:
    if case in SILENCE and not all_faults:
        pytest.skip("waits for half a second: make test-faults")
    path = tmp_path / "trips.parquet"
    server.script = [file(OLD, '"earlier"')]
    tlc.download(server.url, path)
    assert tlc.unchanged(server.url, path)
    server.head = case.script[0]
    with contextlib.suppress(SourceError):
        assert not tlc.unchanged(server.url, path, timeout=0.4 if case in SILENCE else 10.0)
    assert kept(tmp_path) == [OLD]


@pytest.mark.parametrize(
    "note", ["", "{", "[]", '{"etag": 1, "length": "x"}', '{"etag": "\\"one"}']
)
def test_a_damaged_note_is_no_note(server: Server, tmp_path: Path, note: str) -> None:
    path = tmp_path / "trips.parquet"
    server.script = [file()]
    (tmp_path / ".trips.parquet.download").write_bytes(WHOLE[:CUT])
    (tmp_path / ".trips.parquet.download.json").write_text(note)
    tlc.download(server.url, path)
    assert server.ranges == [None]
    assert kept(tmp_path) == [WHOLE]
    (tmp_path / "trips.parquet.json").write_text(note)
    assert not tlc.unchanged(server.url, path)


def test_what_a_killed_process_had_is_continued(server: Server, tmp_path: Path) -> None:
    server.script = [then(file(cut=CUT), hanging), file()]
    path, partial = tmp_path / "trips.parquet", tmp_path / ".trips.parquet.download"
    code = f"from trip_duration.sources import tlc; tlc.download({server.url!r}, {str(path)!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size >= CUT // 2):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert kept(tmp_path) == []
    tlc.download(server.url, path)
    first, second = server.ranges
    assert first is None
    assert CUT // 2 <= int(str(second).removeprefix("bytes=").removesuffix("-")) <= CUT
    assert kept(tmp_path) == [WHOLE]


MONTHS = ("2021-01", "2021-02", "2021-03")


def month(name: str) -> bytes:
    buffer = io.BytesIO()
    batches = SimulatedMonth(name, taxi="green", seed=1, trips=3_000).batches()
    pq.write_table(pa.Table.from_batches(batches), buffer)
    return buffer.getvalue()


def test_the_ingest_stage_keeps_what_it_has(
    make_clone: Callable[[Path], Clone],
    server: Server,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    all_faults: bool,
) -> None:
    """Through Prefect's own retries: a month that is cut, and one that never comes."""
    if not all_faults:
        pytest.skip("runs the stage twice, for half a minute: make test-faults")
    good = {f"/green-{name}.parquet": month(name) for name in MONTHS}
    answers = {path: [file(body)] for path, body in good.items()}
    cut = len(good["/green-2021-02.parquet"]) // 2
    answers["/green-2021-02.parquet"] = [
        file(good["/green-2021-02.parquet"], cut=cut),
        file(good["/green-2021-02.parquet"]),
    ]
    answers["/green-2021-03.parquet"] = [status(404)]

    def by_path(request: Answers) -> None:
        script = answers[request.path]
        (script.pop(0) if len(script) > 1 else script[0])(request)

    server.script = [by_path]
    clone = make_clone(tmp_path / "clone")
    source = f"{server.base}/{{taxi}}-{{year}}-{{month}}.parquet"
    clone.change(
        {"data.source": source, "data.zones": None}
        | {f"data.{key}": [name] for key, name in zip(SPLITS, MONTHS, strict=True)}
    )
    done = clone.command("ingest", check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in said
    assert "IncompleteRead" in said
    assert "was refused with the status 404: there is no such file; check data.source" in said
    trips = sorted(path.name for path in (clone.folder / "data/trips").glob("*.parquet"))
    assert trips == ["green-2021-01.parquet", "green-2021-02.parquet"]
    assert f"bytes={cut}-" in server.ranges

    server.requests.clear()
    answers["/green-2021-03.parquet"] = [file(good["/green-2021-03.parquet"])]
    clone.command("ingest")
    assert server.ranges == [None]  # the months that are there are not asked for again
    ledger = json.loads(clone.read("metrics/ingest.json"))
    assert [ledger["months"][name]["read"] for name in MONTHS] == [3_000] * 3
    cache = clone.folder / ".cache/source"
    assert sorted(kept(cache)) == sorted(good.values())
    clone.check_that_nothing_runs()
    record_property("tried", 2)
