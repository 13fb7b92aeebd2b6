"""Tests of debias.commands.demo."""

import json

import numpy as np
import pyarrow.csv
import pytest
from typer.testing import CliRunner

import debias
from debias.__main__ import app
from debias.commands.demo import product_rows, shop_log, shown_rows


def test_csv_of_the_log_is_read_back_as_the_log(tmp_path):
    train, _, log = shop_log(500, seed=1)
    pyarrow.csv.write_csv(shown_rows(log, train), tmp_path / "clicks.csv")
    reading = debias.read_log(tmp_path / "clicks.csv", debias.Columns(features="f_*"))
    np.testing.assert_array_equal(reading.log.click, log.click)
    items = reading.items[reading.log.item]  # "p7" and so on
    assert items[0].tolist() == [f"p{n}" for n in log.item[0]]
    np.testing.assert_allclose(
        reading.data.features[reading.log.item[0]],
        train.features[log.item[0]],
        atol=0.0051,  # files have two decimals
    )


def test_queries_to_rank_are_those_that_were_not_shown():
    train, test, log = shop_log(500, seed=1)
    shown = {name.as_py() for name in shown_rows(log, train)["query"]}
    asked = {name.as_py() for name in product_rows(test, train.queries)["query"]}
    assert not shown & asked and len(asked) == test.queries == 50


def test_demo_writes_its_files_and_refuses_to_replace_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["demo", "--no-open", "--sessions", "500", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    shop, naive, debiased = (row["ndcg@5"] for row in found["rankings"])
    assert shop < naive < debiased
    for name in ("log", "products", "page"):
        assert (tmp_path / found[name]).exists()
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1 and "demo: exists; --force replaces it" in again.output


@pytest.mark.parametrize("wrong", ["499", "many"])
def test_too_few_sessions_are_refused(wrong):
    assert CliRunner().invoke(app, ["demo", "--sessions", wrong]).exit_code == 2
