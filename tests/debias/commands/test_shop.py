"""A shop's table as it is: trained on, ranked and exported from raw rows."""

import json

import keras
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from debias.artifacts import load
from tests.debias.commands.test_commands import run, run_json

pytestmark = pytest.mark.usefixtures("eagerly")
ITEMS, SESSIONS, PLACES = 24, 240, 4
PARTS = (
    "session=session_id query=term item=sku position=rank click=clicked timestamp=ts"
)
NAMED = [word for part in [*PARTS.split(), "features=f_*"] for word in ("-c", part)]
NAMED += ["-c", "presentation=badge", "--first-position", "0"]
FAST = ["--model", "product", "--epochs", "1"]


def shop():
    """Text, gaps, booleans, dates and lists; items of brand acme are clicked most."""
    rng = np.random.default_rng(3)
    rows = []
    for session in range(SESSIONS):
        for rank, item in enumerate(rng.choice(ITEMS, PLACES, replace=False)):
            chance = (0.8 if item % 3 == 0 else 0.2) / (1 + rank)
            rows.append(
                {
                    "session_id": f"s{session}",
                    "term": f"term {session % 6}",
                    "sku": f"SKU-{item:03d}",
                    "rank": rank,
                    "clicked": bool(rng.random() < chance),
                    "ts": f"2026-03-{1 + session % 28:02d}T08:00:05Z",
                    "badge": ["none", "sponsored"][int(item % 4 == 0)],
                    "f_brand": ["acme", "birch", None][item % 3],
                    "f_price": None if item % 7 == 0 else 5.0 + item,
                    "f_stock": bool(item % 5),
                    "f_since": f"2025-01-{1 + item:02d}",
                }
            )
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    table = shop()
    pq.write_table(table, folder / "shop.parquet")
    pyarrow.csv.write_csv(table, folder / "shop.csv")
    run("train", folder / "shop.csv", *NAMED, "-o", folder / "trained", *FAST)
    return folder


def test_inspect_shows_what_the_features_are(folder):
    found = [
        run_json("inspect", folder / f"shop.{k}", *NAMED) for k in ("csv", "parquet")
    ]
    assert found[0]["kinds"] == found[1]["kinds"]
    kinds = {row["feature"]: row["kind"] for row in found[0]["kinds"]}
    assert kinds == {
        "f_brand": "category",
        "f_price": "number",
        "f_stock": "boolean",
        "f_since": "date",
    }
    assert found[0]["kinds"][0]["values"] == 2
    assert "f_brand category" in " ".join(
        run("inspect", folder / "shop.csv", *NAMED).output.split()
    )


def test_raw_rows_are_ranked_and_every_export_gives_the_same_scores(folder):
    out = folder / "ranked.parquet"
    run("rank", folder / "trained", folder / "shop.parquet", "-o", out)
    ranked = pq.read_table(out)
    assert ranked["new_rank"].to_pylist()[:4] != [0, 1, 2, 3]
    assert sorted(ranked["new_rank"].to_pylist()[:4]) == [1, 2, 3, 4]
    raw = pq.read_table(folder / "shop.parquet").slice(0, 9)
    expected = ranked["score"].to_numpy()[:9]
    for name, *more in (("ranker.onnx",), ("ranker.keras",), ("raw.onnx", "--raw")):
        run("export", folder / "trained", "-o", folder / name, *more)
    scorer = load(folder / "ranker.onnx")
    np.testing.assert_allclose(scorer(raw), expected, atol=1e-5)
    columns = {name: raw[name].to_pylist() for name in raw.column_names}
    np.testing.assert_allclose(scorer(columns), expected, atol=1e-5)
    np.testing.assert_allclose(load(folder / "raw.onnx")(raw), expected, atol=1e-5)
    unseen = {**columns, "f_brand": ["a brand of tomorrow"] * 9}
    unseen["f_price"] = [None] * 9
    assert np.isfinite(scorer(unseen)).all()
    kinds = {each.name: each for each in load(folder / "ranker.keras").kinds}
    assert set(kinds["f_brand"].values) == {"acme", "birch"}


def test_any_runtime_of_onnx_reads_text_and_gaps_by_name(folder):
    session = onnxruntime.InferenceSession(str(folder / "raw.onnx"))
    kinds = {each.name: each.type for each in session.get_inputs()}
    assert kinds["f_brand"] == "tensor(string)" and kinds["f_price"] == "tensor(float)"
    ranked = pq.read_table(folder / "ranked.parquet").slice(0, 5)
    since = np.array(ranked["f_since"].to_pylist(), "datetime64[D]").astype(np.float32)
    given = {
        "f_brand": np.array([[each or "" for each in ranked["f_brand"].to_pylist()]]),
        "f_price": ranked["f_price"].to_numpy(zero_copy_only=False)[None],
        "f_stock": ranked["f_stock"].to_numpy(zero_copy_only=False)[None],
        "f_since": since[None],
    }
    text = given.pop("f_brand")
    numbers = {name: value.astype(np.float32) for name, value in given.items()}
    (found,) = session.run(None, {"f_brand": text, **numbers})
    np.testing.assert_allclose(found[0], ranked["score"].to_numpy(), atol=1e-5)


def test_the_bias_tower_reads_the_badge_and_the_ranker_does_not(folder):
    report = json.loads((folder / "trained" / "report.json").read_text())
    assert report["scales"] == {"badge": {"labels": ["none", "sponsored"], "edges": []}}
    trained = load(folder / "trained")
    assert trained.model.bias.columns == {"position": PLACES, "badge": 2}
    assert trained.model.bias.cross == [("position", "badge")]
    assert "badge" not in trained.feature_names


def test_context_goes_to_models_that_read_it_or_is_refused(folder):
    table = pq.read_table(folder / "shop.parquet")
    hour = pa.array([float(s[1:]) for s in table["session_id"].to_pylist()])
    pq.write_table(table.append_column("hour", hour), folder / "hours.parquet")
    named = [*NAMED, "-c", "context=hour"]
    out = folder / "by_hour"
    refused = run("train", folder / "hours.parquet", *named, "-o", out, *FAST, code=1)
    words = " ".join(refused.output.split())
    assert "product does not read the context of a session; mixture and" in words
    run(
        *("train", folder / "hours.parquet", *named, "-o", out, "--epochs", "1"),
        *("--model", "mixture"),
    )
    assert isinstance(load(out).model.prior, keras.Sequential)


def test_a_trained_folder_is_evaluated_from_another_format(folder):
    done = run("evaluate", folder / "trained", folder / "shop.parquet", *NAMED)
    assert "sessions" in done.output
