"""Nobody else's code.

All that the pipeline reads from a disk or a network is data: JSON, UBJ, Parquet, CSV and YAML
without tags. The sources import nothing that could run what they read, children that read a model
never unpickle anything, and files with a bomb in them end in a sentence. (MLflow stores a model as
its code, `pyfunc.py` and this package, beside its data: who loads such a model runs that code, and
the pipeline itself never does. Dask's own transport pickles tasks between its processes:
docs/dask.md.)

What is written stays below the repository, whatever a URL, a setting or an archive says.
Credentials are in no file, log or sentence, and servers listen on 127.0.0.1 alone.
"""

import ast
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml.error import YAMLError
from tests.misbehaving import Server, file, free_port, serving, status
from tests.pipeline.conftest import Clone
from tests.test_explanations import fitted, made_up

from trip_duration import ingest, orchestration, params, prediction
from trip_duration.baselines import Baselines
from trip_duration.errors import SettingsError, SourceError, TripDurationError
from trip_duration.files import write_json
from trip_duration.intervals import Calibration
from trip_duration.search import Journal, Trial
from trip_duration.sources import files, tlc
from trip_duration.sources.files import read_batches
from trip_duration.training import save_booster
from trip_duration.trips import to_canonical
from trip_duration.zones import load_zones

CANARY = "-".join(["canary", "in", "a", "coal", "mine"])  # so that this file holds none

# -- what is read is data ------------------------------------------------------------------------

MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "torch", "xmlrpc"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"read_pickle", "to_pickle", "popen", "system", "unsafe_load", "full_load"}
KEYWORDS = {"allow_pickle", "shell", "trials_save_file", "unsafe"}


def runs_code(source: str) -> list[str]:
    """What in a module's text could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in MODULES else []
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.append(node.func.id)
            found += [word.arg for word in node.keywords if word.arg in KEYWORDS]
            if ast.unparse(node.func) == "YAML" and ast.unparse(node) not in (
                "YAML()",  # keeps tags as text, for params.yaml to be written again
                "YAML(typ='safe', pure=True)",
            ):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            found.append(node.attr)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import os; os.system('x')",
        "import numpy as np; np.load('x', allow_pickle=True)",
        "YAML(typ='unsafe')",
        "eval('1')",
        "subprocess.run('x', shell=True)",
    ],
)
def test_the_search_for_such_code_finds_it(source: str) -> None:
    assert runs_code(source)


def test_no_source_runs_what_it_reads(
    root: Path, record_property: Callable[[str, object], None]
) -> None:
    sources = sorted((root / "src").rglob("*.py"))
    record_property("tried", len(sources))
    found = {str(path): runs_code(path.read_text(encoding="utf-8")) for path in sources}
    assert {name: what for name, what in found.items() if what} == {}


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The file that a bomb makes; there is none when the test is over."""
    mark = tmp_path / "exploded"
    pickle.loads(pickle.dumps(Bomb(mark)))
    mark.unlink()  # and bombs do work
    yield mark
    assert not mark.exists()


@pytest.fixture
def bomb(mark: Path) -> bytes:
    return pickle.dumps(Bomb(mark))


def saved_model(folder: Path) -> pa.Table:
    """A small model in a folder; gives the trips that it was fitted on."""
    trips = made_up()
    booster, builder, _ = fitted(trips, rounds=2, preset="metered")
    folder.mkdir()
    save_booster(booster, folder / "model.ubj")
    save_booster(booster, folder / "intervals.ubj")
    write_json(builder.to_json(), folder / "features.json")
    spread = Calibration(
        level=0.9, edges=(), below=(1.0,), above=(1.0,), pad=1.0, constant=1.0, trips=100
    )
    write_json(spread.to_json(), folder / "intervals.json")
    write_json(Baselines.fit([trips]).to_json(), folder / "baselines.json")
    return trips


READER = """
import sys
found = []
watched = ("pickle.find_class", "exec.of.this.test")
sys.addaudithook(lambda event, given: found.append(given) if event in watched else None)
sys.audit("exec.of.this.test")
folder, root = sys.argv[1:]
from pathlib import Path
from trip_duration import params, prediction, search
from trip_duration.baselines import Baselines
from trip_duration.files import read_json
from trip_duration.sources.files import read_batches
from trip_duration.trips import to_canonical
params.load(f"{root}/params.yaml")
model = prediction.load(f"{folder}/models")
Baselines.from_json(read_json(f"{folder}/models/baselines.json"))
assert search.Journal(Path(folder) / "journal").read()
for name in ("trips.parquet", "trips.csv"):
    for batch in read_batches(f"{folder}/{name}"):
        trips = to_canonical(batch)
        assert len(model.builder.transform(trips)) == trips.num_rows
print(len(found))
"""


def test_no_child_unpickles_what_it_reads(root: Path, tmp_path: Path, bomb: bytes) -> None:
    """Beside all the rest: a Parquet whose metadata and extension type are pickles."""
    saved_model(tmp_path / "models")
    journal = Journal(tmp_path / "journal")
    journal.add(Trial(number=0, params={"max_depth": 3}, loss=5.0, rounds=3))
    pq.write_table(poisoned(bomb), tmp_path / "trips.parquet")
    (tmp_path / "trips.csv").write_text(f"{','.join(RAW)}\n{','.join(map(str, RAW.values()))}\n")
    done = subprocess.run(
        [sys.executable, "-c", READER, tmp_path, root], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("1\n", "")  # the test's own event


RAW = {
    "lpep_pickup_datetime": "2024-01-05 08:30:00",
    "lpep_dropoff_datetime": "2024-01-05 08:40:00",
    "PULocationID": 74,
    "DOLocationID": 42,
    "trip_distance": 1.5,
}


def poisoned(bomb: bytes, *more: str) -> pa.Table:
    """Raw trips; a pickle is their pandas metadata, and their extension types'."""
    table = pa.table({name: [value] for name, value in RAW.items()})
    kinds = ("arrow.py_extension_type", "pandas.extension", "a.stranger", *more)
    schema = table.schema
    for number, kind in enumerate(kinds):
        said = {b"ARROW:extension:name": kind.encode(), b"ARROW:extension:metadata": bomb}
        schema = schema.set(number, schema.field(number).with_metadata(said))
    return table.cast(schema).replace_schema_metadata({b"pandas": bomb})


def test_pickles_in_parquets_metadata_are_not_read(
    tmp_path: Path, bomb: bytes, record_property: Callable[[str, object], None]
) -> None:
    pq.write_table(poisoned(bomb), tmp_path / "a.parquet")
    [batch] = read_batches(tmp_path / "a.parquet")
    assert to_canonical(batch)["duration"].to_pylist() == [10.0]

    pq.write_table(poisoned(bomb, "arrow.opaque"), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"truncated Parquet.*Invalid serialized JSON"):
        read_batches(tmp_path / "b.parquet")
    record_property("tried", 2)


@pytest.mark.parametrize("name", prediction.FILES)
def test_a_pickle_in_place_of_a_models_file(
    tmp_path: Path, bomb: bytes, name: str, record_property: Callable[[str, object], None]
) -> None:
    saved_model(tmp_path / "models")
    prediction.load(tmp_path / "models")
    (tmp_path / "models" / name).write_bytes(bomb)
    with pytest.raises(TripDurationError) as caught:
        prediction.load(tmp_path / "models")
    said = str(caught.value).replace(f"{tmp_path}/", "…/")
    assert f"{name} begins with {bomb[:8]!r} and is no whole file of a model" in said
    record_property("fault", f"a pickle named {name}")
    record_property("said", said)


@pytest.mark.parametrize("name", ["features.json", "intervals.json"])
@pytest.mark.parametrize("text", ["[]", "null", '{"py/object": "os.system"}', "{}", "1e999"])
def test_other_json_in_place_of_a_models(tmp_path: Path, name: str, text: str) -> None:
    saved_model(tmp_path / "models")
    (tmp_path / "models" / name).write_text(text)
    with pytest.raises(TripDurationError, match="that this version wrote"):
        prediction.load(tmp_path / "models")


@pytest.mark.parametrize(
    "line",
    [
        '{"number": "0", "params": {}, "loss": 1.0, "rounds": 1}',
        '{"number": [], "params": {}, "loss": 1.0, "rounds": 1}',
        '{"number": 0, "params": [], "loss": 1.0, "rounds": 1}',
        '{"number": 0, "params": {}, "loss": "0", "rounds": 1}',
        '{"number": 0, "params": {}, "loss": 1.0, "rounds": null}',
        '{"number": 0, "params": {}, "loss": 1.0, "rounds": 1, "__class__": "x"}',
        '{"py/reduce": [{"py/type": "os.system"}]}',
        "[1, 2]",
        "\x80\x04",
    ],
)
def test_an_odd_line_of_a_journal_is_no_trial(tmp_path: Path, line: str) -> None:
    journal = Journal(tmp_path / "journal")
    journal.path.write_text(f"{line}\n", encoding="latin-1")
    trial = Trial(number=1, params={"max_depth": 3}, loss=5.0, rounds=3)
    journal.add(trial)
    assert journal.read() == {1: trial}


TAGS = ["!!python/object/apply:pathlib.Path.touch", "!!python/object/new:pathlib.Path", "!x"]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_makes_no_objects(
    root: Path, tmp_path: Path, mark: Path, tag: str, record_property: Callable[[str, object], None]
) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("seed: 42", f"seed: {tag} [{mark}]"))
    with pytest.raises(SettingsError, match="is no valid YAML") as caught:
        params.load(path)
    with pytest.raises((SettingsError, YAMLError)):
        params.override(path.read_text(), {})
    with pytest.raises(SettingsError, match="no valid YAML value"):
        params.parse_overrides(f"seed={tag} [{mark}]")
    record_property("tried", 3)
    record_property("fault", f"seed: {tag} […] in params.yaml")
    record_property("said", str(caught.value).replace(f"{tmp_path}/", "…/"))


def test_formulas_are_text(tmp_path: Path) -> None:
    rows = [RAW, {**RAW, "trip_distance": "=HYPERLINK(1)", "PULocationID": "=1+1"}]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([",".join(RAW), *(",".join(map(str, r.values())) for r in rows)]))
    [batch] = read_batches(path)
    trips = to_canonical(batch)
    assert trips["trip_distance"].to_pylist() == [1.5, None]
    assert trips["pickup_zone"].to_pylist() == [74, None]


VRT = '<OGRVRTDataSource><OGRVRTLayer name="z"><SrcDataSource>{}</SrcDataSource></OGRVRTLayer>'


@pytest.mark.parametrize("name", ["zones.geojson", "zones.zip", "zones.shp"])
def test_zones_point_at_nothing_else(
    tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    secret = tmp_path / "secret.geojson"
    shape = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    zone = {"type": "Feature", "properties": {"LocationID": 7}, "geometry": shape}
    secret.write_text(json.dumps({"type": "FeatureCollection", "features": [zone]}))
    assert load_zones(secret).table().num_rows == 1
    text = f"{VRT.format(secret)}</OGRVRTDataSource>"
    path = tmp_path / name
    if name == "zones.zip":
        with zipfile.ZipFile(path, "w") as archive:
            for part in ("zones.shp", "zones.shx", "zones.dbf"):
                archive.writestr(part, text)
    else:
        path.write_text(text)
    with pytest.raises(TripDurationError, match=r"is a web page or XML|is no shapefile") as caught:
        load_zones(path)
    record_property("fault", f"GDAL's VRT in {name}")
    record_property("said", str(caught.value).replace(f"{tmp_path}/", "…/"))


# -- what is written stays below the repository --------------------------------------------------


@pytest.mark.parametrize("member", ["../zones.shp", "/tmp/zones.shp", "a/../../zones.shp"])
def test_members_of_an_archive_stay_in_it(tmp_path: Path, member: str) -> None:
    path = tmp_path / "zones.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"\x00\x00\x27\x0a")
    with pytest.raises(TripDurationError, match="leads out of it"):
        load_zones(path)
    assert list(tmp_path.iterdir()) == [path]


def test_an_archive_of_trips_is_read_where_it_is(tmp_path: Path) -> None:
    """Neither a name nor a link in it makes a file."""
    path = tmp_path / "inside" / "trips.csv.zip"
    path.parent.mkdir()
    text = f"{','.join(RAW)}\n{','.join(map(str, RAW.values()))}\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../trips.csv", text)
    [batch] = read_batches(path)
    assert batch.num_rows == 1
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("trips.csv")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(TripDurationError):
        list(read_batches(path))
    assert [found.name for found in tmp_path.rglob("*")] == ["inside", "trips.csv.zip"]


NAMES = [
    "..%2F..%2Fx.parquet",
    "../../x.parquet",
    ".parquet",
    "..",
    "a\\..\\..\\x.parquet",
    "x" * 1000 + ".parquet",
    "x.parquet;rm -rf",
    "x%00.parquet",
    "été.parquet",
    "x.parquet?file=../../y",
    "x.parquet#/../../y",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_copy_of_a_url_lies_in_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a" / "cache"
    with serving() as server:
        disposition = {"Content_Disposition": 'attachment; filename="../../../y.parquet"'}
        server.script = [status(200, pq_bytes(), **disposition)]
        path = files.local_copy(f"{server.base}/{name}", folder)
    assert path.parent == folder
    assert path.read_bytes() == pq_bytes()
    below = {found for found in tmp_path.rglob("*") if found.is_file()}
    assert below == {path, path.with_name(f"{path.name}.json")}
    assert re.fullmatch(r"[0-9a-f]{16}-[A-Za-z0-9._-]{0,80}", path.name)


def test_the_copy_from_another_store_lies_in_its_folder(tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe("/trips/..\\..\\x y.csv", b"a,b\n")
    path = files.local_copy("memory://trips/..\\..\\x y.csv", tmp_path / "cache")
    store.rm("/trips", recursive=True)
    assert path.parent == tmp_path / "cache"
    assert path.name.endswith("-.._.._x_y.csv")


def pq_bytes() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "month", ["../../x", "2024-01/../..", "2024-01\n", "２０２４-01", "2024-1"]
)
def test_a_month_is_no_path(root: Path, month: str) -> None:
    text = (root / "params.yaml").read_text(encoding="utf-8")
    with pytest.raises(SettingsError):
        params.override(text, {"data.test": [month]})
    with pytest.raises(SettingsError):
        params.override(text, {"data.taxi": month})


def test_what_a_link_points_to_is_not_written(tmp_path: Path) -> None:
    """A link in place of a file is replaced or removed, and its target stays.

    A link in place of a folder is followed: whoever made it wants the months on another disk.
    """
    elsewhere, trips = tmp_path / "elsewhere", tmp_path / "trips"
    elsewhere.write_text("mine")
    trips.mkdir()
    for name in ("green-2024-01.parquet", "green-2024-01.json", "green-2024-02.parquet"):
        (trips / name).symlink_to(elsewhere)
    write_json({"kept": 1}, trips / "green-2024-01.json")
    ingest.remove_others(trips, "green", ["2024-01"])
    assert elsewhere.read_text() == "mine"
    assert {path.name: path.is_symlink() for path in trips.iterdir()} == {
        "green-2024-01.parquet": True,
        "green-2024-01.json": False,
    }


# -- credentials ---------------------------------------------------------------------------------

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "GITHUB_TOKEN": CANARY,
    "HTTP_PROXY": f"http://me:{CANARY}@127.0.0.1:1",
    "HTTPS_PROXY": f"http://me:{CANARY}@127.0.0.1:1",
    "MLFLOW_TRACKING_PASSWORD": CANARY,
}
SOURCE = "http://example.org/{taxi}-{year}-{month}.parquet"


def netrc(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    path = folder / "netrc"
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def asked(server: Server) -> list[str | None]:
    return [headers.get("Authorization") for _, headers in server.requests]


def test_credentials_go_to_the_host_they_are_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """~/.netrc's default entry would hand them to whoever is asked, TLC's host among them."""
    with serving() as server, serving() as other:
        server.script = other.script = [file()]
        netrc(tmp_path, monkeypatch, f"default login me password {CANARY}")
        tlc.download(server.url, tmp_path / "a.parquet")
        assert asked(server) == [None]

        netrc(tmp_path, monkeypatch, f"machine 127.0.0.1 login me password {CANARY}")
        tlc.download(server.url, tmp_path / "b.parquet")
        assert str(asked(server)[-1]).startswith("Basic ")

        moved = f"http://localhost:{other.server_port}/trips.parquet"
        server.script = [status(302, Location=moved)]
        tlc.download(server.url, tmp_path / "c.parquet")
        assert asked(other) == [None]


def test_the_place_of_tlcs_files_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIP_DURATION_TLC_BASE", f"https://me:{CANARY}@host")
    with pytest.raises(SettingsError, match=r"put credentials into ~/\.netrc") as caught:
        tlc.url("green", "2024-01")
    assert CANARY not in str(caught.value)


def test_a_stores_errors_are_said_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"403 for https://me:x@host/a?X-Amz-Signature=abc with {CANARY}")

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setattr(MemoryFileSystem, "info", fail)
    with pytest.raises(SourceError, match=r"403 for https://host/a\?X-Amz-Signature=… with …") as e:
        files.local_copy("memory://trips/a.csv", tmp_path)
    assert e.value.__cause__ is None  # Prefect keeps what an error was raised from


def test_the_addresses_of_ones_own_servers_are_shown_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("PREFECT_API_URL", f"https://me:{CANARY}@prefect.example.org/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://me:{CANARY}@mlflow.example.org")
    monkeypatch.setattr(orchestration.time, "sleep", interrupt)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in orchestration.environment(tmp_path).items():
            patch.setenv(name, value)
        patch.setenv(orchestration.OURS, "{}")
        orchestration.serve(tmp_path)
    signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr().out
    assert "https://prefect.example.org/api" in said
    assert "https://mlflow.example.org" in said
    assert CANARY not in said


def holders(folder: Path) -> list[str]:
    """Files below a folder that hold the canary."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes():
            found.append(path.relative_to(folder).as_posix())
    return found


def listening(folder: Path) -> set[str]:
    """Addresses on which the processes of a clone listen."""
    found = set()
    for process in psutil.process_iter(["cmdline", "cwd"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line or (process.info["cwd"] or "").startswith(str(folder)):
            try:
                for each in process.net_connections(kind="inet"):
                    if each.status == psutil.CONN_LISTEN:
                        found.add(each.laddr.ip)
            except psutil.Error:
                continue
    return found


@pytest.fixture(scope="module")
def quiet(
    make_clone: Callable[[Path], Clone],
    tmp_path_factory: pytest.TempPathFactory,
    all_faults: bool,
) -> Clone:
    """A small clone, for runs with secrets in the environment."""
    if not all_faults:
        pytest.skip("runs the pipeline: make test-faults")
    return make_clone(tmp_path_factory.mktemp("quiet") / "clone")


def watched(clone: Clone, name: str, until: str = "", **environment: str) -> tuple[str, set[str]]:
    """Run a command; what it prints, and the addresses that were listened on meanwhile.

    It is ended once it has printed the line that begins with ``until``.
    """
    told = SECRETS | environment
    log = clone.folder.parent / f"{name}.log"
    where: set[str] = set()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "src/commands", name],
            cwd=clone.folder,
            env=inherited | {"HOME": str(clone.folder.parent)} | told,
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            where |= listening(clone.folder)
            if until and f"\n{until}" in f"\n{log.read_text()}":
                process.terminate()
                process.wait(30)
            time.sleep(0.1)
        process.kill()
    return log.read_text(encoding="utf-8"), where


def test_a_run_keeps_secrets_and_listens_here_alone(
    quiet: Clone, record_property: Callable[[str, object], None]
) -> None:
    record_property("tried", len(SECRETS) + 1)
    said, where = watched(quiet, "train")
    assert (quiet.folder / "dvc.lock").exists(), said
    assert CANARY not in said
    assert holders(quiet.folder) == []
    assert where == {"127.0.0.1"}

    said, where = watched(quiet, "ui", until="Ctrl-C ends both.")
    assert "MLflow" in said
    assert CANARY not in said
    assert holders(quiet.folder) == []
    assert where == {"127.0.0.1"}
    quiet.check_that_nothing_runs()


def test_a_run_that_fails_keeps_secrets(
    quiet: Clone, record_property: Callable[[str, object], None]
) -> None:
    """A proxy, an MLflow and a Prefect of one's own that are not there, each with a password."""
    record_property("tried", 3)
    before = quiet.read("params.yaml")
    own = f"http://me:{CANARY}@127.0.0.1:{free_port()}"
    quiet.change({"data.source": SOURCE})
    said, _ = watched(quiet, "ingest", NO_PROXY="127.0.0.1")
    assert "at the proxy of HTTP_PROXY" in said
    (quiet.folder / "params.yaml").write_text(before)
    assert CANARY not in said

    quiet.change({"search.max_evals": 3})  # other results than those of the run before
    said, _ = watched(
        quiet,
        "train",
        MLFLOW_TRACKING_URI=own,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        MLFLOW_HTTP_REQUEST_TIMEOUT="2",
    )
    assert "MLflow does not record the rest of this search" in said, said
    assert CANARY not in said

    quiet.change({"seed": 43})
    said, _ = watched(quiet, "ingest", PREFECT_API_URL=f"{own}/api", PREFECT_API_KEY=CANARY)
    assert "failed" in said
    assert CANARY not in said
    assert holders(quiet.folder) == []
    quiet.check_that_nothing_runs()


def test_dasks_cluster_listens_here_alone(tmp_path: Path, root: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra dask")
    from trip_duration import cluster

    with cluster._local(1, tmp_path) as address:
        assert address.startswith("tcp://127.0.0.1:")
        this = psutil.Process()
        found = {
            each.laddr.ip
            for process in (this, *this.children(recursive=True))
            for each in process.net_connections(kind="inet")
            if each.status == psutil.CONN_LISTEN
        }
    assert found == {"127.0.0.1"}
