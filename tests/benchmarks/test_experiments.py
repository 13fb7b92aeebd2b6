"""Tests of benchmarks.experiments: what the tables hold, and what they rest on."""

import json
from pathlib import Path

import numpy as np

from benchmarks.experiments import TABLES
from benchmarks.ranking.tables import DECAYS, TUNING_MAIN
from debias.training import TrainingConfig
from simulators.oracle import click_probability
from simulators.populations import named

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_settings_are_json_and_tell_experiments_apart():
    for table in TABLES.values():
        for variant in (table.experiments, table.quick):
            keys = [(e.row, e.population, json.dumps(e.settings())) for e in variant]
            assert len(set(keys)) == len(keys)


def test_the_main_table_has_the_promised_rows():
    rows = (
        "logging naive position_feature product product_three additive dot bilinear "
        "mixture mixture_2 xpa softmax_naive softmax_naive_three listwise "
        "listwise_three listwise_mixture listwise_xpa auto oracle_examination "
        "oracle_listwise full_information full_information_softmax ceiling"
    )
    promised = rows.split()
    assert [row for row in TABLES["main"].rows if row in promised] == promised
    assert TABLES["main"].seeds >= 10 and TABLES["main"].quick_seeds >= 3


def test_pooled_clicks_of_the_mixed_crowd_are_no_product():
    """Else one bias tower would explain them, and a mixture could claim nothing."""
    same = np.repeat(np.linspace(0.1, 1, 10)[:, None], 10, axis=1)  # lists of one item

    def ratio(name):
        """Of the second to the first singular value of items by positions."""
        table = click_probability(named(name), same)
        values = np.linalg.svd(table, compute_uv=False)
        return values[1] / values[0]

    assert ratio("mixed") > 0.01 and ratio("impatient-picky") > 0.01
    assert ratio("pbm") < 1e-12 and ratio("two-depths") < 1e-12


def test_the_default_decay_is_near_what_validation_clicks_choose():
    """Of every row on every crowd of the committed tuning results."""
    lines = (RESULTS / "tuning-main.jsonl").read_text().splitlines()
    found: dict[tuple[str, str], dict[float, float]] = {}
    for line in map(json.loads, lines):
        learner, decay = line["row"].split("@")
        of = found.setdefault((line["population"], learner), {})
        of[float(decay)] = line["metrics"]["validation"]
    assert all(set(of) == set(DECAYS) for of in found.values())
    usual = TrainingConfig().decay_of(TUNING_MAIN.experiments[0].size.sessions)
    for row, of in found.items():
        best = max(of, key=of.__getitem__)
        assert usual / 2.5 < best < 2.5 * usual, row
