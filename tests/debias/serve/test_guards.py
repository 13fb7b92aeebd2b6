"""Tests of debias.serve.guards: who may ask, how much, how long; and the log."""

import asyncio
import json
import logging

import pytest
from prometheus_client import CollectorRegistry, Histogram

from debias.serve.app import service
from debias.serve.guards import Limited, Refusal, hosts_of, served_here
from debias.serve.workers import BUSY
from tests.debias.retrieval import worlds
from tests.debias.serve.running import running


@pytest.fixture
def root(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    return tmp_path / "root"


def ask(client, **headers):
    return client.post("/retrieve", json={"k": 1}, headers=headers)


def test_a_host_that_is_not_served_is_refused(root):
    with running(service(root, hosts=hosts_of("127.0.0.1", ["a.test"]))) as client:
        for host in (
            "localhost",
            "127.0.0.1:8000",
            "[::1]:8000",
            "A.test.",
            "a.test:1",
        ):
            assert ask(client, host=host).status_code == 200, host
        for host in ("evil.test", "10.0.0.1", "", "localhost:x", "localhost evil.test"):
            found = ask(client, host=host)
            assert found.status_code == 400 and "not served here" in found.text, host


def test_all_addresses_of_a_machine_answer_to_addresses():
    hosts = hosts_of("0.0.0.0", ["a.test"])
    for host, served in (
        ("10.1.2.3:80", True),
        ("[fe80::1]", True),
        ("a.test", True),
        ("localhost", True),
        ("10.1.2.3.evil.test", False),
        ("evil.test", False),
    ):
        assert served_here(host, hosts) is served, host
    assert not served_here("localhost", hosts_of("10.1.2.3"))


def test_a_token_is_asked_for_but_by_probes(root):
    with running(service(root, token="sesame")) as client:
        for path in ("/live", "/ready"):
            assert client.get(path).status_code == 200
        for path in ("/", "/health", "/metrics", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 401
        for given in ("sesame", "Bearer", "Bearer Sesame", "Basic x"):
            found = ask(client, authorization=given)
            assert found.status_code == 401 and "token" in found.json()["error"], given
            assert found.headers["www-authenticate"] == "Bearer"
        assert ask(client, authorization="Bearer sesame").status_code == 200


def test_a_body_of_another_type_is_refused(root):
    with running(service(root)) as client:
        found = client.post("/retrieve", content="{}")
        assert found.status_code == 415 and "application/json" in found.json()["error"]
        headers = {"content-type": "Application/JSON; charset=utf-8"}
        assert (
            client.post("/retrieve", content="{}", headers=headers).status_code == 200
        )


def test_the_log_is_a_line_of_json_a_request(root, caplog):
    caplog.set_level(logging.INFO, "debias.access")
    with running(service(root)) as client:
        answer = ask(client)
        client.get("/%1b[31m%c3%a9")
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    (found,) = [line for line in lines if line["path"] == "/retrieve"]
    assert found["status"] == 200 and found["method"] == "POST"
    assert found["bytes"] == len(answer.content) and found["client"] == "127.0.0.1"
    assert 0 < found["ms"] < 10_000
    assert all(record.getMessage().isascii() for record in caplog.records)


def test_a_refusal_is_counted_and_logged_like_an_answer(caplog):
    caplog.set_level(logging.INFO, "debias.access")
    registry, free = CollectorRegistry(), [True, False, False]
    seconds = Histogram("s", "s", ["path", "status"], registry=registry)
    refusal = Refusal(lambda: free.pop(0), seconds, {"/rank"})
    assert refusal(b"/rank") is None and not caplog.records
    assert json.loads(refusal(b"/rank?x=1")) == {"error": BUSY}
    refusal(b"/\x1b[31m")
    for path in ("/rank", "other"):
        assert (
            registry.get_sample_value("s_count", {"path": path, "status": "503"}) == 1
        )
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/rank", 503),
        ("/\x1b[31m", 503),
    ]


def test_bodies_that_would_fill_the_memory_are_refused():
    """With 16 bodies of 1,000 bytes half received, another is sent away."""

    async def never():
        await asyncio.sleep(60)

    async def scenario():
        limited, statuses = Limited(None, body=1_000, seconds=60), []
        scope = {"type": "http", "method": "POST"}

        async def send(message):
            statuses.append(message.get("status"))

        def body(size):
            messages = iter([{"body": bytes(size), "more_body": True}])

            async def receive():
                for message in messages:
                    return {"type": "http.request", **message}
                return await never()

            return asyncio.create_task(limited(scope, receive, send))

        held = [body(1_000) for _ in range(16)]
        await asyncio.sleep(0.01)
        assert limited.held == 16_000 and statuses == []
        await body(1)
        assert statuses[0] == 503 and limited.held == 16_000
        for each in held:
            each.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        assert limited.held == 0

    asyncio.run(scenario())
