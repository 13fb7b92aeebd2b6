"""Tests of debias.serve: what the service answers, in one process."""

import json
import re
import threading
import time

import numpy as np
import pytest

from debias.artifacts import open_scorer
from debias.engine.scoring import Scorer
from debias.retrieval.serving import versions
from debias.serve.app import service
from tests.debias.retrieval import worlds
from tests.debias.serve.running import running


def twice(features):
    if features.shape[1] != 2:
        raise ValueError("the ranker cannot score items of other than 2 features")
    return 2 * features[:, 0]


@pytest.fixture
def root(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    return tmp_path / "root"


@pytest.fixture
def client(root):
    with running(service(root, twice, body=20_000, poll=0.02)) as client:
        yield client


def retrieve(client, **asked):
    return client.post("/retrieve", json=asked)


def until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_retrieval_of_a_new_user(client):
    asked = {"user": {"id": "eve", "age": 1}, "history": ["1-1", "1-5", "x"], "k": 2}
    found = retrieve(client, **asked, where={"price": [None, 8]})
    assert found.status_code == 200
    assert found.json() == {
        "version": "000001",
        "items": ["1-8", "1-4"],  # the other items of axis 1 are seen or dearer
        "scores": pytest.approx([1.08, 1.04]),
        "known": False,
        "passed_over": ["x"],
    }


def test_retrieval_of_a_known_user_who_says_nothing_else(client):
    found = retrieve(client, user={"id": "ann"}, k=1).json()
    assert found["known"] and found["items"] == ["1-9"]


def test_rank_orders_by_the_score_of_the_ranker(client):
    features = [[1.0, 9.0], [3.0, 0.0], [3.0, 1.0], [-1.0, 0.0]]
    found = client.post("/rank", json={"features": features})
    assert found.json() == {"scores": [2, 6, 6, -2], "order": [1, 2, 0, 3]}


def test_health_and_metrics(client):
    retrieve(client, k=1)
    retrieve(client, k=0)
    health = client.get("/health").json()
    assert health.pop("created").startswith("20")
    counts = {"version": "000001", "items": 12, "users": 2}
    ranker = {"ranker": True, "feature_names": None}
    assert health == {**counts, **ranker, "refused": None}
    lines = client.get("/metrics").text.splitlines()
    assert 'debias_request_seconds_count{path="/retrieve",status="200"} 1.0' in lines
    assert 'debias_request_seconds_count{path="/retrieve",status="422"} 1.0' in lines
    assert "debias_version 1.0" in lines and "debias_items 12.0" in lines


def test_the_page_and_the_interface_need_no_other_machine(client):
    page, docs = client.get("/").text, client.get("/docs").text
    assert "Version 000001" in page and "<option>ann</option>" in page
    assert "http" not in page and "://" not in docs
    assert {"/retrieve", "/rank"} <= client.get("/openapi.json").json()["paths"].keys()


@pytest.mark.parametrize(
    "body, status, reason",
    [
        ("{", 400, "JSON"),
        ('{"k": 0}', 422, "k: .* greater than or equal to 1"),
        ('{"k": 1000000}', 422, "k: .* less than or equal to 1000"),
        ('{"k": 1.5}', 422, "k: .*integer"),
        ('{"k": "9"}', 422, "k: .*integer"),
        ('{"n": 9}', 422, "n: Extra inputs"),
        ("[]", 422, "dictionary"),
        ("", 422, "required"),
        ('{"history": [NaN]}', 422, "history.0"),
        ('{"history": [1.5]}', 422, "history.0"),
        ('{"history": [null]}', 422, "history.0"),
        ('{"user": {"age": NaN}}', 422, "user.age.*finite"),
        ('{"user": {"age": 1e999}}', 422, "user.age.*finite"),
        ('{"user": {"age": 1e39}}', 422, "'age' must be a finite number"),
        ('{"user": {"age": "old"}}', 422, "'age' must be a finite number"),
        ('{"user": {"shoe": 1}}', 422, "unknown features"),
        ('{"user": {"\\ud800": 1}}', 422, "unknown features"),
        ('{"\\ud800": 1}', 422, "string"),
        ('{"where": {"shoe": [1]}}', 422, "unknown feature 'shoe'"),
        ('{"where": {"price": [1]}}', 422, "least, most"),
        ("[" * 9_000, 400, ""),
        ('{"k": ' + "9" * 9_000 + "}", 400, ""),
        (json.dumps({"history": ["x"] * 1001}), 422, "at most 1000"),
        (json.dumps({"history": ["x" * 501]}), 422, "at most 500"),
        (json.dumps({"history": ["x" * 30_000]}), 413, "larger than 20,000 bytes"),
    ],
)
def test_bad_input_is_refused_with_a_reason(client, body, status, reason):
    headers = {"content-type": "application/json"}
    found = client.post("/retrieve", content=body, headers=headers)
    assert found.status_code == status, found.text
    assert list(found.json()) == ["error"]
    assert re.search(reason, found.json()["error"])
    assert retrieve(client, k=1).status_code == 200


@pytest.mark.parametrize(
    "features, reason",
    [
        ([], "at least 1 item"),
        ([[1.0, 2.0], [1.0]], "one length"),
        ([[1.0, 2.0, 3.0]], "other than 2 features"),
        ([[1e39, 0.0]], "float32"),
        ([["a", 0.0]], "number"),
        ([[0.0, 1.0]] * 1001, "at most 1000"),
    ],
)
def test_rank_refuses(client, features, reason):
    found = client.post("/rank", json={"features": features})
    assert found.status_code == 422 and reason in found.json()["error"]


def test_rank_finds_features_by_name_in_any_order(root):
    ranker = Scorer(lambda x: x[..., 0] - 10 * x[..., 1], ("price", "age"))
    with running(service(root, ranker)) as client:
        assert client.get("/health").json()["feature_names"] == ["price", "age"]

        def rank(rows, names=None):
            return client.post("/rank", json={"features": rows, "names": names})

        plain = rank([[1, 2], [3, 4]]).json()
        assert plain["scores"] == [1 - 20, 3 - 40]
        assert rank([[2, 1], [4, 3]], ["age", "price"]).json() == plain
        assert rank([[2, 0, 1], [4, 9, 3]], ["age", "x", "price"]).json() == plain
        for names, reason in (
            (["age", "cost"], "the feature price is missing"),
            (["price", "price"], "the feature price comes 2 times"),
            (["price"], "names must name all 2 features"),
        ):
            found = rank([[1, 2]], names)
            assert found.status_code == 422 and reason in found.json()["error"]
        found = rank([[1.0]])  # one number is not spread over two features
        assert found.status_code == 422 and "reads 2 features" in found.json()["error"]


def test_names_need_a_ranker_that_knows_its_own(client):
    body = {"features": [[1.0, 2.0]], "names": ["a", "b"]}
    found = client.post("/rank", json=body)
    assert found.status_code == 422 and "does not know the names" in found.text


def test_no_ranker_no_rank_and_no_such_place(root):
    with running(service(root)) as client:
        for found in (client.post("/rank", json={}), client.get("/nowhere")):
            assert found.status_code == 404 and found.json() == {"error": "Not Found"}
        assert client.get("/retrieve").headers["allow"] == "POST"


def test_what_takes_too_long_is_given_up_and_too_many_are_sent_away(root, monkeypatch):
    held = threading.Event()

    def slow(features):
        held.wait(20)
        return features[:, 0]

    monkeypatch.setattr("debias.serve.app.WAITING", 1)
    with running(service(root, slow, seconds=0.3)) as client:
        found = []

        def ask():
            found.append(client.post("/rank", json={"features": [[1.0]]}))

        both = [threading.Thread(target=ask) for _ in range(2)]
        for each in both:
            each.start()
        for each in both:
            each.join()
        held.set()
        reasons = sorted(each.json()["error"] for each in found)
        assert [each.status_code for each in found] == [503, 503]
        assert reasons[0].startswith("the answer was not ready within 0.3 s")
        assert reasons[1].startswith("too many requests")
        assert client.get("/health").status_code == 200


def test_a_new_version_and_a_roll_back_are_taken_over(client, root, tmp_path):
    worlds.publish(root, tmp_path, 2)
    until(lambda: client.get("/health").json()["version"] == "000002")
    found = retrieve(client, user={"age": 0.0}, history=["2-1"], k=1).json()
    # Tower and items are of version 2, whose vectors are twice as long.
    assert found["items"] == ["2-9"]
    assert found["scores"] == pytest.approx([4 * 1.01 * 1.09])
    versions.roll_back(root)
    until(lambda: client.get("/health").json()["version"] == "000001")
    assert "debias_switches 2.0" in client.get("/metrics").text


def test_a_damaged_version_is_refused_and_the_old_one_serves_on(client, root, tmp_path):
    publish = versions._switch

    def damaged(root, name):
        path = root / "versions" / name / "manifest.json"
        path.write_text(path.read_text()[:100])
        publish(root, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "_switch", damaged)
        worlds.publish(root, tmp_path, 2)
    until(lambda: client.get("/health").json()["refused"])
    health = client.get("/health").json()
    assert health["version"] == "000001" and "is damaged" in health["refused"]
    assert retrieve(client, k=1).json()["version"] == "000001"
    worlds.publish(root, tmp_path, 3)
    until(lambda: client.get("/health").json()["version"] == "000003")
    assert client.get("/health").json()["refused"] is None


def test_nothing_to_serve(tmp_path):
    with pytest.raises(ValueError, match="holds no published version"):
        service(tmp_path)


def test_an_exported_ranker_scores_alike_in_every_format(tmp_path):
    from debias.layers import Tower
    from debias.models import Naive, ranker
    from debias.models.export import export

    model = Naive(Tower(hidden=(4,)))
    features = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    model({"features": features[None]})
    wanted = np.asarray(ranker(model)(features[None]))[0]
    for name in ("ranker.onnx", "ranker.keras", "ranker"):
        path = export(ranker(model), tmp_path / name, features=3)
        score = open_scorer(path)
        np.testing.assert_allclose(score(features), wanted, atol=1e-6)
        with pytest.raises(ValueError, match="cannot score items of 2 features"):
            score(features[:, :2])


def test_what_is_no_ranker(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        open_scorer(tmp_path / "ranker.onnx")
    (tmp_path / "ranker.onnx").write_text("no")
    with pytest.raises(ValueError, match="is no ranker"):
        open_scorer(tmp_path / "ranker.onnx")
