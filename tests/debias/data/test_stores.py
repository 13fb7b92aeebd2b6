"""Logs and folders in an object store: an S3 server on loopback."""

import json
import logging
import os

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from typer.testing import CliRunner

from debias.__main__ import app
from debias.data import ClickLog, RankingData, Stream, fingerprint, read_batches
from debias.data.events import import_events
from debias.data.read_log import read_log
from debias.data.stores import Remote, located
from tests.debias.data.test_read_log import COLUMNS, FLAT, expected

WHO = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def server():
    """A store, and the options of URLs to it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    before = {name: os.environ.get(name) for name in WHO}
    os.environ.update(WHO)
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    options = f"?endpoint_override={host}:{port}&scheme=http"
    store, _ = fs.FileSystem.from_uri(f"s3://logs{options}&allow_bucket_creation=true")
    store.create_dir("logs")
    yield store, options
    made.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def put(server, tmp_path):
    """Puts what a function writes to a path at a key of the store; its URL."""
    store, options = server

    def put(key, write):
        path = tmp_path / "put"
        write(path)
        with store.open_output_stream(f"logs/{key}", compression=None) as file:
            file.write(path.read_bytes())
        return f"s3://logs/{key}{options}"

    return put


def csv(table):
    return lambda path: pyarrow.csv.write_csv(table, path)


def parquet(table):
    return lambda path: pq.write_table(table, path)


def run(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done


NAMED = ["session=sid", "query=q", "item=doc", "click=clicked", "position=rank"]
MAPPED = [word for name in NAMED for word in ("-c", name)]


def test_files_folders_and_patterns(server, put):
    _, options = server
    expected(read_log(put("one/log.parquet", parquet(FLAT)), COLUMNS))
    expected(read_log(put("one/log.csv", csv(FLAT)), COLUMNS))
    for number in range(2):
        put(f"folder/day={number}/{number}.parquet", parquet(FLAT.slice(3 * number, 3)))
    expected(read_log(f"s3://logs/folder{options}", COLUMNS)._replace(unused=()))
    for pattern in ("folder/*/*.parquet", "folder/**/*.parquet"):
        found = read_log(f"s3://logs/{pattern}{options}", COLUMNS)
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
    _, options = server
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
        out = f"s3://logs/made/{name}{options}"
        run("import", events, "-o", out)
        assert read_log(out).log.click.tolist() == [[False, True]]
    again = run(
        "import", events, "-o", f"s3://logs/made/lists.parquet{options}", code=1
    )
    assert "exists; --force" in again.output
    data = RankingData([[1.0], [2.0]], None, [0, 2])
    items = put("own/items.parquet", data.write_parquet)
    own = put("own/log.parquet", ClickLog([0], [[0, 1]], [[1, 0]]).write)
    found = json.loads(run("inspect", own, "--data", items, "--json").stdout)
    assert found["features"] == 1


def test_what_a_store_lacks_or_refuses_is_named(server, put, tmp_path, monkeypatch):
    _, options = server
    with pytest.raises(FileNotFoundError, match=r"^s3://logs/nope\.parquet: no such"):
        read_log(f"s3://logs/nope.parquet{options}", COLUMNS)
    with pytest.raises(FileNotFoundError, match=r"s3://logs/nope/\*\.csv: no file has"):
        read_log(f"s3://logs/nope/*.csv{options}", COLUMNS)
    done = run("inspect", f"s3://logs/nope.parquet{options}", code=1)
    assert "s3://logs/nope.parquet: no such file" in done.output
    broken = put("bad/log.parquet", lambda path: path.write_bytes(b"PAR1 half"))
    with pytest.raises(
        ValueError, match=r"s3://logs/bad/log\.parquet: not a whole Parq"
    ):
        read_log(broken, COLUMNS)
    with pytest.raises(ValueError, match="must not hold credentials") as caught:
        located("s3://me:secret@logs/log.parquet")
    assert "secret" not in str(caught.value)
    bad = put("bad/log.csv", csv(FLAT.drop(["clicked"])))
    with pytest.raises(ValueError, match=r"s3://logs/bad/log\.csv: no column clicked"):
        read_log(bad, COLUMNS)


def test_refused_credentials_say_what_to_set(put):
    url = put("shop/log2.parquet", parquet(FLAT))

    def refuse(*_):
        raise OSError(
            "When getting information for key 'log2.parquet' in bucket 'logs': AWS "
            "Error ACCESS_DENIED during HeadObject operation: No response body."
        )

    place = located(url)
    with pytest.raises(
        PermissionError, match=r"^s3://logs/shop/log2\.parquet: .*AWS_PROF"
    ):
        Remote(place.scheme, place.path, Refusing(refuse)).exists()


class Refusing:
    def __init__(self, refuse):
        self.get_file_info = self.open_input_file = refuse


def test_events_of_a_store_are_streamed(server, put, tmp_path):
    rows = {"session": [1, 1], "event": ["impression", "click"], "item": [5, 5]}
    url = put("events/a.parquet", parquet(pa.table(rows)))
    found = import_events(url, tmp_path / "log")
    assert found.clicked == 1
