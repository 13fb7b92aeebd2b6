"""Tables in a terminal: no number breaks."""

from io import StringIO

import pytest
from rich.console import Console

from debias.training.pages import text
from debias.training.results import tables

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
    console = Console(file=out, width=width)
    for made in tables("Candidates", rows, console):
        console.print(made)
    return out.getvalue()


@pytest.mark.parametrize("width", [44, 72, 80, 120])
def test_no_number_breaks(width):
    found = printed(CANDIDATES, width).split()
    for row in CANDIDATES:
        for value in row.values():
            assert text(value) in found


def test_headings_give_way_and_their_words_do_not_break():
    assert "sessions trained on" not in printed(CANDIDATES, 80)
    assert "sessions trained on" in printed(CANDIDATES, 200)
    assert "likelihood" in printed(CANDIDATES, 80).split()


def test_one_row_a_table_where_the_screen_is_narrow():
    assert printed(CANDIDATES, 44).count("sessions trained on") == 0
    assert printed(CANDIDATES, 44).count("sessions_trained_on") == 2
    assert printed(CANDIDATES[:1], 60).count("sessions_trained_on") == 1
