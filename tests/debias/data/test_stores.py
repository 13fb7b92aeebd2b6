"""Logs and folders in object stores: servers of S3 and of Google's kind on loopback."""

import json
import logging
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from debias.commands.serve import _ranker
from debias.data import ClickLog, RankingData, Stream, fingerprint, read_batches
from debias.data.events import import_events
from debias.data.read_log import read_log
from debias.data.stores import Remote, located
from tests.debias.commands.prompt import run
from tests.debias.data.test_read_log import COLUMNS, FLAT, expected

WHO = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Store(NamedTuple):
    files: fs.FileSystem
    root: str  # of URLs to the bucket
    options: str  # behind them
    named: str  # the root in messages

    def url(self, key):
        return f"{self.root}{key}{self.options}"


@contextmanager
def amazon():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    options = f"?endpoint_override={host}:{port}&scheme=http"
    files, _ = fs.FileSystem.from_uri(f"s3://logs{options}&allow_bucket_creation=true")
    files.create_dir("logs")
    yield Store(files, "s3://logs/", options, "s3://logs/")
    made.stop()


@contextmanager
def google():
    """In a process of its own: Arrow holds the lock of the interpreter as it waits."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = ["start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    command = [sys.executable, "-m", "gcp_storage_emulator", *start]
    process = subprocess.Popen(
        [*command, "--default-bucket", "logs"], stderr=subprocess.DEVNULL
    )
    try:
        options = f"?endpoint_override=127.0.0.1:{port}&scheme=http"
        files, _ = fs.FileSystem.from_uri(f"gs://anonymous@logs{options}")
        files.get_file_info("logs")  # waits until it is there
        yield Store(files, "gs://anonymous@logs/", options, "gs://logs/")
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module", params=[amazon, google])
def server(request):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WHO.items():
            patch.setenv(name, value)
        with request.param() as store:
            yield store


@pytest.fixture
def put(server, tmp_path):
    """Puts what a function writes to a path at a key of the store; its URL."""

    def put(key, write):
        path = tmp_path / "put"
        write(path)
        with server.files.open_output_stream(f"logs/{key}", compression=None) as file:
            file.write(path.read_bytes())
        return server.url(key)

    return put


def csv(table):
    return lambda path: pyarrow.csv.write_csv(table, path)


def parquet(table):
    return lambda path: pq.write_table(table, path)


NAMED = ["session=sid", "query=q", "item=doc", "click=clicked", "position=rank"]
MAPPED = [word for name in NAMED for word in ("-c", name)]


def test_files_folders_and_patterns(server, put):
    expected(read_log(put("one/log.parquet", parquet(FLAT)), COLUMNS))
    expected(read_log(put("one/log.csv", csv(FLAT)), COLUMNS))
    for number in range(2):
        put(f"folder/day={number}/{number}.parquet", parquet(FLAT.slice(3 * number, 3)))
    folder = read_log(server.url("folder"), COLUMNS)
    assert folder.unused == ("day",)
    expected(folder._replace(unused=()))
    for pattern in ("folder/*/*.parquet", "folder/**/*.parquet"):
        found = read_log(server.url(pattern), COLUMNS)
        expected(found._replace(unused=()))
    packed = put(
        "one/log.csv.gz",
        lambda path: path.write_bytes(gzipped(csv(FLAT), path)),
    )
    expected(read_log(packed, COLUMNS))


def gzipped(write, path):
    import gzip

    write(path)
    return gzip.compress(path.read_bytes())


def test_logs_of_this_library(server, put):
    log = ClickLog([0, 1, 1], [[0, 1], [2, -1], [2, 1]], [[1, 0], [0, 0], [0, 1]])
    url = put("own/part-00000.parquet", log.write)
    folder = url.replace("/part-00000.parquet", "")
    for source in (url, folder):
        assert ClickLog.open(source).item.tolist() == log.item.tolist()
        assert sum(len(piece) for piece in read_batches(source)) == 3
        assert Stream(source).list_size == 2 and len(fingerprint(source)) == 32
    table = run("inspect", folder, "--json")
    assert json.loads(table.stdout)["sessions"] == 3


def test_commands_read_and_write_urls(server, put, tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "cache"))
    log = put("shop/log.parquet", parquet(FLAT))
    found = json.loads(run("inspect", log, *MAPPED, "--json").stdout)
    assert found["sessions"] == 3
    rows = {
        "session": ["a"] * 3,
        "event": ["impression", "impression", "click"],
        "item": ["x", "y", "y"],
        "query": ["q"] * 3,
    }
    events = put("shop/events.csv", csv(pa.table(rows)))
    for name in ("lists", "lists.parquet"):
        out = server.url(f"made/{name}")
        said = json.loads(run("import", events, "-o", out, "--json").stdout)
        assert said["path"] == f"{server.named}made/{name}"  # not that of the copy
        assert read_log(out).log.click.tolist() == [[False, True]]
    again = run("import", events, "-o", server.url("made/lists.parquet"), code=1)
    assert "exists; --force" in again.output
    data = RankingData([[1.0], [2.0]], None, [0, 2])
    items = put("own/items.parquet", data.write_parquet)
    own = put("own/log.parquet", ClickLog([0], [[0, 1]], [[1, 0]]).write)
    found = json.loads(run("inspect", own, "--data", items, "--json").stdout)
    assert found["features"] == 1


def test_a_ranker_of_a_store_is_served(server, put, tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "cache"))
    for key in ("trained/train.json", "trained/ranker.keras", "exported/a.onnx"):
        put(key, lambda path, key=key: path.write_text(key))
    folder = _ranker(server.url("trained"))
    assert (folder / "ranker.keras").read_text() == "trained/ranker.keras"
    assert _ranker(server.url("exported/a.onnx")).read_text() == "exported/a.onnx"
    for key in ("exported", "absent"):
        assert _ranker(server.url(key)) is None
    with pytest.raises(ValueError, match="does not exist; debias export"):
        _ranker(server.url("exported/b.onnx"))


def test_training_and_ranking_read_and_write_urls(
    server, put, tmp_path, monkeypatch, eagerly
):
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "cache"))
    shown = range(120)
    table = pa.table(
        {
            "session": [row // 3 for row in shown],
            "query": [f"q{row // 3 % 4}" for row in shown],
            "item": [row % 5 for row in shown],
            "click": [int(row % 3 == row % 5) for row in shown],
            "f_brand": [["acme", None][row % 5 % 2] for row in shown],
        }
    )
    log, trained = put("shop/rows.csv", csv(table)), server.url("made/trained")
    one = ["--model", "naive", "--epochs", "1", "-c", "features=f_*"]
    said = run("train", log, *one, "-o", trained).output
    assert f"written to {server.named}made/trained" in " ".join(said.split())
    out = server.url("made/ranked.parquet")
    run("rank", trained, log, "-o", out)
    with server.files.open_input_file("logs/made/ranked.parquet") as file:
        ranked = pq.read_table(file)
    assert sorted(ranked["rank"].to_pylist()[:3]) == [1, 2, 3]


def test_what_a_store_lacks_or_refuses_is_named(server, put):
    at = re.escape(server.named)
    with pytest.raises(FileNotFoundError, match=rf"^{at}nope\.parquet: no such"):
        read_log(server.url("nope.parquet"), COLUMNS)
    with pytest.raises(FileNotFoundError, match=r"nope/\*\.csv: no file matches"):
        read_log(server.url("nope/*.csv"), COLUMNS)
    done = run("inspect", server.url("nope.parquet"), code=1)
    assert f"{server.named}nope.parquet: no such file" in done.output
    broken = put("bad/log.parquet", lambda path: path.write_bytes(b"PAR1 half"))
    with pytest.raises(
        ValueError, match=rf"{at}bad/log\.parquet: is not a complete Parq"
    ):
        read_log(broken, COLUMNS)
    bad = put("bad/log.csv", csv(FLAT.drop(["clicked"])))
    with pytest.raises(ValueError, match=rf"{at}bad/log\.csv: no column clicked"):
        read_log(bad, COLUMNS)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_urls_hold_no_credentials(scheme):
    with pytest.raises(ValueError, match="must not contain credentials") as caught:
        located(f"{scheme}://me:secret@logs/log.parquet")
    assert "secret" not in str(caught.value)
    key = located(f"{scheme}://logs/me@home.parquet?{NOWHERE[scheme]}")
    assert str(key) == f"{scheme}://logs/me@home.parquet"


NOWHERE = {
    "s3": "region=us-east-1&endpoint_override=127.0.0.1:9&scheme=http",
    "gs": "retry_limit_seconds=1&endpoint_override=127.0.0.1:9&scheme=http",
}


def test_a_store_that_is_not_there_is_no_missing_file():
    place = located(f"gs://anonymous@logs/404.csv?{NOWHERE['gs']}")
    with pytest.raises(OSError, match=r"^gs://logs/404\.csv: the store cannot be rea"):
        place.exists()


def test_missing_credentials_say_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    done = run("inspect", "gs://logs/log.parquet", code=1)
    said = " ".join(done.output.split())
    assert "gs://logs/log.parquet: there are no credentials; run gcloud" in said
    assert "google::cloud" not in said


@pytest.mark.parametrize(
    "scheme, error, advice",
    [
        ("s3", OSError("AWS Error ACCESS_DENIED during HeadObject operation"), "AWS_P"),
        ("s3", OSError("AWS Error UNKNOWN (HTTP status 403) during"), "AWS_PROFILE"),
        ("gs", PermissionError(13, "google::cloud::Status(PERMISSION_DENIED"), "GOOG"),
        ("gs", PermissionError(13, "google::cloud::Status(UNAUTHENTICATED"), "GOOGLE_"),
    ],
)
def test_refused_credentials_say_what_to_set(scheme, error, advice):
    def refuse(*_):
        raise error

    place = Remote(scheme, "logs/log.parquet", Refusing(refuse))
    refused = rf"^{scheme}://logs/log\.parquet: the store refuses these .*{advice}"
    with pytest.raises(PermissionError, match=refused):
        place.exists()


class Refusing:
    def __init__(self, refuse):
        self.get_file_info = self.open_input_file = refuse


def test_events_of_a_store_are_streamed(server, put, tmp_path):
    rows = {"session": [1, 1], "event": ["impression", "click"], "item": [5, 5]}
    url = put("events/a.parquet", parquet(pa.table(rows)))
    found = import_events(url, tmp_path / "log")
    assert found.clicked == 1
