"""Tests of benchmarks.figures and of what they and the tables say of fitted models."""

import numpy as np
import pytest

from benchmarks import figures
from benchmarks.figures import FIGURES, save
from benchmarks.ranking import protocol, truths
from benchmarks.ranking.learners import LEARNERS, known_examination
from benchmarks.ranking.settings import Size
from debias.models.batches import batches
from simulators.populations import named

TINY = Size(queries=60, sessions=600)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_as_png_and_svg(name, tmp_path, monkeypatch):
    """Of models as they start: how they learn does not show in the files."""
    monkeypatch.setattr(
        figures, "trained", lambda world, build, config: (build(config.seed), 0.0)
    )
    save(name, tmp_path, seed=3, size=TINY)
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / f"{name}.svg").read_text()
    assert "<svg" in svg and "<dc:date>" not in svg
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture(scope="module")
def pbm():
    return protocol.world("pbm", 3, None, TINY)


@pytest.mark.parametrize("row", ["product", "additive"])
def test_a_model_that_knows_examination_has_no_error(row, pbm):
    """The product model's g is the logit of theta, here written into its table."""
    model = LEARNERS[row].build(0, pbm)
    batch, _ = next(iter(batches(pbm.test.log, pbm.test.data, 1)))
    model(batch)
    theta = np.array(named("pbm").behaviours[0].theta)[:10]
    odds = {"product": np.log(theta / (1 - theta)), "additive": np.log(theta)}[row]
    table = np.concatenate([[0.0], odds])[:, None]
    model.bias.tables["position"].assign(np.nan_to_num(table, posinf=50.0))
    assert truths.beliefs(model, pbm)["examination_error"] < 1e-4
    model.bias.tables["position"].assign(0 * table)
    error = np.abs(np.log(theta / theta[0])).mean()
    assert truths.beliefs(model, pbm)["examination_error"] == pytest.approx(error)


def test_types_that_are_found_have_rand_index_one():
    mixed = protocol.world("mixed", 3, None, TINY)
    model = LEARNERS["mixture"].build(0, mixed)
    kinds = mixed.test.log.user_type[: truths.WATCHED]
    model.responsibilities = lambda batch, clicks: np.eye(3)[(kinds + 1) % 3]
    assert truths.beliefs(model, mixed)["type_rand_index"] == 1
    model.responsibilities = lambda batch, clicks: np.eye(3)[0 * kinds]
    assert truths.beliefs(model, mixed)["type_rand_index"] == 0


def test_attention_like_the_truth_is_perfectly_correlated():
    grid = protocol.world("grid", 3, None, TINY)
    model = LEARNERS["xpa"].build(0, grid)
    true = grid.population.behaviours[0].influence(10)
    model.attention = lambda batch: true[None] ** 2
    assert truths.beliefs(model, grid)["attention_correlation"] == pytest.approx(1)


def test_known_examination_is_the_behaviours_own(pbm):
    alpha, beta = known_examination(pbm)
    np.testing.assert_allclose(alpha, named("pbm").behaviours[0].theta[:10])
    assert beta == [0] * 10
    trust = protocol.world("trust", 3, None, TINY)
    crowd = named("trust").behaviours[0]
    alpha, beta = known_examination(trust)
    theta, right, wrong = (
        np.array(x)[:10] for x in (crowd.theta, crowd.right, crowd.wrong)
    )
    np.testing.assert_allclose(alpha, theta * (right - wrong))
    np.testing.assert_allclose(beta, theta * wrong)
