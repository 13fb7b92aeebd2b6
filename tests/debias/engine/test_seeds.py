"""Tests of debias.engine.seeds."""

from debias.engine.seeds import split_seed


def test_seeds_of_parts_differ_within_and_between_wholes():
    parts = [part for seed in range(100) for part in split_seed(seed, 5)]
    assert len(set(parts)) >= len(parts) - 2  # 500 draws of 2^20: .1 pairs expected
    assert min(parts) >= 0 and max(parts) < 1 << 20
    assert max(parts) * 1021 < 1 << 32


def test_a_large_seed_is_taken():
    assert split_seed(2**40, 1) != split_seed(2**40 + 1, 1)
