"""Tests of debias.data.pairs: rows put between others."""

import numpy as np
import pytest

from debias.data import pairs


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
@pytest.mark.parametrize(
    "order", [[0, 3, 4, 1, 2], [3, 0, 1, 2, 4], [0, 1, 4, 3, 2], [4, 3, 0, 1, 2]]
)
def test_rows_are_put_between_in_the_memory_of_the_others(monkeypatch, piece, order):
    monkeypatch.setattr(pairs, "_PIECE", piece)
    matrix = np.zeros((3, 2), np.float32)
    matrix += [[10.0], [11.0], [12.0]]
    rows = np.array([[20.0, 20.0], [21.0, 21.0]], np.float32)
    found = pairs._inserted(matrix, rows, np.array(order))
    wanted = np.array([10.0, 11.0, 12.0, 20.0, 21.0])[order]
    assert found is matrix and found.tolist() == [[x, x] for x in wanted]
    part = np.array([[10.0], [11.0], [12.0]], np.float32)[:, :]  # of somebody's
    found = pairs._inserted(part, rows[:, :1], np.array(order))
    assert found.ravel().tolist() == wanted.tolist()
    assert part.ravel().tolist() == [10, 11, 12]
