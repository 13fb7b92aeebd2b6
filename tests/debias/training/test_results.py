"""Tables in a terminal: no number breaks."""

from io import StringIO

import pytest
from rich.console import Console

from debias.training.pages import text
from debias.training.results import table

CANDIDATES = [
    {
        "model": name,
        "pairs_in_order": 0.6123456,
        "above_naive": 0.0007284,
        "standard_error": 0.00051234,
        "log_likelihood": -1.234567,
        "sessions_trained_on": 60000,
    }
    for name in ("listwise_mixture", "softmax_naive")
]


def printed(rows, width):
    out = StringIO()
    Console(file=out, width=width).print(table("Candidates", rows))
    return out.getvalue()


@pytest.mark.parametrize("width", [72, 80, 120])
def test_no_number_breaks(width):
    found = printed(CANDIDATES, width).split()
    for row in CANDIDATES:
        for value in row.values():
            assert text(value) in found


def test_headings_give_way():
    assert "sessions trained on" not in printed(CANDIDATES, 80)
    assert "sessions trained on" in printed(CANDIDATES, 200)
