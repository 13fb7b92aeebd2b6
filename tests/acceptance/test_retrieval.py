"""From events to a served version that follows its stream."""

import contextlib
import json
import signal
import socket
import time
import urllib.request

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.acceptance import worlds

COMMAND, PATH = "retrieval", "/retrieve"  # of `debias`, and over HTTP
SMALL = ["--dim", "4", "--hidden", "4", "--length", "4", "--epochs", "1"]


@pytest.fixture(scope="module")
def prompt(prompt_in):
    """Holds events, a table of items, a trained folder and a published version."""
    prompt = prompt_in("retrieval")
    worlds.write(prompt.folder / "items.parquet", worlds.items())
    worlds.write(prompt.folder / "day1.csv", worlds.events(0, 700))
    worlds.write(prompt.folder / "day2.csv", worlds.events(700, 1000))
    tables = ["--items", "items.parquet", "-o", "model"]
    found = prompt.json(COMMAND, "train", "day1.csv", *SMALL, *tables)
    assert (found["users"], found["items"], found["events"]) == (30, 40, 700)
    assert "version 000001" in prompt.debias(COMMAND, "publish", "model", "versions")
    return prompt


def query(prompt, *arguments):
    return prompt.json(COMMAND, "query", "versions", "-k", "5", *arguments)


def test_a_model_is_judged_by_later_events(prompt):
    found = prompt.json(COMMAND, "evaluate", "model", "day2.csv")
    assert found["users"] == 30 and found["hr@50"] == 1  # of 40 items


def test_a_version_answers_and_follows_its_stream(prompt):
    known = query(prompt, "--user", "007")
    assert known["known"] and len(known["items"]) == 5
    assert not query(prompt, "--user", "7")["known"]  # whose id is another
    said = prompt.debias(COMMAND, "update", "versions", "day2.csv")
    assert "000002" in said and "300" in said
    assert query(prompt, "--user", "007")["version"] == "000002"


@contextlib.contextmanager
def serving(prompt, *arguments):
    """Yields the server's process and what asks it, once it is up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{port}{path}"
        head = {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, data, head)) as answer:
            return json.load(answer)

    command = ["debias", "serve", "versions", "--port", port, *arguments]
    with prompt.started(*command) as process:
        for _ in range(600):
            assert process.poll() is None, process.communicate()
            with contextlib.suppress(OSError):
                ask("/health")
                break
            time.sleep(0.1)
        yield process, ask


def test_a_server_answers_as_the_commands_do_and_stops_at_ctrl_c(prompt, ranker):
    items = pq.read_table(ranker.folder / "mixture.parquet")
    names = ["f_1", "f_2", "f_0"]
    features = np.stack([items[name].to_numpy() for name in names], axis=1)
    with serving(prompt, "--ranker", ranker.folder / "mixture.onnx") as (process, ask):
        found = ask(PATH, {"user": {"id": "007"}, "k": 5})
        asked = query(prompt, "--user", "007")
        assert found["version"] == asked["version"] and found["items"] == asked["items"]
        np.testing.assert_allclose(found["scores"], asked["scores"], atol=1e-5)
        unknown = ask(PATH, {"user": {"id": "7"}, "history": asked["items"][:2]})
        assert not unknown["known"] and unknown["items"]
        ranked = ask("/rank", {"features": features.tolist(), "names": names})
        np.testing.assert_allclose(ranked["scores"], items["score"], atol=1e-5)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    assert process.returncode in (0, 130) and "Traceback" not in said
