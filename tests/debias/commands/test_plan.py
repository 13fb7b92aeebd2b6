"""`debias plan` at a prompt."""

import json
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.debias.commands import prompt

run = partial(prompt.run, "plan")


def test_a_log_in_one_order_gets_a_plan(tmp_path):
    rng = np.random.default_rng(0)
    click = rng.random((600, 3)) < [0.5, 0.3, 0.1]
    columns = {
        "session": np.repeat(np.arange(600), 3),
        "query": np.repeat(["red", "blue"], 900),
        "item": np.tile(["a", "b", "c"], 600),
        "position": np.tile([1, 2, 3], 600),
        "click": click.ravel().astype(int),
    }
    log, out = tmp_path / "log.parquet", tmp_path / "plan.json"
    pq.write_table(pa.table(columns), log)
    done = run(log, "-o", out, "--se", "0.2")
    assert "bounds, which hold for any examination" in " ".join(done.output.split())
    assert "1 with 2" in done.output and "100% of the traffic" in done.output
    record = json.loads(out.read_text())
    lost = f"The exchanges cost at most {np.ceil(record['clicks_lost']):,.0f} clicks, "
    assert lost in " ".join(done.output.split())
    assert record["query_names"] == ["red", "blue"]
    assert record["promised_standard_error"] == 0.2
    assert max(record["expected_standard_error"]) < 0.2
    assert "--force" in run(log, "-o", out, code=1).output
    given = tmp_path / "p.csv"
    given.write_text("rank,examination\n1,1\n2,0.7\n3,0.4\n")
    known = json.loads(run(log, "--propensities", given, "--json").stdout)
    assert known["sessions"] > 0 and known["why"].startswith(
        "Errors and lost clicks are"
    )
    assert "se must be in (0, 1)" in run(log, "--se", "2", code=1).output


def test_a_log_that_tells_enough_gets_no_plan(tmp_path):
    rng = np.random.default_rng(0)
    item = rng.permuted(np.tile(np.arange(2), (9_000, 1)), axis=1)
    click = rng.random(item.shape) < np.array([0.5, 0.4])[item] * [1, 0.6]
    columns = {
        "session": np.repeat(np.arange(9_000), 2),
        "query": np.zeros(18_000, int),
        "item": item.ravel(),
        "position": np.tile([1, 2], 9_000),
        "click": click.ravel().astype(int),
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    done = run(tmp_path / "log.parquet")
    assert "nothing needs to be randomised" in " ".join(done.stdout.split())
    assert "xchange" not in done.stdout and "lost" not in done.stdout
