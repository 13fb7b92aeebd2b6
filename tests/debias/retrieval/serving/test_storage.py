"""Versions in object stores: servers of S3 and of Google's kind on loopback."""

import io
import json
import logging

import pytest
from typer.testing import CliRunner

from debias.__main__ import app
from debias.data import stores
from debias.data.stores import located
from debias.retrieval.serving import storage, versions
from debias.retrieval.serving.query import retrieve
from debias.serve.live import Live
from tests.debias.data.test_stores import server  # noqa: F401 (a fixture)
from tests.debias.retrieval import worlds


@pytest.fixture
def url(server, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / "cache"))
    return server.url(tmp_path.name)


def elsewhere(monkeypatch, tmp_path, name="other"):
    """Makes this process another machine, which has read nothing yet."""
    monkeypatch.setenv("DEBIAS_CACHE", str(tmp_path / name))


def found(url):
    """Keys of the store below the root."""
    root = located(url)
    files = [each for each in root.inside(recursive=True) if each.is_file()]
    return {each.path.removeprefix(f"{root.path}/") for each in files}


def overwrite(url, key, content):
    (located(url) / key).put(io.BytesIO(content))


def test_a_version_of_a_store_is_that_of_a_disk(url, tmp_path, monkeypatch):
    for number in (1, 2, 3):
        worlds.publish(url, tmp_path, number, keep=2, extra={"number": number})
        worlds.publish(tmp_path / "disk", tmp_path, number, extra={"number": number})
    assert versions.names(url) == ["000002", "000003"]
    elsewhere(monkeypatch, tmp_path)
    one, other = versions.load(url), versions.load(tmp_path / "disk")
    assert one.name == other.name == versions.current(url) == "000003"
    assert versions.manifest(url)["files"] == other.manifest["files"]
    assert (one.index.vectors == other.index.vectors).all()
    asked = {"age": 1.0}, ["3-1"]
    assert retrieve(one, *asked, k=5) == retrieve(other, *asked, k=5)
    files = {f"versions/000003/{name}" for name in other.manifest["files"]}
    assert {"CURRENT", "versions/000003/manifest.json", *files} < found(url)
    assert versions.roll_back(url) == versions.load(url).name == "000002"
    assert worlds.publish(url, tmp_path, 4, keep=2) == "000004"
    assert versions.names(url) == ["000002", "000004"]  # not the one rolled back from
    done = CliRunner().invoke(app, ["retrieval", "query", url, "--user", "ann"])
    assert done.exit_code == 0 and "4-" in done.output


def test_a_server_follows_a_store_and_refuses_what_is_damaged(
    url, tmp_path, monkeypatch, caplog
):
    worlds.publish(url, tmp_path)
    elsewhere(monkeypatch, tmp_path)
    live = Live(url)
    assert live.version.name == "000001" and live.refused is None
    elsewhere(monkeypatch, tmp_path, "cache")
    worlds.publish(url, tmp_path, 2)
    overwrite(url, "versions/000002/vectors.npy", b"bad")
    elsewhere(monkeypatch, tmp_path)
    with caplog.at_level(logging.CRITICAL):
        live.follow()
    assert live.version.name == "000001"
    assert "versions/000002/vectors.npy: does not have its checksum" in live.refused
    done = CliRunner().invoke(app, ["retrieval", "check", url, "--json"])
    checked = json.loads(done.stdout)
    assert done.exit_code == 1 and [row["current"] for row in checked] == [False, True]
    assert checked[0]["damage"] is None and "://logs/" in checked[1]["damage"]
    elsewhere(monkeypatch, tmp_path, "third")  # a server that begins now
    with caplog.at_level(logging.CRITICAL):
        assert Live(url).version.name == "000001"
    elsewhere(monkeypatch, tmp_path)
    worlds.publish(url, tmp_path, 3)
    live.follow()
    assert live.version.name == "000003" and live.refused is None


def failing(monkeypatch, text, at="put", last=""):
    """Has the store fail at files whose path ends so."""
    real = getattr(stores.Remote, at)

    def fail(self, *arguments):
        if self.path.endswith(last):
            with stores.naming_store(self):
                raise OSError(text)
        return real(self, *arguments)

    monkeypatch.setattr(stores.Remote, at, fail)


FULL = "AWS Error UNKNOWN (HTTP status 507) during UploadPart operation: no space left"
DENIED = "AWS Error ACCESS_DENIED during PutObject operation: Access Denied"
GONE = "AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"


@pytest.mark.parametrize(
    ("text", "said"),
    [(FULL, "the store is full"), (DENIED, "refuses these credentials")],
)
def test_an_upload_that_fails_leaves_the_last_version(
    url, tmp_path, monkeypatch, text, said
):
    worlds.publish(url, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match=said):
        failing(patch, text, last="vectors.npy")
        worlds.publish(url, tmp_path, 2)
    assert versions.names(url) == ["000001"] and versions.load(url).name == "000001"
    left = {key for key in found(url) if key.startswith("versions/000002/")}
    assert left and "versions/000002/manifest.json" not in left
    assert worlds.publish(url, tmp_path, 3) == "000003"
    worlds.publish(url, tmp_path, 4)  # removes what the failed one left
    assert not any(key.startswith("versions/000002/") for key in found(url))


def test_a_store_that_does_not_answer(url, tmp_path, monkeypatch, caplog):
    worlds.publish(url, tmp_path)
    live = Live(url)
    caplog.set_level(logging.CRITICAL)
    with monkeypatch.context() as patch:
        failing(patch, GONE, "read_bytes")
        live.follow()
        assert "cannot be reached" in live.refused and live.version.name == "000001"
        again = Live(url)  # a worker that starts meanwhile
        assert again.version.name == "000001" and "cannot be" in again.refused
        elsewhere(monkeypatch, tmp_path)
        with pytest.raises(OSError, match="cannot be reached"):
            Live(url)
    live.follow()
    assert live.refused is None and live.switches == 0


def test_a_store_that_is_absent_or_empty(url, tmp_path):
    with pytest.raises(ValueError, match=r"^\w+://logs/.*: holds no published"):
        versions.load(url)
    with pytest.raises(FileNotFoundError, match=r"no such (bucket|file or folder)"):
        worlds.publish(url.replace("logs/", "nowhere/"), tmp_path)


def test_two_machines_do_not_mix_their_files(url, tmp_path, monkeypatch):
    worlds.publish(url, tmp_path)
    real = storage.Store._claim

    def meanwhile(self, folder):
        monkeypatch.setattr(storage.Store, "_claim", real)
        overwrite(url, "versions/000002/.other", b"")  # of the same new number
        real(self, folder)

    monkeypatch.setattr(storage.Store, "_claim", meanwhile)
    with pytest.raises(ValueError, match="000002: another process is publishing here"):
        worlds.publish(url, tmp_path, 2)

    def faster(self, folder):
        monkeypatch.setattr(storage.Store, "_claim", real)
        real(self, folder)
        elsewhere(monkeypatch, tmp_path)
        assert worlds.publish(url, tmp_path, 4) == "000004"

    monkeypatch.setattr(storage.Store, "_claim", faster)
    with pytest.raises(ValueError, match="another process published meanwhile"):
        worlds.publish(url, tmp_path, 3)
    assert versions.load(url).name == "000004"
