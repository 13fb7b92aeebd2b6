"""Tests of debias.retrieval.training.linear: EASE as products of vectors."""

import numpy as np
import pytest

from debias.retrieval.data.interactions import from_columns
from debias.retrieval.training.baselines import Ease, taken
from debias.retrieval.training.linear import STRENGTHS, WEIGHTS, ease_vectors, spectrum
from tests.debias.retrieval.models.registry import LOG


@pytest.mark.parametrize("regularisation", [1.0, 30.0])
def test_with_all_dimensions_it_is_ease_but_for_what_users_took(regularisation):
    """The exact one inverts X'X; users here outnumber items, so that none is lost."""
    of = spectrum(LOG, rank=len(LOG.items))
    seen = taken(LOG)
    # The smallest eigenvalue is left out by the solver: add it by hand.
    values, vectors = np.linalg.eigh((seen.T @ seen).toarray().astype(float))
    whole = of._replace(
        values=np.append(of.values, values[0]),
        vectors=np.column_stack([of.vectors, vectors[:, 0]]),
    )
    past, items = ease_vectors(whole, regularisation)
    rows = np.arange(len(LOG.users))
    wanted = np.asarray(Ease(LOG)(regularisation)(rows))
    own = (past * items).sum(axis=1)  # EASE has 0 of an item on itself
    found = seen @ (past @ items.T - np.diag(own))
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_power_of_counts_regularises_what_is_popular():
    """Against EASE with a penalty of its own for each item, by an inverse."""
    seen, power = taken(LOG).toarray().astype(float), 0.25
    gram, counts = seen.T @ seen, seen.sum(axis=0)
    of = spectrum(LOG, rank=len(LOG.items), power=power)
    # The smallest eigenvalue is left out by the solver: add it by hand.
    scaled = gram / np.outer(counts, counts) ** power
    values, vectors = np.linalg.eigh(scaled)
    np.testing.assert_allclose(of.values, values[1:], rtol=1e-4)
    whole = of._replace(
        values=np.append(of.values, values[0]),
        vectors=np.column_stack([of.vectors, vectors[:, 0]]),
    )
    penalty = 10.0 * counts ** (2 * power) * np.trace(scaled) / np.trace(gram)
    inverse = np.linalg.inv(gram + np.diag(penalty))
    wanted = -inverse / np.diag(inverse)
    past, items = ease_vectors(whole, 10.0)
    apart = ~np.eye(len(gram), dtype=bool)
    np.testing.assert_allclose((past @ items.T)[apart], wanted[apart], atol=1e-4)


def test_a_weight_makes_up_for_the_greatest_strength():
    """One user took both items: with l much above 1, B_ij is 1 / l, below a logit."""
    log = from_columns(["u", "u", "v"], ["i", "j", "k"], [1, 2, 3])
    past, items = ease_vectors(spectrum(log), STRENGTHS[-1])
    largest = past[0] @ items[1]
    assert largest == pytest.approx(1 / STRENGTHS[-1], rel=0.01)
    assert WEIGHTS[-1] * largest > 2


def test_few_dimensions_keep_the_order_of_most():
    rng = np.random.default_rng(0)
    taste = rng.integers(0, 4, 300)
    user = np.repeat(np.arange(300), 12)
    item = rng.integers(0, 10, 3600) + 10 * taste[user]
    log = from_columns(user, item, np.arange(3600))
    past, items = ease_vectors(spectrum(log, rank=4), 10.0)
    weights = past @ items.T
    same = np.arange(40)[:, None] // 10 == np.arange(40) // 10
    codes = np.asarray(log.items.vocabularies["id"]).astype(int)
    same = same[codes][:, codes]
    assert weights[same].min() > weights[~same].max()


def test_a_log_of_one_item_has_no_linear_part():
    log = from_columns(["u", "v"], ["i", "i"], [1, 2])
    past, items = ease_vectors(spectrum(log), 1.0)
    assert past.shape == items.shape == (1, 0)
    with pytest.raises(ValueError, match="above 0, got 0"):
        ease_vectors(spectrum(log), 0.0)
