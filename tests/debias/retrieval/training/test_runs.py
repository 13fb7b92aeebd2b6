"""Tests of debias.retrieval.training.runs: a folder that is trained, and damaged."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from debias.data.records import write_record
from debias.retrieval.data.events import EventColumns, read_all
from debias.retrieval.data.interactions import from_columns
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.training import runs
from debias.retrieval.training.baselines import BASELINES
from debias.retrieval.training.learner import TrainingConfig
from debias.retrieval.training.linear import ease_vectors, spectrum
from debias.retrieval.training.recipe import KINDS, Recipe
from tests.debias.retrieval.models.registry import LOG

pytestmark = pytest.mark.usefixtures("eagerly")
CONFIG = TrainingConfig(length=3, batch_size=240)
RECIPE = Recipe("fm", 4, [], 0.1, 0, CONFIG._asdict())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    found = runs.train(folder, LOG, [RECIPE], 2)
    write_record(folder / "report.json", {**found, "applied": {}})
    request = {"source": {"column": []}, "settings": {}}
    write_record(folder / "train.json", request)
    return folder


def test_a_finished_run_opens_with_its_learner(trained):
    run = runs.open_run(trained)
    assert [each["pass"] for each in run.report["passes"]] == [1, 2]
    assert not (trained / "passes").exists() and run.report["choice"] is None
    assert int(run.learner.optimizer.iterations) == 2 * 2
    assert run.request["settings"] == {} and run.report["held_out"] is None


def test_the_weights_of_repeats_are_fitted_on_events_that_were_not_learned(
    tmp_path, monkeypatch
):
    learned = []

    def watched(learner, **options):
        learned.append(options["learned"])
        return learn(learner, **options)

    learn = runs.learn
    monkeypatch.setattr(runs, "learn", watched)
    recipe = RECIPE._replace(config=CONFIG._replace(repeat="model")._asdict())
    found = runs.train(tmp_path, LOG, [recipe], 2, hold_out=True)
    # Each of the 60 users has 8 events, the last held out and the one before withheld.
    assert [(mask.size, (~mask).sum()) for mask in learned] == [(420, 60)] * 2
    repeat = found["repeat"]
    assert repeat["policy"] == "model" and np.isfinite(repeat["weights"]).all()
    assert found["held_out"]["users"] == 60
    plain = runs.train(tmp_path / "other", LOG, [RECIPE], 1)
    assert plain["repeat"] == Repeat("exclude")._asdict()


def test_a_choice_fits_the_weights_of_repeats_and_training_withholds_nothing(
    tmp_path, monkeypatch
):
    learned = []

    def watched(learner, **options):
        learned.append((len(learner.log), options["learned"]))
        return learn(learner, **options)

    learn = runs.learn
    monkeypatch.setattr(runs, "learn", watched)
    recipe = RECIPE._replace(config=CONFIG._replace(repeat="model")._asdict())
    found = runs.train(tmp_path, LOG, [recipe])
    assert learned == [(len(LOG), None)] * len(found["passes"])
    repeat, chosen = Repeat.of(found["repeat"]), Repeat.of(found["choice"]["repeat"])
    linear = found["recipe"]["config"]["linear"]
    rank = 0 if linear is None else min(len(LOG.users), len(LOG.items)) - 1
    assert repeat == chosen._replace(linear=rank) and repeat.policy == "model"
    (tmp_path / "learner").rename(tmp_path / "old")
    again = runs.train(tmp_path, LOG, [recipe])  # from choice.json
    assert again["repeat"] == found["repeat"]


def test_the_linear_part_has_not_seen_what_weights_of_repeats_are_fitted_on(
    tmp_path, monkeypatch
):
    seen = []

    def fitted(model, log, held_out, *rest):
        seen.append((model.extra, log, held_out))
        return Repeat("model", (0.0, 0.0, 0.0, 0.0))

    monkeypatch.setattr(runs, "fit_repeat", fitted)
    linear = CONFIG._replace(repeat="model", linear=(8.0, 10.0, 0.9))
    runs.train(tmp_path, LOG, [RECIPE._replace(config=linear._asdict())], passes=1)
    ((extra, log, held_out),) = seen
    assert len(log) + len(held_out) == len(LOG)
    past, _ = ease_vectors(spectrum(log), 10.0)
    np.testing.assert_allclose(np.abs(extra.past[2:]), np.abs(past), atol=1e-4)


def test_a_run_resumes_at_its_last_pass_and_comes_to_the_same(trained, tmp_path):
    events = []

    def stop(count):
        events.append(count)
        if sum(events) > len(LOG):  # in the second pass
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(tmp_path, LOG, [RECIPE], 2, progress=stop)
    assert [path.name for path in (tmp_path / "passes").iterdir()] == ["1"]
    events.clear()
    again = runs.train(tmp_path, LOG, [RECIPE], 2, progress=events.append)
    assert sum(events) == 2 * len(LOG)  # the first pass is reported at once
    assert (
        again["passes"] == json.loads((trained / "losses.json").read_text())["passes"]
    )
    whole = (trained / "learner" / "variables.npz").read_bytes()
    assert (tmp_path / "learner" / "variables.npz").read_bytes() == whole


def test_a_choice_is_made_once_and_its_recipe_is_trained(tmp_path, monkeypatch):
    recipes = [RECIPE, RECIPE._replace(history="mean")]
    found = runs.train(tmp_path, LOG, recipes)
    choice = json.loads((tmp_path / "choice.json").read_text())
    assert found["choice"] == choice and found["recipe"]["history"] in KINDS
    assert len(found["passes"]) == choice["passes"]
    assert [row["ndcg@50"] for row in choice["trials"]] == sorted(
        (row["ndcg@50"] for row in choice["trials"]), reverse=True
    )
    assert {row["name"] for row in choice["rivals"]} == {*BASELINES} - {"own_repeats"}
    monkeypatch.setattr(runs, "select", None)  # is not asked again
    again = runs.train(tmp_path, LOG, recipes)
    assert again["passes"] == found["passes"]


@pytest.mark.parametrize(
    "name, content",
    [
        ("report.json", "{}"),
        ("report.json", "[1]"),
        ("report.json", '{"tower": "fm", '),
        ("report.json", None),
        ("train.json", "{}"),
        ("train.json", "\\xff"),
        ("learner/log.npz", None),
        ("learner/variables.npz", None),
        ("learner/variables.npz", "no archive"),
        ("learner/variables.npz", ""),
    ],
)
def test_a_damaged_file_is_named(trained, tmp_path, name, content):
    folder = shutil.copytree(trained, tmp_path / "run")
    path = folder / name
    if content is None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(content.encode("latin1"))
    with pytest.raises(ValueError, match=f"{name}: is (missing or )?damaged"):
        runs.open_run(folder)


def test_a_recipe_of_another_make_is_damage(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    report = json.loads((folder / "report.json").read_text())
    report["recipe"]["colour"] = "red"
    write_record(folder / "report.json", report)
    with pytest.raises(ValueError, match=r"report\.json: is damaged.*colour"):
        runs.open_run(folder)


def test_a_pass_whose_losses_are_damaged_is_named(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "losses.json").write_text("[")
    with pytest.raises(ValueError, match=r"losses\.json: is damaged"):
        runs.train(folder, LOG, [RECIPE], 2)


def test_folders_that_hold_no_run(tmp_path):
    with pytest.raises(ValueError, match="is no folder that debias retrieval train"):
        runs.open_run(tmp_path)
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(ValueError, match="did not finish"):
        runs.open_run(tmp_path)
    (tmp_path / "report.json").write_text('{"candidates": []}')
    with pytest.raises(ValueError, match="holds a click model"):
        runs.open_run(tmp_path)


def test_a_loss_that_is_no_number_saves_nothing(tmp_path):
    config = CONFIG._replace(learning_rate=1e38)._asdict()
    recipe = RECIPE._replace(config=config)
    with pytest.raises(ValueError, match=r"diverged: loss (nan|inf) at step \d, learn"):
        runs.train(tmp_path, LOG, [recipe], 2)
    assert list(tmp_path.iterdir()) == []


def test_users_of_one_event_each_leave_none_to_hold_out(tmp_path):
    log = from_columns(["u", "v"], ["i", "j"], [1, 2])
    model = RECIPE._replace(config=CONFIG._replace(repeat="model")._asdict())
    with pytest.raises(
        ValueError, match="'model' needs users with at least two events"
    ):
        runs.train(tmp_path, log, [model], 1)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no user has two events"):
        runs.train(tmp_path, log, [RECIPE], 1, hold_out=True)


def test_events_of_a_source():
    table = pa.table({"u": ["a", "b", "a"], "i": ["x", "x", "x"], "t": [1, 2, 1]})
    columns = EventColumns("u", "i", "t")
    log, facts = runs.read_log(table, columns, items={"id": ["y", "x"], "n": [1.0, 2]})
    assert (facts["events"], facts["duplicates"], facts["bare"]) == (2, 1, 0)
    assert log.items.vocabularies["id"].tolist() == ["y", "x"]
    assert read_all(table, columns).time.tolist() == [1, 2, 1]
    for read in (runs.read_log, read_all):
        with pytest.raises(ValueError, match="holds no event"):
            read(table.slice(0, 0), columns)
    assert np.isfinite(log.items.columns["n"]).all()
