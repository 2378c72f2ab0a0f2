"""Downloads, against a server of our own on 127.0.0.1 that misbehaves in TLC's ways."""

import threading
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from pathlib import Path

import pytest
from tests.misbehaving import OTHER, WHOLE, Answers, Server, file, free_port, serving, status

from trip_duration.errors import SettingsError, SourceError
from trip_duration.files import read_json, sha256
from trip_duration.sources import tlc

CUT = 1 << 17  # bytes
PARTIAL = ".trips.parquet.download"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "trips.parquet"


def refused(url: str, path: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        tlc.download(url, path, progress=False, timeout=5)
    assert not path.exists()
    return caught.value


def leftovers(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()} - {path.name, f"{path.name}.json"}


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIP_DURATION_TLC_BASE", raising=False)
    root = "https://d37ci6vzurychx.cloudfront.net"
    assert tlc.url("green", "2024-01") == f"{root}/trip-data/green_tripdata_2024-01.parquet"
    assert tlc.zones_url() == f"{root}/misc/taxi_zones.zip"
    assert tlc.lookup_url() == f"{root}/misc/taxi_zone_lookup.csv"

    monkeypatch.setenv("TRIP_DURATION_TLC_BASE", "http://127.0.0.1:1/")
    assert tlc.url("fhv", "2017-03") == "http://127.0.0.1:1/trip-data/fhv_tripdata_2017-03.parquet"
    with pytest.raises(SettingsError, match="2021-13"):
        tlc.url("green", "2021-13")


def test_not_published_names_the_month_and_what_to_do() -> None:
    error = tlc.not_published("green", "2031-05")
    assert not error.transient
    for words in ("green", "2031-05", "two months", "403", "data.train"):
        assert words in str(error)


def test_a_whole_file_arrives_once_and_is_known_again(server: Server, path: Path) -> None:
    server.script = [file()]
    assert not tlc.unchanged(server.url, path)
    assert server.requests == []  # nothing here, so nothing to ask

    tlc.download(server.url, path)
    assert path.read_bytes() == WHOLE
    assert leftovers(path) == set()
    note = read_json(path.with_name("trips.parquet.json"))
    version = {"etag": '"one"', "length": len(WHOLE), "modified": ""}
    assert note == {**version, "sha256": sha256(path)}

    assert tlc.unchanged(server.url, path)
    assert [method for method, _ in server.requests] == ["GET", "HEAD"]


@pytest.mark.parametrize("later", [file(OTHER, '"two"'), file(WHOLE + b"x"), file(etag="")])
def test_a_new_version_is_not_unchanged(server: Server, path: Path, later: Callable) -> None:
    server.script = [file(), later]
    tlc.download(server.url, path)
    assert not tlc.unchanged(server.url, path)


def test_a_damaged_file_is_not_unchanged(server: Server, path: Path) -> None:
    server.script = [file()]
    tlc.download(server.url, path)
    path.write_bytes(WHOLE[:-5] + b"!PAR1")
    assert not tlc.unchanged(server.url, path)


def test_unchanged_says_when_it_cannot_ask(server: Server, path: Path) -> None:
    server.script = [file(), status(403)]
    tlc.download(server.url, path)
    with pytest.raises(SourceError, match="403") as caught:
        tlc.unchanged(server.url, path)
    assert caught.value.transient
    with pytest.raises(SourceError, match="refused") as caught:
        tlc.unchanged(f"http://127.0.0.1:{free_port()}/", path)
    assert caught.value.transient


@pytest.mark.parametrize("code", [403, 408, 429, 500, 502, 503])
def test_a_busy_server_is_worth_another_try(server: Server, path: Path, code: int) -> None:
    server.script = [status(code, b"<Error/>"), file()]
    error = refused(server.url, path)
    assert error.transient
    assert error.retry_after is None
    assert str(code) in str(error)
    tlc.download(server.url, path)
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("code", [400, 401, 404, 410])
def test_other_refusals_are_final(server: Server, path: Path, code: int) -> None:
    server.script = [status(code)]
    error = refused(server.url, path)
    assert not error.transient
    assert str(code) in str(error)
    assert server.url in str(error)


def test_retry_after_is_passed_on(server: Server, path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server.script = [
        status(429, Retry_After="7"),
        status(503, Retry_After=later),
        status(429, Retry_After="soon"),
    ]
    assert refused(server.url, path).retry_after == 7.0
    assert refused(server.url, path).retry_after == pytest.approx(90, abs=10)
    assert refused(server.url, path).retry_after is None


def test_nobody_there_is_worth_another_try(server: Server, path: Path) -> None:
    error = refused(f"http://127.0.0.1:{free_port()}/trips.parquet", path)
    assert error.transient
    assert "Connection refused" in str(error)
    server.script = [file()]
    tlc.download(server.url, path)
    assert path.read_bytes() == WHOLE


def test_a_server_that_stalls_is_left(server: Server, path: Path) -> None:
    release = threading.Event()
    server.script = [lambda request: release.wait(10)]  # type: ignore[list-item, return-value]
    try:
        with pytest.raises(SourceError, match="timed out") as caught:
            tlc.download(server.url, path, timeout=(10.0, 0.2))
        assert caught.value.transient
    finally:
        release.set()


def test_an_address_that_is_none_is_final(path: Path) -> None:
    assert not refused("ftp//nowhere", path).transient


def test_what_was_cut_is_continued(server: Server, path: Path) -> None:
    server.script = [file(cut=CUT), file(cut=CUT // 2), file()]
    assert refused(server.url, path).transient
    assert (path.parent / PARTIAL).read_bytes() == WHOLE[:CUT]
    assert refused(server.url, path).transient
    assert (path.parent / PARTIAL).read_bytes() == WHOLE[: CUT + CUT // 2]
    tlc.download(server.url, path)
    assert path.read_bytes() == WHOLE
    assert leftovers(path) == set()
    assert [headers.get("Range") for _, headers in server.requests] == [
        None,
        f"bytes={CUT}-",
        f"bytes={CUT + CUT // 2}-",
    ]
    assert read_json(path.with_name("trips.parquet.json"))["length"] == len(WHOLE)


def test_two_versions_are_never_mixed(server: Server, path: Path) -> None:
    server.script = [file(cut=CUT), file(OTHER, '"two"')]
    refused(server.url, path)
    tlc.download(server.url, path)
    assert path.read_bytes() == OTHER


def test_a_range_of_another_version_is_thrown_away(server: Server, path: Path) -> None:
    """A server may break the rules and ignore If-Range."""

    def careless(request: Answers) -> None:
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {CUT}-{len(OTHER) - 1}/{len(OTHER)}")
        request.send_header("ETag", '"two"')
        request.send_header("Content-Length", str(len(OTHER) - CUT))
        request.end_headers()
        request.wfile.write(OTHER[CUT:])

    server.script = [file(cut=CUT), careless, file(OTHER, '"two"')]
    refused(server.url, path)
    error = refused(server.url, path)
    assert error.transient
    assert "changed" in str(error)
    tlc.download(server.url, path)
    assert path.read_bytes() == OTHER


def test_a_range_that_cannot_be_had_begins_again(server: Server, path: Path) -> None:
    server.script = [file(cut=CUT), status(416), file()]
    refused(server.url, path)
    assert refused(server.url, path).transient
    tlc.download(server.url, path)
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_version_it_begins_again(server: Server, path: Path, etag: str) -> None:
    server.script = [file(etag=etag, cut=CUT), file(etag=etag)]
    refused(server.url, path)
    tlc.download(server.url, path)
    assert path.read_bytes() == WHOLE
    assert "Range" not in server.requests[1][1]


def test_a_server_without_ranges_begins_again(server: Server, path: Path) -> None:
    server.script = [file(cut=CUT, ranges=False), file(ranges=False)]
    refused(server.url, path)
    tlc.download(server.url, path)
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize(
    "answer",
    [
        status(200, b"<html>log in</html>", Content_Type="text/html; charset=utf-8"),
        status(200, b"\n <!DOCTYPE html>", Content_Type="application/octet-stream"),
    ],
)
def test_a_web_page_is_no_data(server: Server, path: Path, answer: Callable) -> None:
    server.script = [answer]
    error = refused(server.url, path)
    assert not error.transient
    assert "web page" in str(error)
    assert leftovers(path) == set()


@pytest.mark.parametrize("body", [b"", b"no header PAR1", b'{"error": 1}'])
def test_what_is_no_parquet_is_refused(server: Server, path: Path, body: bytes) -> None:
    server.script = [file(body)]
    error = refused(server.url, path)
    assert not error.transient
    assert "parquet" in str(error)
    assert leftovers(path) == set()


def test_an_old_file_stays_until_the_new_one_is_whole(server: Server, path: Path) -> None:
    server.script = [file(), file(OTHER, '"two"', cut=100), file(OTHER, '"two"')]
    tlc.download(server.url, path)
    with pytest.raises(SourceError):
        tlc.download(server.url, path)
    assert path.read_bytes() == WHOLE
    tlc.download(server.url, path)
    assert path.read_bytes() == OTHER


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    server.script = [file()]
    error = refused(server.url, tmp_path / "file" / "trips.parquet")
    assert not error.transient
    assert "could not be written" in str(error)


def test_the_bar_is_silent_where_nobody_looks(
    server: Server, path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.script = [file()]
    tlc.download(server.url, path)
    assert capfd.readouterr() == ("", "")


def test_published_asks_without_fetching(server: Server) -> None:
    server.head = status(200)
    assert tlc.published(server.url)
    assert [method for method, _ in server.requests] == ["HEAD"]


@pytest.mark.parametrize("code", [403, 404, 410])
def test_what_is_absent_is_not_published(server: Server, code: int) -> None:
    server.script = [status(code)]
    assert not tlc.published(server.url)


@pytest.mark.parametrize(("code", "there"), [(200, True), (404, False)])
def test_a_server_that_knows_no_head_is_asked_by_get(
    server: Server, code: int, there: bool
) -> None:
    server.head = status(405)
    server.script = [file() if there else status(code)]
    assert tlc.published(server.url) is there
    assert [method for method, _ in server.requests] == ["HEAD", "GET"]


def test_published_says_when_it_cannot_ask(server: Server) -> None:
    server.script = [status(503)]
    with pytest.raises(SourceError, match="503") as caught:
        tlc.published(server.url)
    assert caught.value.transient
