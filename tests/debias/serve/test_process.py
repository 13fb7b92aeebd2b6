"""Tests of `debias serve` as a process: killed, switched, asked too much."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx

from debias.retrieval.serving import versions
from tests.debias.retrieval import worlds
from tests.debias.serve.test_app import until

ROOT = Path(__file__).parents[3]


@contextmanager
def serving(root, *options, verify=None, token=None):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "debias", "serve", str(root), "--port", str(port)]
    env = {**os.environ, **({} if token is None else {"DEBIAS_TOKEN": token})}
    process = subprocess.Popen(
        [*command, *options], cwd=ROOT, stderr=subprocess.DEVNULL, env=env
    )

    def up():
        assert process.poll() is None
        try:
            return client.get("/health").status_code == 200
        except httpx.ConnectError:
            return False

    url = f"http{'s' if verify else ''}://127.0.0.1:{port}"
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    trusted = ssl.create_default_context(cafile=verify)
    with httpx.Client(
        base_url=url, timeout=30, headers=headers, verify=trusted
    ) as client:
        try:
            until(up, 60)
            yield process, client
        finally:
            process.kill()
            process.wait()


def version_of(found):
    """The version of an answer, all of whose parts are of that version."""
    assert found.status_code == 200, found.text
    answer = found.json()
    (number,) = {item.split("-")[0] for item in answer["items"]}
    assert int(number) == int(answer["version"])
    # Age 1 is a vector of length 1, so that the score is the length of item 8.
    assert abs(answer["scores"][0] - int(number) * 1.08) < 1e-4
    return int(number)


def ask(client):
    return client.post("/retrieve", json={"user": {"age": 1}, "k": 5})


def test_it_switches_under_load_and_comes_back_after_kill_9(tmp_path):
    root = tmp_path / "root"
    worlds.publish(root, tmp_path, 1)
    for served in (1, 3):
        with serving(root) as (process, client):
            stop, answered = threading.Event(), []

            def load(client=client, stop=stop, answered=answered):
                while not stop.is_set():
                    answered.append(ask(client))

            assert version_of(ask(client)) == served
            asking = threading.Thread(target=load)
            asking.start()
            worlds.publish(root, tmp_path, served + 1)
            until(lambda c=client, new=served + 1: version_of(ask(c)) == new)
            enough = len(answered) + 2  # the second was asked for after the switch
            until(lambda found=answered, enough=enough: len(found) >= enough)
            stop.set()
            asking.join()
            assert {served, served + 1} == {version_of(found) for found in answered}
            worlds.publish(root, tmp_path, served + 2)  # is being read when it dies
            process.send_signal(signal.SIGKILL)
    assert versions.current(root) == "000005"


def test_a_body_of_100_megabytes_is_refused_and_it_serves_on(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    with serving(tmp_path / "root") as (_, client):
        found = client.post("/retrieve", content=bytes(100_000_000))
        assert found.status_code == 413 and "4,000,000 bytes" in found.json()["error"]
        assert version_of(ask(client)) == 1


def test_it_starts_without_tensorflow_and_says_what_is_wrong(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    program = (
        "import sys; from debias.serve.app import service; service(sys.argv[1]); "
        "loaded = {'tensorflow', 'keras', 'jax'} & set(sys.modules); "
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "root"], check=True)
    for path, message in (
        ("absent", "holds no published version"),
        ("absent.onnx", "does not exist; debias export writes rankers"),
    ):
        done = ended(tmp_path / path)
        assert done.returncode == 1
        assert re.match(f"error: .*{path}: {message}", done.stderr)


def test_an_address_that_is_taken_is_named(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = ended(tmp_path / "root", "--port", str(port))
    assert done.returncode == 1 and "Address already in use" in done.stderr
    wanted = f"error: cannot listen on 127.0.0.1 port {port}; choose another --host or"
    assert wanted in done.stderr


def ended(*arguments):
    """A service that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "debias", "serve", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
