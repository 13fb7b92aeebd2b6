"""`debias retrieval` at a prompt: one small set of events through all commands."""

import json
import re
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from debias.commands.retrieval import _warn_repeats
from debias.retrieval.training import runs
from tests.debias.commands import prompt

run = partial(prompt.run, "retrieval")
run_json = partial(prompt.run_json, "retrieval")

pytestmark = pytest.mark.usefixtures("eagerly")
MAPPED = ["-c", "user=uid", "-c", "item=sku", "-c", "time=ts"]
SMALL = ["--dim", "4", "--hidden", "4", "--length", "4", "--batch-size", "64"]
SMALL += ["--model", "dssm", "--history", "recency"]


def write(path, start, stop):
    rng = np.random.default_rng(0)
    user = rng.integers(0, 20, 300)
    item = (user * 7 + rng.integers(0, 9, 300)) % 25
    table = pa.table(
        {
            "uid": [f"u{each}" for each in user],
            "sku": [f"p{each}" for each in item],
            "ts": np.arange(300),
        }
    )
    pyarrow.csv.write_csv(table.slice(start, stop - start), path)
    return path


def test_items_are_encoded_in_pieces(folder):
    learner = runs.open_run(folder / "model").learner
    found = runs.encoded(folder / "model", 25, lambda f, some: map(f, some), piece=8)
    np.testing.assert_allclose(found, learner.item_vectors(), rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds events of two days, a table of items, a trained model and its version."""
    folder = tmp_path_factory.mktemp("retrieval")
    write(folder / "day1.csv", 0, 200)
    write(folder / "day2.csv", 200, 300)
    rows = range(20)
    items = pa.table({"sku": [f"p{r}" for r in rows], "kind": [r % 3 for r in rows]})
    pyarrow.csv.write_csv(items, folder / "items.csv")
    tables = ["--items", folder / "items.csv", "-o", folder / "model"]
    given = [*MAPPED, *SMALL, *tables, "--epochs", "2"]
    done = run("train", folder / "day1.csv", *given)
    assert "5 ids without features" in done.output and "peak memory" in done.output
    assert "--repeat model: in " in done.output
    assert run_json("publish", folder / "model", folder / "root")["items"] == 25
    return folder


def test_a_finished_run_is_not_trained_again_and_another_needs_force(folder):
    given = [*MAPPED, *SMALL, "--items", folder / "items.csv", "-o", folder / "model"]
    done = run("train", folder / "day1.csv", *given, "--epochs", "2")
    assert "is finished" in done.output
    done = run("train", folder / "day1.csv", *given, "--epochs", "1", code=1)
    assert "another run, with epochs 2 where this has 1" in done.output


def killed_after_one_pass(monkeypatch):
    learn, passes = runs.learn, []

    def killed(learner, **options):
        if passes:
            raise KeyboardInterrupt
        passes.append(1)
        return learn(learner, **options)

    monkeypatch.setattr(runs, "learn", killed)


def test_training_goes_on_behind_the_last_whole_pass(folder, tmp_path, monkeypatch):
    given = [folder / "day1.csv", *MAPPED, *SMALL, "--hold-out", "--epochs", "2"]
    whole = run_json("train", *given, "-o", tmp_path / "whole")
    killed_after_one_pass(monkeypatch)
    done = run("train", *given, "-o", tmp_path / "again", code=130)
    assert "Give the same command again" in done.output
    monkeypatch.undo()
    again = run_json("train", *given, "-o", tmp_path / "again")
    assert again["passes"] == whole["passes"]
    assert again["held_out"] == whole["held_out"]
    assert whole["held_out"]["users"] == 20 and 0 <= whole["held_out"]["hr@10"] <= 1
    done = run("publish", tmp_path / "whole", tmp_path / "root", code=1)
    assert "train without --hold-out" in done.output


def test_an_interrupted_run_does_not_resume_on_other_events(tmp_path, monkeypatch):
    """Otherwise a learner of the old events would be reported with the new ones."""
    given = [write(tmp_path / "day.csv", 0, 200), *MAPPED, *SMALL, "--epochs", "2"]
    killed_after_one_pass(monkeypatch)
    run("train", *given, "-o", tmp_path / "model", code=130)
    monkeypatch.undo()
    write(tmp_path / "day.csv", 0, 300)
    done = run("train", *given, "-o", tmp_path / "model", code=1)
    assert "another run, with different contents of the events" in done.output
    forced = run_json("train", *given, "-o", tmp_path / "model", "--force")
    assert forced["events"] == 300
    learner = runs.open_run(tmp_path / "model").learner
    assert len(learner.log) == 300


@pytest.mark.parametrize(
    "option",
    [
        *("--epochs=0", "--dim=0", "--length=-1", "--batch-size=1"),
        *("--window-events=0", "--seed=-1", "--epochs=1.5"),
    ],
)
def test_numbers_out_of_range_are_refused_before_a_file_is_read(option, tmp_path):
    done = run("train", "none.csv", "-o", tmp_path / "x", option, code=2)
    assert option.split("=")[0] in done.output and not (tmp_path / "x").exists()


def test_a_loss_that_is_no_number_says_what_to_try_and_reports_nothing(
    folder, tmp_path, monkeypatch
):
    from debias.retrieval.training.fitting import RowWiseAdam

    monkeypatch.setattr(
        "debias.retrieval.training.learner.RowWiseAdam",
        lambda rate, **given: RowWiseAdam(1e38, **given),
    )
    given = [folder / "day1.csv", *MAPPED, *SMALL, "-o", tmp_path / "model"]
    done = run("train", *given, "--rate", "1", "--epochs", "1", code=1)
    said = " ".join(done.output.split())
    assert re.search("diverged: loss (nan|inf) at step .*try a lower rate", said)
    assert not (tmp_path / "model").exists()  # another rate needs no --force


def test_many_repeats_that_count_as_missed_are_warned_of(capsys):
    for repeated, policy in ((4, "exclude"), (50, "model"), (5, "exclude")):
        assert not capsys.readouterr().err
        _warn_repeats({"repeated": repeated, "events": 100}, policy)
    said = " ".join(capsys.readouterr().err.split())
    assert "5 of 100 events are of an item that the user took before" in said
    assert said.endswith("train with --repeat model")


def test_tables_fit_a_terminal_of_80_columns(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    given = [folder / "day1.csv", *MAPPED, *SMALL, "--hold-out", "--epochs", "1"]
    shown = [
        run("train", *given, "-o", tmp_path / "model").output,
        run("evaluate", tmp_path / "model", folder / "day2.csv").output,
        run("publish", folder / "model", tmp_path / "root", "--index", "hnsw").output,
        run("update", tmp_path / "root", folder / "day2.csv").output,
        run("query", tmp_path / "root", "--user", "u1").output,
    ]
    for text in shown:
        prose = "written to|last events|^(mrr/10|weights of .*): "
        tables = [line for line in text.splitlines() if not re.search(prose, line)]
        assert max(map(len, tables)) <= 80 and "…" not in text, text
    assert "popularity" in shown[0] and "of each user's best hit" in shown[1]
    for name in ("hr@10", "recall@100", "unknown_items", "mrr/10"):
        assert name in shown[0] and name in shown[1]
    assert "p50 ms" in shown[2] and "new items" in shown[3]


def test_later_events_judge_a_model(folder):
    found = run_json("evaluate", folder / "model", folder / "day2.csv")
    assert found["users"] == 20 and found["events"] == 100
    assert found["hr@50"] == 1.0  # of 25 items, those taken before among them
    assert 0 < found["repeated"] < 100
    done = run("evaluate", folder / "model", folder / "day1.csv")
    said = " ".join(done.output.split())
    assert "warning: the model may have learned from 200 of these 200 events" in said


def test_updates_follow_the_stream_and_the_next_query_knows(folder):
    root, later = folder / "root", folder / "day2.csv"
    increments = run_json("update", root, later, "--every", "60")
    assert [each["events"] for each in increments] == [60, 40]
    assert "applied before" in run("update", root, later).output
    (full,) = run_json("update", root, later, "--full")
    assert full["kind"] == "full" and full["events"] == 100
    answer = run_json(
        "query", root, "--user", "u3", "--history", 'p1,"p9,9"', "-k", "4"
    )
    assert answer["version"] == full["version"] and answer["known"]
    assert len(answer["items"]) == 4 and answer["passed_over"] == ["p9,9"]
    assert "not known" in run("query", root, "--user", "nobody").output
    answer = run("query", root, "--user", "u3", "-k", "30").output
    assert "25 of 30 items: no other items are left for this user" in answer


def test_an_update_says_what_new_items_lack(folder, tmp_path):
    root = tmp_path / "root"
    run("publish", folder / "model", root)
    new = pa.table({"uid": ["u1", "u1"], "sku": ["new", "newer"], "ts": [900, 901]})
    pyarrow.csv.write_csv(new, tmp_path / "new.csv")
    pyarrow.csv.write_csv(
        pa.table({"sku": ["newer"], "kind": [1]}), tmp_path / "items.csv"
    )
    found = run("update", root, tmp_path / "new.csv").output
    said = "2 lack kind. A full update adds them (--full --items TABLE)"
    assert said in " ".join(found.split())
    new = new.set_column(2, "ts", [[902, 903]]).slice(1)
    new = new.set_column(1, "sku", [["newer"]])
    pyarrow.csv.write_csv(new, tmp_path / "more.csv")
    found = run(
        "update", root, tmp_path / "more.csv", "--items", tmp_path / "items.csv"
    )
    assert "without features" not in found.output
    pyarrow.csv.write_csv(
        pa.table({"sku": ["newest"], "kind": [77]}), tmp_path / "items.csv"
    )
    new = new.set_column(2, "ts", [[904]]).set_column(1, "sku", [["newest"]])
    pyarrow.csv.write_csv(new, tmp_path / "last.csv")
    given = [root, tmp_path / "last.csv", "--items", tmp_path / "items.csv"]
    said = " ".join(run("update", *given).output.split())
    assert "new items with values that training did not know: kind of 1;" in said


def took(*paths):
    """What user u3 took, in some files of events."""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    cells = [line.replace('"', "").split(",") for line in lines]
    return {item for user, item, _ in cells if user == "u3"}


def test_a_policy_of_repeats_goes_from_training_to_answers(folder, tmp_path):
    given = [folder / "day1.csv", *MAPPED, *SMALL, "--epochs", "1"]
    for policy in ("exclude", "model"):
        model, root = tmp_path / policy, tmp_path / f"{policy}-root"
        said = run("train", *given, "-o", model, "--repeat", policy).output
        assert f"--repeat {policy}, as given: " in " ".join(said.split())
        assert ("weights" in said) == (policy == "model")
        assert f"items, repeat {policy}\n" in run("publish", model, root).output
        for command in ("query", "update"):  # the version before, and that after it
            if command == "update":
                run("update", root, folder / "day2.csv")
            paths = ["day1.csv", "day2.csv"] if command == "update" else ["day1.csv"]
            mine = took(*(folder / path for path in paths))
            answer = run_json("query", root, "--user", "u3", "-k", "25")["items"]
            free = [*run_json("query", root, "--user", "u3", "-k", "25",
                              "--repeat", "allow")["items"]]  # fmt: skip
            assert len(free) == 25 and len(mine) > 4
            expected = set(free) - mine if policy == "exclude" else set(free)
            assert set(answer) == expected and len(answer) == len(expected)
    done = run("query", tmp_path / "exclude-root", "--repeat", "model", code=1)
    assert "was published with 'exclude'; train with --repeat" in done.output


def test_targets_are_learned_apart_served_as_one_and_updated(folder, tmp_path):
    rng = np.random.default_rng(0)
    names = ("uid", "sku", "ts", "what")

    def write_events(path, start, count):
        bought = rng.random(count) < 0.3
        user = rng.integers(0, 20, count)
        item = np.where(bought, 12, 0) + (user + rng.integers(0, 4, count)) % 12
        what = np.where(bought, "order", "click")
        rows = zip(user, item, range(start, start + count), what, strict=True)
        lines = [",".join(map(str, row)) for row in (names, *rows)]
        path.write_text("\n".join(lines) + "\n")

    write_events(tmp_path / "one.csv", 0, 300)
    given = [tmp_path / "one.csv", *MAPPED, *SMALL, "--epochs", "1"]
    worth = ["--worth", "click=1", "--worth", "order=0"]
    target = ["-c", "target=what"]
    for lone in (worth, target):
        done = run("train", *given, *lone, "-o", tmp_path / "x", code=1)
        assert "give both or neither: -c target=COLUMN" in done.output
    done = run("train", *given, *worth[:2], *target, "-o", tmp_path / "x", code=1)
    assert "train with a worth for it (--worth NAME=VALUE;" in " ".join(
        done.output.split()
    )
    for bad in ("click=-1", "click=nan", "click=0", "click=x", "5", "click=1e39"):
        done = run("train", *given, *target, "--worth", bad, "-o", tmp_path, code=1)
        assert "--worth must be" in done.output
    found = run_json("train", *given, *worth, *target, "-o", tmp_path / "model")
    assert found["recipe"]["worth"] == {"click": 1.0, "order": 0.0}
    root = tmp_path / "root"
    run("publish", tmp_path / "model", root)
    write_events(tmp_path / "two.csv", 300, 50)
    assert run_json("update", root, tmp_path / "two.csv")[0]["events"] == 50
    assert len(run_json("query", root, "--user", "3", "-k", "5")["items"]) == 5


def test_a_user_that_nobody_knows(folder):
    root = folder / "root"
    assert "not known" in run("query", root, "--user", "nobody").output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "day1.csv", "-o", "x", "--model", "eiffel"], "--model must be one"),
        (
            ["train", "none.csv", "-o", "x", "--rate", "nan"],
            "--rate must be above 0.*nan",
        ),
        (["train", "none.csv", "-o", "x", "--rate", "0"], "--rate must be above 0"),
        (
            ["train", "none.csv", "-o", "x", "--rate", "inf"],
            "--rate.*at most 1, got inf",
        ),
        (
            ["train", "none.csv", "-o", "x", "--temperature", "-1"],
            "--temperature must be",
        ),
        (["train", "none.csv", "-o", "x", "--repeat", "yes"], "--repeat must be one"),
        (["train", "none.csv", "-o", "x", "--hidden", "8,0"], "--hidden must be whole"),
        (["train", "none.csv", "-o", "x", "--hidden", "8,x"], "--hidden must be whole"),
        (
            ["train", "none.csv", "-o", "x", "-c", "item=a", "-c", "item=b"],
            "item twice",
        ),
        (
            ["train", "none.csv", "-o", "x", *["-c", "item_features=a"] * 2],
            "names item_features=a twice",
        ),
        (
            ["train", "day1.csv", "-o", "x", "-c", "item_features=hue"],
            "item_features= needs --items",
        ),
        (["train", "day1.csv", "-o", "x"], "no column user for user.*say user=NAME"),
        (["train", "day1.csv", "-o", "x", "-c", "who=uid"], "--column must be ROLE"),
        (["train", "none.csv", "-o", "x"], "none.csv: no such file"),
        (["publish", "model", "x", "--index", "card"], "--index must be one of"),
        (["publish", "empty", "x"], "is no folder that"),
        (["publish", "model", "day1.csv"], "day1.csv: is a file; choose another name"),
        (["evaluate", "model", "cut.csv"], "cut.csv: the last row.*no line ending"),
        (["update", "empty", "day2.csv"], "no published version"),
        (["query", "none", "-k", "0"], "k must be at least 1"),
        (
            ["query", "none", "--user", "u1", "--feature", "id=u2"],
            "--feature gives 'id' twice",
        ),
        (["evaluate", "model", "day2.csv", "-c", "who=uid"], "--column must be ROLE"),
        (["update", "root", "new.csv", "--items", "bare.csv"], r"lacks.*\['kind'\]"),
        (["update", "root", "new.csv", "--items", "more.csv"], r"unknown.*\['hue'\]"),
        (["query", "root", "--feature", "age"], "must be NAME=VALUE"),
        (["query", "root", "--feature", "shoe=9"], "unknown features.*shoe"),
    ],
)
def test_bad_input_is_a_message(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "cut.csv").write_text("uid,sku,ts\nu1,p1,5")
    (folder / "new.csv").write_text("uid,sku,ts\nu1,p1,5\n")
    (folder / "bare.csv").write_text("sku,hue\np1,red\n")
    (folder / "more.csv").write_text("sku,kind,hue\np1,2,red\n")
    done = run(*arguments, code=1)
    assert re.search(message, " ".join(done.output.split())), done.output


def test_a_stream_whose_applied_rows_have_changed_is_refused(folder):
    path = folder / "day1.csv"
    text = path.read_text()
    header, _, *rest = text.splitlines(keepends=True)
    path.write_text("".join([header, *rest]))
    done = run("update", folder / "root", path, code=1)
    path.write_text(text)
    assert "its first 200 rows have changed" in " ".join(done.output.split())


def test_check_names_a_damaged_file_and_a_roll_back_refuses_it(tmp_path):
    from debias.retrieval.serving import versions
    from tests.debias.retrieval import worlds

    root = tmp_path / "root"
    worlds.publish(root, tmp_path, 1)
    worlds.publish(root, tmp_path, 2)
    said = run("check", root).output.splitlines()
    assert said == ["000001: 0.0 MB, whole", "000002, served: 0.0 MB, whole"]
    worlds.overwrite(root / "versions" / "000001" / "items.npz", b"no")
    said = run("check", root, code=1).output
    assert "items.npz: has 2 bytes, but the manifest says" in said
    done = run("check", root, "--json", code=1)
    first, second = json.loads(done.stdout)
    assert "items.npz" in first["damage"] and second["damage"] is None
    damaged = run("rollback", root, code=1).output
    assert "items.npz" in damaged and versions.current(root) == "000002"
    worlds.publish(root, tmp_path, 3)
    assert "serves version 000002, not 000003" in run("rollback", root).output
    found = run_json("rollback", root, "000003")
    assert found == {"version": "000003", "before": "000002"}
    done = run("check", tmp_path / "absent", code=1)
    assert "holds no published version" in done.output
