"""Tests of debias.serve.running: certificates, and workers that die."""

import json
import signal
import subprocess
import time
from unittest.mock import Mock

import httpx
import psutil
import pytest
from uvicorn import _subprocess

from debias.commands.serve import _ranker, _token
from debias.serve.running import Tls, _fork_workers
from tests.debias.retrieval import worlds
from tests.debias.serve.test_app import cut, until
from tests.debias.serve.test_process import serving


def workers_of(process):
    """The children of the process that forks them, which is a child of the service."""
    children = psutil.Process(process.pid).children()
    return [worker for child in children for worker in child.children()]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    command = "openssl rsa -in key.pem -aes128 -passout pass:x -out locked.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_a_certificate_that_is_wrong_is_named(certificate, tmp_path):
    cert, key = certificate
    Tls(cert, key)
    Tls(cert, key.with_name("locked.pem"), "x")
    bad = tmp_path / "bad.pem"
    bad.write_text("no")
    for arguments, reason in (
        ((tmp_path / "absent.pem", key), "absent.pem: does not exist"),
        ((cert, cert), "is not a certificate with its key"),
        ((bad, key), "bad.pem and .*is not a certificate"),
        ((cert, key.with_name("locked.pem"), "y"), "password of the key is wrong"),
        ((cert, key.with_name("locked.pem")), "password of the key is wrong"),
        ((None, key), "need --ssl-certfile"),
        ((cert, key, None, bad), "bad.pem: holds no certificate"),
    ):
        with pytest.raises(ValueError, match=reason):
            Tls(*arguments)


def test_workers_that_die_are_started_on_the_last_good_version(tmp_path):
    root = tmp_path / "root"
    worlds.publish(root, tmp_path, 1)
    worlds.publish(root, tmp_path, 2)
    options = ["--workers", "2", "--access-log", str(tmp_path / "log")]
    with serving(root, *options) as (process, client):
        assert client.get("/ready").json() == {"ready": True, "version": "000002"}
        cut(root, "000002")
        workers = workers_of(process)
        assert len(workers) == 2
        for worker in workers:
            worker.send_signal(signal.SIGBUS)

        def again():
            try:
                return client.get("/health").json()["version"] == "000001"
            except httpx.TransportError:
                return False

        until(again, 30)
        until(lambda: "debias_version 1.0" in client.get("/metrics").text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {"/ready", "/health"} <= {line["path"] for line in lines}


def test_a_worker_that_dies_while_it_is_asked_is_noticed_at_once(tmp_path):
    """A stopped one leaves the question open, then is killed: no wait of 30 s."""
    worlds.publish(tmp_path / "root", tmp_path)
    with serving(tmp_path / "root") as (process, client):
        (worker,) = workers_of(process)
        worker.suspend()
        time.sleep(1.5)  # it is asked twice a second
        worker.kill()

        def again():
            try:
                return client.get("/live").status_code == 200
            except httpx.TransportError:  # the connection ended with the worker
                return False

        until(again, 25)


def test_workers_are_forked_where_there_is_a_folder_for_a_socket(monkeypatch):
    monkeypatch.setattr(_subprocess, "spawn", before := _subprocess.spawn)
    preload = Mock()  # of this process, which others may want otherwise
    monkeypatch.setattr("multiprocessing.forkserver.set_forkserver_preload", preload)
    none = Mock(side_effect=FileNotFoundError("No usable temporary directory"))
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.gettempdir", none)
        _fork_workers()
    assert _subprocess.spawn is before and not preload.called
    _fork_workers()
    assert _subprocess.spawn.get_start_method() == "forkserver" and preload.called


def test_workers_end_with_their_supervisor(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    with serving(tmp_path / "root") as (process, _):
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers_of(process)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert alive == []


def test_https_and_a_token_from_the_environment(certificate, tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    cert, key = certificate
    options = ["--ssl-certfile", str(cert), "--ssl-keyfile", str(key)]
    with serving(tmp_path / "root", *options, verify=str(cert), token="sesame") as (
        _,
        client,
    ):
        assert client.get("/health").json()["version"] == "000001"
        del client.headers["authorization"]
        assert client.get("/health").status_code == 401
        assert client.get("/ready").status_code == 200


@pytest.mark.parametrize("text", ["", "two words", "caf\xe9", "a\x00b"])
def test_a_token_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(ValueError, match="token: must hold a token of printable ASCII"):
        _token(tmp_path / "token", None)
    with pytest.raises(ValueError, match="DEBIAS_TOKEN: must hold"):
        _token(None, text)


def test_the_token_of_a_file_goes_before_that_of_the_environment(tmp_path):
    (tmp_path / "token").write_text("sesame\n")
    assert _token(tmp_path / "token", "other") == "sesame"
    assert _token(None, "other") == "other" and _token(None, None) is None


def test_what_is_a_ranker_alone(tmp_path):
    files = ("a.onnx", "a.txt", "trained/train.json", "saved/saved_model.pb")
    for name in (*files, "towers/train.json", "towers/learner/x", "versions/CURRENT"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    for name in files:
        path = tmp_path / name.split("/")[0]
        assert _ranker(str(path)) == (None if name == "a.txt" else path)
    for name in ("towers", "versions", "absent"):
        assert _ranker(str(tmp_path / name)) is None
    with pytest.raises(ValueError, match=r"absent\.onnx: does not exist"):
        _ranker(str(tmp_path / "absent.onnx"))
