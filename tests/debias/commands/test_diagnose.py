"""Tests of `debias diagnose`."""

import json
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.debias.commands import prompt

run = partial(prompt.run, "diagnose")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A table of 300 sessions of three items that change places."""
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(3), (300, 1)), axis=1)
    click = rng.random(item.shape) < np.array([0.8, 0.5, 0.2])[item] * [1, 0.6, 0.3]
    columns = {
        "session": np.repeat(np.arange(300), 3),
        "q": np.zeros(900, int),
        "item": item.ravel(),
        "position": np.tile([1, 2, 3], 300),
        "click": click.ravel().astype(int),
        "device": np.repeat(rng.choice(["phone", "laptop"], 300), 3),
    }
    path = tmp_path_factory.mktemp("diagnose") / "log.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_a_page_a_text_and_a_record(log, tmp_path):
    page = tmp_path / "report.html"
    done = run(log, "-c", "query=q", "-o", page, "--max-sessions", 200, "--json")
    record = json.loads(done.stdout)
    assert record["page"] == str(page) and record["sessions_analysed"] == 200
    text = page.read_text(encoding="utf-8")
    assert record["headline"] in text and "log.parquet" in text
    assert "phone" in text and "laptop" in text
    refused = run(log, "-c", "query=q", "-o", page, code=1)
    assert "--force" in refused.output and page.read_text(encoding="utf-8") == text
    again = run(log, "-c", "query=q", "-o", page, "--force")
    assert record["headline"] not in again.stderr and "connectivity:" in again.stdout
    assert "All 300 sessions" in page.read_text(encoding="utf-8")


def test_what_cannot_be_computed_or_trusted_is_said_once(log, tmp_path):
    table = pq.read_table(log)
    names = table.column_names
    late = pc.multiply(
        table["click"], pc.cast(pc.greater(table["position"], 1), pa.int64())
    )
    path = tmp_path / "late.parquet"
    pq.write_table(table.set_column(names.index("click"), "click", late), path)
    said = run(path, "-c", "query=q", "-o", tmp_path / "late.html").stdout
    assert said.count("no click at rank 1, to which examination is relative") == 1
    assert "not computed: ctr, pivot, adjacent_chain," in said
    few = tmp_path / "few.parquet"
    pq.write_table(table.slice(0, 120), few)
    said = run(few, "-c", "query=q", "-o", tmp_path / "few.html").stdout
    assert "dla: do not use: half of the clicks are on items with at most" in said


def test_a_log_without_a_click_is_refused(log, tmp_path):
    table = pq.read_table(log).drop(["click"])
    path, page = tmp_path / "silent.csv", tmp_path / "report.html"
    pyarrow.csv.write_csv(table.append_column("click", pa.array([0] * 900)), path)
    said = run(path, "-c", "query=q", "-o", page, code=1).output
    assert "silent.csv: cannot be learned from: no click:" in said
    assert "click=NAME" in said and not page.exists()


def test_a_missing_log_writes_nothing(tmp_path):
    page = tmp_path / "report.html"
    assert (
        "nothing.parquet"
        in run(tmp_path / "nothing.parquet", "-o", page, code=1).output
    )
    assert not page.exists()
