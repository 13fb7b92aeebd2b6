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
from debias.retrieval.serving.storage import Disk
from debias.serve.app import service
from debias.serve.live import last_good
from tests.browser import CHROMIUM, in_frame
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


def test_a_request_says_what_becomes_of_what_was_taken(client):
    asked = {"user": {"id": "ann"}, "k": 1}  # took item 1, says the version
    assert retrieve(client, **asked, history=["1-9"]).json()["items"] == ["1-5"]
    free = retrieve(client, **asked, history=["1-9"], repeat="allow").json()
    assert free["items"] == ["1-9"]
    refused = retrieve(client, **asked, repeat="model")
    assert refused.status_code == 422
    assert "was published with 'exclude'" in refused.json()["error"]
    assert retrieve(client, **asked, repeat="often").status_code == 422
    every = [f"1-{j}" for j in range(12)]
    assert retrieve(client, k=5, history=every[2:]).json()["items"] == ["1-0", "1-1"]


def test_rank_orders_by_the_score_of_the_ranker(client):
    features = [[1.0, 9.0], [3.0, 0.0], [3.0, 1.0], [-1.0, 0.0]]
    found = client.post("/rank", json={"features": features})
    assert found.json() == {
        "version": "000001",
        "scores": [2, 6, 6, -2],
        "order": [1, 2, 0, 3],
    }


def test_health_and_metrics(client):
    retrieve(client, k=1)
    retrieve(client, k=0)
    health = client.get("/health").json()
    assert health.pop("created").startswith("20")
    counts = {"version": "000001", "items": 12, "users": 2}
    ranker = {"ranker": True, "feature_names": None}
    assert health == {**counts, **ranker, "repeat": "exclude", "refused": None}
    lines = client.get("/metrics").text.splitlines()
    assert 'debias_request_seconds_count{path="/retrieve",status="200"} 1.0' in lines
    assert 'debias_request_seconds_count{path="/retrieve",status="422"} 1.0' in lines
    assert "debias_version 1.0" in lines and "debias_items 12.0" in lines


def test_the_page_and_the_interface_need_no_other_machine(client):
    page, docs = client.get("/").text, client.get("/docs").text
    assert "Version 000001" in page and ">ann</option>" in page
    assert "http" not in page and "://" not in docs
    assert {"/retrieve", "/rank"} <= client.get("/openapi.json").json()["paths"].keys()


def test_the_page_shows_histories_and_both_stages(client, root):
    version = versions.load(root)
    page = client.get("/").text
    shown = re.search(r'<option data-history="([^"]*)">ann<', page)[1]
    codes = version.histories[0][version.histories[0] >= 2] - 2
    assert shown == ", ".join(version.items.vocabularies["id"][codes]) != ""
    assert 'name="rank"' in page and 'fetch("explain"' in page
    with running(service(root, poll=0.02)) as bare:  # without a ranker
        assert 'name="rank"' not in bare.get("/").text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_breaks_long_ids_but_no_heading(client, tmp_path, width):
    near = [{"item": "n" * 90, "similarity": 1.0}]
    item = {"item": "i" * 90, "retrieved": 0.5, "candidate": 1, "nearest": near}
    item |= {"relevance": 0.5, "examination": 0.5, "bias": -0.7}
    answer = {"known": True, "version": "000001", "passed_over": ["p" * 90]}
    answer |= {"history": ["h" * 90], "items": [item]}
    says = (
        f"fetch = async () => ({{ok: true, json: async () => ({json.dumps(answer)})}})"
    )
    page = client.get("/").text.replace("<script>", f"<script>{says};", 1)
    wide, lines = in_frame(
        page,
        tmp_path,
        width,
        """[inner.documentElement.scrollWidth,
            [...inner.querySelectorAll("th")].slice(0, 4).map(head => {
              const range = inner.createRange();
              range.selectNodeContents(head);
              return range.getClientRects().length;
            })]""",
    )
    assert wide == width
    assert lines == [1] * 4 or width == 390  # where the headings are hidden


@pytest.mark.parametrize(
    "body, status, reason",
    [
        ("{", 400, "truncated"),
        ("", 400, "truncated"),
        ('{"k": 1} x', 400, "trailing"),
        ('{"history": [NaN]}', 400, "JSON"),
        ('{"user": {"\\ud800": 1}}', 400, ""),
        (b'{"user": {"\xff": 1}}', 400, ""),
        ('{"k": 0}', 422, "k: expected `int` >= 1"),
        ('{"k": 1000000}', 422, "k: expected `int` <= 1000"),
        ('{"k": 1.5}', 422, "k: expected `int`"),
        ('{"k": "9"}', 422, "k: expected `int`"),
        ('{"k": ' + "9" * 9_000 + "}", 422, "k: integer value out of range"),
        ('{"n": 9}', 422, "unknown field `n`; known are .*user history k"),
        ("[]", 422, "xpected `object`"),
        ("[" * 9_000, 422, "xpected `object`"),
        (
            '{"where": ' + '{"a":' * 3_000,
            422,
            r"where.*expected `bool \| int \| str \| array`",
        ),
        ('{"history": [1.5]}', 422, r"history\[0\]"),
        ('{"history": [null]}', 422, r"history\[0\]"),
        ('{"user": {"age": 1e999}}', 422, "out of range"),
        ('{"user": {"age": 1e39}}', 422, "'age' must be a finite number"),
        ('{"user": {"age": "old"}}', 422, "'age' must be a finite number"),
        ('{"user": {"shoe": 1}}', 422, "unknown features"),
        ('{"where": {"shoe": [1]}}', 422, "unknown feature 'shoe'"),
        ('{"where": {"price": [1]}}', 422, "least, most"),
        (json.dumps({"history": ["x"] * 1001}), 422, "length <= 1000"),
        (json.dumps({"history": ["x" * 501]}), 422, "length <= 500"),
        (json.dumps({"user": {str(n): 1 for n in range(101)}}), 422, "length <= 100"),
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
        ([], "length >= 1"),
        ([[1.0, 2.0], [1.0]], "features[1]: must have 2 numbers"),
        ([[1.0, 2.0, 3.0]], "other than 2 features"),
        ([[1e39, 0.0]], "float32"),
        ([["a", 0.0]], "expected `float`, got `str`"),
        ([[0.0, 1.0]] * 1001, "length <= 1000"),
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
        assert found.status_code == 422 and (
            found.json()["error"] == "the ranker reads 2 features, got (1,)"
        )


def test_rank_by_name_and_by_id(root):
    # The items of the version have a price, which is their row.
    ranker = Scorer(lambda x: x[..., 0] - 10 * x[..., 1], ("price", "hour"))
    with running(service(root, ranker)) as client:

        def rank(**asked):
            return client.post("/rank", json=asked)

        plain = rank(features=[[4, 2], [11, 2]]).json()
        assert plain["scores"] == [4 - 20, 11 - 20] and plain["order"] == [1, 0]
        items = [{"price": 4, "x": "rum", "hour": 2}, {"hour": 2, "price": 11.0}]
        assert rank(items=items).json() == plain
        assert rank(items=[{"price": True, "hour": False}]).json()["scores"] == [1]
        shared = {"items": [{"price": 4}, {"price": 11}], "context": {"hour": 2}}
        assert rank(**shared).json() == plain
        assert rank(ids=["1-4", "1-11"], context={"hour": 2}).json() == plain
        for asked, reason in (
            ({}, "give one of features, items and ids, got none"),
            ({"ids": ["1-4"], "items": items}, "got items and ids"),
            (
                {"ids": ["1-4", "9-9"]},
                r"ids\[1\]: '9-9' is not an item of version 000001",
            ),
            ({"ids": ["1-4"]}, "the feature hour of the ranker is missing"),
            ({"ids": ["1-4"], "context": {"hour": 2, "price": 1}}, "price is also"),
            (
                {"items": [{"price": 4, "hour": 1}, {"hour": 1}]},
                r"items\[1\]: .* price",
            ),
            ({"items": [{"price": "a", "hour": 1}]}, r"items\[0\]: .* price must be a"),
            ({"items": [{"price": 10**40, "hour": 1}]}, "float32 can hold"),
            ({"ids": ["1-4"], "context": {"hour": None}}, "context: .* hour must be"),
            (
                {"features": [[1, 2]], "context": {"hour": 2}},
                "context: needs items or ids",
            ),
            ({"ids": []}, "ids: expected `array` of length >= 1"),
        ):
            found = rank(**asked)
            assert found.status_code == 422, found.text
            assert re.search(reason, found.json()["error"])


def test_recommend_orders_what_is_retrieved(root):
    ranker = Scorer(lambda x: x[..., 1] - x[..., 0], ("price", "retrieval_score"))
    with running(service(root, ranker)) as client:
        # Age 1: items 0, 4 and 8 score 1, 1.04 and 1.08, and cost 0, 4 and 8.
        asked = {"user": {"age": 1}, "k": 2, "candidates": 3}
        found = client.post("/recommend", json=asked)
        assert found.json() == {
            "version": "000001",
            "items": ["1-0", "1-4"],
            "scores": pytest.approx([1.0, 1.04 - 4]),
            "retrieved": pytest.approx([1.0, 1.04]),
            "known": False,
            "passed_over": [],
        }
        asked["where"] = {"price": [1, None]}
        found = client.post("/recommend", json=asked).json()
        assert found["items"][0] == "1-1"  # cheapest of 8, 4 and, by row, 1
        nothing = client.post("/recommend", json={"where": {"price": [99, None]}})
        assert nothing.status_code == 200 and nothing.json()["items"] == []
        assert client.post("/recommend", json={"k": 0}).status_code == 422


def test_a_ranker_is_switched_with_its_version(root, tmp_path):
    def export(path, weight):
        from onnx import TensorProto, helper, numpy_helper, save

        table = np.array([[weight]], np.float32)
        nodes = [
            helper.make_node("MatMul", ["features", "weight"], ["product"]),
            helper.make_node("Squeeze", ["product", "last"], ["scores"]),
        ]
        given = helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes,
            "ranker",
            [given("features", TensorProto.FLOAT, [None, None, 1])],
            [given("scores", TensorProto.FLOAT, [None, None])],
            [
                numpy_helper.from_array(table, "weight"),
                numpy_helper.from_array(np.array([2]), "last"),
            ],
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        helper.set_model_props(model, {"feature_names": '["price"]'})
        save(model, path)
        return path

    own = export(tmp_path / "own.onnx", 3)
    service_ranker = Scorer(lambda x: x[..., 0], ("price",))
    with running(service(root, service_ranker, poll=0.02)) as client:
        for number, weight in ((1, 1), (2, 3)):
            found = client.post("/rank", json={"ids": [f"{number}-5"]}).json()
            assert found["scores"] == [5.0 * weight]
            if number == 1:
                worlds.publish(root, tmp_path, 2, ranker=own)
                until(lambda: client.get("/health").json()["version"] == "000002")
    loaded = versions.load(root)
    assert loaded.ranker is not None and loaded.ranker.feature_names == ("price",)
    with pytest.raises(ValueError, match=r"absent\.onnx: does not exist"):
        worlds.publish(root, tmp_path, 3, ranker=tmp_path / "absent.onnx")


def test_names_need_a_ranker_that_knows_its_own(client):
    body = {"features": [[1.0, 2.0]], "names": ["a", "b"]}
    found = client.post("/rank", json=body)
    assert found.status_code == 422 and "does not know the names" in found.text


def test_why_an_item_is_answered(root):
    ranker = Scorer(lambda x: x[..., 0], ("price",), examination=(1.0, 0.25))
    with running(service(root, ranker)) as client:
        found = client.post("/explain", json={"user": {"id": "ann"}, "k": 2})
        assert found.status_code == 200, found.text
        first, second = found.json()["items"]
        assert [first["item"], second["item"]] == ["1-11", "1-10"]  # the dearest
        assert second["examination"] == 0.25 and second["nearest"][0]["item"] == "1-1"
        assert client.post("/explain", json={"nearest": 99}).status_code == 422


@pytest.mark.parametrize("alone", [False, True])
def test_every_endpoint_has_a_summary_and_examples_that_can_be_sent(root, alone):
    ranker = Scorer(lambda x: x[..., 0], ("price", "hour"))
    with running(service(None if alone else root, ranker)) as client:
        paths = client.get("/openapi.json").json()["paths"]
        ranking = {"/rank", "/health", "/ready", "/live", "/metrics"}
        finding = {"/retrieve", "/recommend", "/explain"}
        assert paths.keys() == (ranking if alone else ranking | finding)
        for path, routes in paths.items():
            for method, route in routes.items():
                assert route["summary"] and route["description"], path
                if method == "post":
                    asked = route["requestBody"]["content"]["application/json"]
                    answer = route["responses"]["200"]["content"]["application/json"]
                    found = client.post(path, json=asked["example"])
                    assert found.json() == answer["example"] and found.json()


def test_a_ranker_alone(tmp_path):
    seen = []

    def score(features):
        seen.append(features.shape)
        return features[..., 0] - features[..., 1]

    ranker = Scorer(score, ("price", "age"), name=str(tmp_path / "shop.onnx"))
    with running(service(None, ranker, body=20_000)) as client:
        assert len(seen) >= 2  # before the first request
        asked = {"items": [{"price": 1, "age": 1}, {"age": 2, "price": 9}]}
        found = client.post("/rank", json=asked).json()
        assert found == {"version": "shop.onnx", "scores": [0, 7], "order": [1, 0]}
        health = client.get("/health").json()
        assert (health["version"], health["items"], health["created"]) == (
            "shop.onnx",
            0,
            None,
        )
        assert client.get("/ready").json() == {"ready": True, "version": "shop.onnx"}
        assert "debias_request_seconds" in client.get("/metrics").text
        assert client.get("/").headers["location"] == "docs"
        found = client.post("/retrieve", json={})
        assert found.status_code == 404 and "served alone" in found.json()["error"]
        large = {"items": [{"price": 1, "age": 1, "x": "y" * 400}] * 60}
        assert client.post("/rank", json=large).status_code == 413
        assert client.post("/rank", json={"items": [{}] * 1001}).status_code == 422
    with pytest.raises(ValueError, match="a folder of versions, a ranker, or both"):
        service(None)


def test_no_ranker_no_rank_and_no_such_place(root):
    with running(service(root)) as client:
        asked = {"features": [[1.0]]}
        for path in ("/rank", "/recommend"):
            found = client.post(path, json=asked if path == "/rank" else {})
            assert found.status_code == 404 and "no ranker" in found.json()["error"]
        found = client.get("/nowhere")
        assert found.status_code == 404 and found.json() == {"error": "Not Found"}
        assert client.get("/retrieve").headers["allow"] == "POST"


def test_what_takes_too_long_is_given_up_and_too_many_are_sent_away(root, monkeypatch):
    held = threading.Event()

    def slow(features):
        held.wait(20)
        return features[:, 0]

    monkeypatch.setattr("debias.serve.workers.WAITING", 1)
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
        busy = next(each for each in found if "too many" in each.text)
        assert busy.headers["retry-after"] == "1"
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
    switch = Disk.switch

    def damaged(place, name):
        path = root / "versions" / name / "manifest.json"
        worlds.overwrite(path, path.read_text()[:100])
        switch(place, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Disk, "switch", damaged)
        worlds.publish(root, tmp_path, 2)
    until(lambda: client.get("/health").json()["refused"])
    health = client.get("/health").json()
    assert health["version"] == "000001" and "is damaged" in health["refused"]
    assert retrieve(client, k=1).json()["version"] == "000001"
    worlds.publish(root, tmp_path, 3)
    until(lambda: client.get("/health").json()["version"] == "000003")
    assert client.get("/health").json()["refused"] is None


def cut(root, name):
    """Damages a version as nobody should: it writes into a file of it."""
    path = root / "versions" / name / "vectors.npy"
    worlds.overwrite(path, path.read_bytes()[:-4])


def test_a_version_that_is_written_to_gives_way_to_the_last_good_one(
    client, root, tmp_path
):
    worlds.publish(root, tmp_path, 2)
    until(lambda: client.get("/health").json()["version"] == "000002")
    cut(root, "000002")
    until(lambda: client.get("/health").json()["version"] == "000001")
    assert "000002/vectors.npy: has" in client.get("/health").json()["refused"]
    assert retrieve(client, k=1).json()["version"] == "000001"
    cut(root, "000001")  # of those that are left, the one in memory is served on
    until(lambda: "000002" in client.get("/health").json()["refused"])
    assert retrieve(client, k=1).json()["version"] == "000001"
    worlds.publish(root, tmp_path, 3)
    until(lambda: client.get("/health").json()["version"] == "000003")
    assert client.get("/health").json()["refused"] is None


def test_it_starts_on_the_last_good_version(root, tmp_path):
    worlds.publish(root, tmp_path, 2)
    worlds.publish(root, tmp_path, 3)
    cut(root, "000002")
    cut(root, "000003")
    version, why = last_good(root)
    assert version.name == "000001" and "000003/vectors.npy: has" in why
    cut(root, "000001")
    with pytest.raises(ValueError, match=r"000003/vectors\.npy: has"):
        last_good(root)


def test_a_version_rolled_back_from_does_not_come_again(root, tmp_path):
    worlds.publish(root, tmp_path, 2)
    versions.roll_back(root)
    cut(root, "000001")
    with pytest.raises(ValueError, match=r"000001/vectors\.npy: has"):
        last_good(root)


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
    with pytest.raises(ValueError, match="is damaged or not a ranker"):
        open_scorer(tmp_path / "ranker.onnx")


def test_a_filter_may_be_one_bare_value(client):
    bare, listed = (
        retrieve(client, where={"kind": kind}).json()["items"]
        for kind in ("odd", ["odd"])
    )
    assert bare == listed and bare
    unknown = retrieve(client, where={"shoe": "red"})
    assert unknown.status_code == 422 and "unknown feature 'shoe'" in unknown.text
