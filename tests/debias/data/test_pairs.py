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
    matrix = np.zeros((6, 2), np.float32)
    matrix[:3] = [[10.0], [11.0], [12.0]]
    rows = np.array([[20.0, 20.0], [21.0, 21.0]], np.float32)
    wanted = np.array([10.0, 11.0, 12.0, 20.0, 21.0])[order]
    no_room = matrix[:4].copy()
    found = pairs._inserted(matrix, 3, rows, np.array(order))
    assert found is matrix and found.tolist() == [[x, x] for x in wanted]
    found = pairs._inserted(no_room, 3, rows, np.array(order))
    assert found is not no_room and found.tolist() == [[x, x] for x in wanted]
