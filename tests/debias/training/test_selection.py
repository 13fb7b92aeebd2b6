"""Tests of debias.training.selection: which candidate is taken, and why."""

import numpy as np
import pytest

from debias import training
from debias.training import TrainingConfig, choose
from tests.debias.training.worlds import DATA, LOG, prepared

FAST = TrainingConfig(epochs=1, batch_size=64, min_steps=0)


def test_choice_is_the_simplest_within_one_standard_error():
    """Errors by hand: differences (+-.1) by query sum to 0 or add up."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=400)
    noise = np.repeat(rng.normal(size=40), 10)  # what sessions of a query share
    query = np.repeat(np.arange(40), 10)
    likelihoods = {"simple": base, "rich": base + 0.1 + noise}
    by_query = choose(likelihoods, query)
    by_session = choose(likelihoods, np.arange(400))
    error = [found.table[0]["standard_error"] for found in (by_query, by_session)]
    wanted = np.std(noise.reshape(40, 10)[:, 0], ddof=1) / np.sqrt(40)
    assert error[0] == pytest.approx(wanted)
    assert error[1] == pytest.approx(np.std(noise, ddof=1) / np.sqrt(400))
    below = by_query.table[0]["below_best"]
    assert (by_query.name == "simple") == (below <= error[0])
    clear = choose({"simple": base, "rich": base + 0.1}, query)
    assert clear.name == "rich" and clear.table[1]["below_best"] == 0


def test_a_candidate_that_diverged_is_out_and_said():
    rng = np.random.default_rng(0)
    base, lost = rng.normal(size=40), np.full(40, np.nan)
    found = choose({"lost": lost, "plain": base}, np.arange(40))
    assert found.name == "plain" and "lost diverged and is out" in found.why
    assert found.table[-1] == {
        "model": "lost",
        "log_likelihood": None,
        "below_best": None,
        "standard_error": None,
    }
    with pytest.raises(ValueError, match="no candidate of lost learned"):
        choose({"lost": lost}, np.arange(40))


def test_selecting_fits_the_chosen_model():
    found = training.select(LOG, DATA, candidates=["naive", "product"], config=FAST)
    assert [row["model"] for row in found.choice.table] == ["naive", "product"]
    assert type(found.fitted.model).__name__.lower() == found.choice.name
    assert found.choice.name in str(found) and "<table>" in found._repr_html_()
    assert "nats a validation session" in found.words()


def test_what_was_tried_is_not_tried_again(tmp_path, monkeypatch):
    tried = training.try_all(prepared(), FAST, ["naive", "product"], tmp_path)
    monkeypatch.setattr("debias.training.selection.fit_prepared", pytest.fail)
    assert training.try_all(prepared(), FAST, ["naive", "product"], tmp_path) == tried


@pytest.mark.parametrize("name", ["listwise", "best"])
def test_candidates_predict_clicks(name):
    with pytest.raises(ValueError, match=f"candidates must be.*got '{name}'"):
        training.try_all(prepared(), FAST, [name])
