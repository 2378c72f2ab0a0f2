"""What a cluster needs before, beside and after Dask itself; test_dask.py has the real one."""

import pickle
import socket
from pathlib import Path
from typing import Any

import pytest

from trip_duration import cluster, files, params
from trip_duration.errors import SourceError, TripDurationError


def engine(**settings: Any) -> params.Engine:
    known = {"runner": "dask", "dask_scheduler": None, "workers": 2, "storage": None}
    return params.Engine(**{**known, "distributed_training": False, **settings})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: object())


def test_without_the_extra_a_sentence_says_how_to_add_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TripDurationError, match="has no distributed: add it with `make setup EXT"):
        cluster.check(engine())


def test_a_scheduler_that_takes_connections_passes(installed: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        cluster.check(engine(dask_scheduler=address))
    with pytest.raises(TripDurationError, match=f"no Dask scheduler answers at {address}, as"):
        cluster.check(engine(dask_scheduler=address))


@pytest.mark.parametrize("kind", ["file://", "local://"])
def test_a_storage_gives_back_what_it_was_given(tmp_path: Path, kind: str) -> None:
    storage = cluster.Storage(f"{kind}{tmp_path}/store/")
    given, back = tmp_path / "given", tmp_path / "new" / "back"
    given.write_bytes(b"trips")
    digest = storage.put(given)
    assert storage.put(given) == digest == files.sha256(given)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [digest]
    storage.get(digest, back)
    assert back.read_bytes() == b"trips"


def test_a_storage_whose_content_changed_is_refused(tmp_path: Path) -> None:
    storage = cluster.Storage(f"file://{tmp_path}/store")
    given, back = tmp_path / "given", tmp_path / "back"
    given.write_bytes(b"trips")
    digest = storage.put(given)
    (tmp_path / "store" / digest).write_bytes(b"tripz")
    with pytest.raises(TripDurationError, match="does not hold what its name says"):
        storage.get(digest, back)
    (tmp_path / "store" / digest).unlink()
    with pytest.raises(TripDurationError, match=r"store can't be read from \(FileNotFoundError"):
        storage.get(digest, back)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "store"]


def test_a_storage_that_cannot_be_used_is_named_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "given").touch()
    storage = cluster.Storage("nosuch://me:word@host/folder")
    with pytest.raises(TripDurationError, match="nosuch://host/folder can't be written") as caught:
        storage.put(tmp_path / "given")
    assert "word" not in str(caught.value)


def test_other_code_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    one = cluster.code_digest()
    assert cluster.code_digest() == one
    monkeypatch.setattr(cluster, "version", lambda name: "0")
    assert cluster.code_digest() != one


def test_an_error_comes_back_from_a_worker_as_it_was() -> None:
    error = SourceError("refused", transient=True, retry_after=2.0, status=403)
    error.month = "2021-01"
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back)) == (SourceError, "refused")
    assert (back.transient, back.retry_after, back.status) == (True, 2.0, 403)
    assert back.month == "2021-01"


def test_a_worker_runs_in_the_folder_and_reads_what_came_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "_unique", False)
    monkeypatch.setattr(cluster, "_known", set())
    home = tmp_path / "home"
    home.mkdir()
    at = cluster.Home(str(home), cluster.code_digest())
    outside = Path("../raw.parquet")

    def task(raw: Path) -> tuple[Path, Path]:
        return raw, Path.cwd()

    sent = cluster._sent(task, at, {}, None)
    assert sent(outside) == ((outside, home), {})
    with files.atomic("one") as first, files.atomic("one") as second:
        assert first.name != second.name  # two workers may write the same file
        for path in (first, second):
            path.touch()
    monkeypatch.setattr(cluster, "_address", lambda: "tcp://there")
    other = cluster.Home(str(home), "another")
    with pytest.raises(TripDurationError, match="worker tcp://there has other code"):
        cluster._sent(task, other, {}, None)(outside)
    gone = cluster.Home(str(tmp_path / "gone"), at.code)
    with pytest.raises(TripDurationError, match="worker tcp://there does not see"):
        cluster._sent(task, gone, {}, None)(outside)


def test_a_worker_has_its_files_from_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = cluster.Storage(f"file://{tmp_path}/store")
    (tmp_path / "given").write_bytes(b"trips")
    digest = storage.put(tmp_path / "given")
    home = cluster.Home("/not/here", "any", storage)
    elsewhere = home.place({"data/inside": digest, "../raw.parquet": digest})
    moved = Path("outside") / digest / "raw.parquet"
    assert elsewhere == {Path("../raw.parquet"): moved}
    assert Path("data/inside").read_bytes() == moved.read_bytes() == b"trips"
