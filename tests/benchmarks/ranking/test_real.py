"""Tests of benchmarks.ranking.real."""

import numpy as np
import pytest

from benchmarks.ranking import real
from benchmarks.ranking.settings import Size
from debias import metrics
from debias.training import TrainingConfig
from simulators import generate


def letor(path, data):
    lines = []
    for item, query in enumerate(data.query_of_item()):
        features = " ".join(
            f"{j + 1}:{x:.6g}" for j, x in enumerate(data.features[item])
        )
        lines.append(f"{data.labels[item]} qid:{query + 1} {features}")
    path.write_text("\n".join(lines) + "\n")


def test_every_query_is_tested_once_and_by_others():
    folds = real.dealt(23)
    assert sorted(q for _, _, test in folds for q in test) == [*range(23)]
    for parts in folds:
        assert sorted(np.concatenate(parts)) == [*range(23)]
        assert len(parts[0]) > 2 * len(parts[1])


def test_a_folder_is_read_as_one(tmp_path):
    data = generate(queries=9, seed=1)
    letor(tmp_path / "rank.train", data.select(range(6)))
    letor(tmp_path / "rank.test", data.select(range(6, 9)))
    found = real.read.__wrapped__(str(tmp_path))
    assert found.offsets.tolist() == data.offsets.tolist()
    np.testing.assert_array_equal(found.labels, data.labels)
    np.testing.assert_allclose(found.features, data.features, rtol=1e-5)


def test_a_row_is_measured_on_all_queries(tmp_path, monkeypatch):
    """A row that ranks by the first feature, over all folds."""
    data = generate(queries=30, seed=2)
    letor(tmp_path / "all.txt", data)
    calls = []

    def by_first_feature(row, world, config):
        calls.append(config.seed)
        return world.test.data.features[:, 0]

    monkeypatch.setattr("benchmarks.ranking.rows.test_scores", by_first_feature)
    trial = real.RealTrial("naive", "pbm", Size(sessions=200), TrainingConfig())
    found = trial.measure(7, str(tmp_path / "all.txt"))
    expected = metrics.ndcg(data.labels, data.features[:, 0], 5, offsets=data.offsets)
    assert calls == [35, 36, 37, 38, 39]
    for query, value in enumerate(expected):
        if np.isfinite(value):
            assert found[f"ndcg@5#{query}"] == pytest.approx(value, abs=1e-4)
    assert len(found) == 1 + np.isfinite(expected).sum()
    assert found["ndcg@5"] == pytest.approx(np.nanmean(expected), abs=1e-4)


def test_it_needs_data():
    trial = real.RealTrial("naive", "pbm", Size(sessions=200), TrainingConfig())
    with pytest.raises(ValueError, match="--data"):
        trial.measure(0, None)


def test_a_row_of_trees_is_measured_by_what_it_orders(tmp_path, monkeypatch):
    """Trees that learned nothing but the third feature, over all folds."""
    data = generate(queries=30, seed=3)
    letor(tmp_path / "all.txt", data)
    learners = {"trees": lambda world: lambda features: features[:, 2]}
    monkeypatch.setattr(real.tree_rows, "ROWS", learners)
    trial = real.RealTrial("trees", "pbm", Size(sessions=200), TrainingConfig())
    found = trial.measure(0, str(tmp_path / "all.txt"))
    expected = metrics.ndcg(data.labels, data.features[:, 2], 5, offsets=data.offsets)
    assert found["ndcg@5"] == pytest.approx(np.nanmean(expected), abs=1e-4)
