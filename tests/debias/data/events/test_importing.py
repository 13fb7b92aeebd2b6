"""Events of every shape become the same log; what does not fit is counted and said."""

import gzip
import json
import os
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from debias.__main__ import app
from debias.data.events import (
    COUNTED,
    PRESETS,
    EventColumns,
    import_events,
    importing,
)
from debias.data.read_log import read_log

UBI = PRESETS["ubi"]


def shown(session, places=4, items=9):
    """Items of a session, its clicks and its carts, in every shape of a log."""
    rng = np.random.default_rng([7, session])
    item = rng.choice(items, places, replace=False)
    return item, rng.random(places) < 0.3, rng.random(places) < 0.1


def ubi(sessions=40, first=1):
    """Queries and events of User Behavior Insights; a click on nothing shown."""
    queries, events = [], []
    for s in range(sessions):
        item, clicked, carted = shown(s)
        common = {"application": "shop", "query_id": f"q{s}", "client_id": f"c{s % 7}"}
        when = f"2026-03-01T10:{s % 60:02d}"
        queries.append(
            common | {"user_query": f"term {s % 5}", "timestamp": f"{when}:00.{s:03d}Z"}
        )
        for k in range(len(item)):
            event = common | {
                "timestamp": f"{when}:01.{k:03d}Z",
                "event_attributes": {
                    "object": {"object_id": f"SKU-{item[k]:03d}", "color": "red"},
                    "position": {"ordinal": k + first},
                },
            }
            names = ["impression"] + ["click"] * (1 + k % 2) * int(clicked[k])
            names += ["add_to_cart"] * int(carted[k])
            events += [event | {"action_name": name} for name in names]
    stray = {**events[0], "action_name": "click"}
    stray["event_attributes"] = {"object": {"object_id": "SKU-999"}}
    return queries, [*events, stray]


def expected(sessions=40):
    """By hand, a dict an event."""
    made = [shown(s) for s in range(sessions)]
    clicked = sum(int(c.sum()) for _, c, _ in made)
    twice = sum(int(c[1::2].sum()) for _, c, _ in made)
    carts = sum(int(c.sum()) for *_, c in made)
    return clicked, clicked + twice, carts


def check(found, path, first_position=1):
    clicked, clicks, carts = expected()
    assert (found.lists, found.impressions, found.clicked) == (40, 160, clicked)
    assert found.clicks == clicks and found.targets == {"add_to_cart": carts}
    assert found.counts["orphans"] == 1 and found.first_position == first_position
    reading = read_log(path)
    assert reading.log.sessions == 40 and reading.log.click.sum() == clicked
    assert set(reading.queries) == {f"term {n}" for n in range(5)}
    rows = sorted(pq.read_table(path).to_pylist(), key=lambda r: int(r["session"][1:]))
    for s, row in enumerate(rows):
        item, click, _ = shown(s)
        assert row["item"] == [f"SKU-{i:03d}" for i in item]
        assert row["click"] == click.tolist() and row["position"] == [1, 2, 3, 4]
        assert row["query"] == f"term {s % 5}" and row["user"] == f"c{s % 7}"


def lines(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    pack = gzip.compress if path.suffix == ".gz" else bytes
    path.write_bytes(pack(text.encode()))
    return path


def flat(rows):
    """Nested rows as columns whose names have dots."""

    def leaves(value, name):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from leaves(inner, f"{name}.{key}" if name else key)
        else:
            yield name, value

    rows = [dict(leaves(row, "")) for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


@pytest.mark.parametrize("kind", ["ndjson", "ndjson.gz", "parquet", "csv", "one file"])
def test_search_events_of_every_format(kind, tmp_path):
    queries, events = ubi()
    files = [tmp_path / f"{name}.{kind}" for name in ("queries", "events")]
    if kind == "one file":  # as a bulk request has it, with lines of its own
        files = [tmp_path / "all.ndjson"]
        rows = [
            each
            for name, some in (("queries", queries), ("events", events))
            for row in some
            for each in ({"index": {"_index": f"ubi_{name}", "_id": "7"}}, row)
        ]
        lines(files[0], rows)
    else:
        for path, rows in zip(files, (queries, events), strict=True):
            if kind == "parquet":
                pq.write_table(pa.Table.from_pylist(rows), path)
            elif kind == "csv":
                pyarrow.csv.write_csv(flat(rows), path)
            else:
                lines(path, rows)
    found = import_events(files, tmp_path / "log", "ubi")
    check(found, tmp_path / "log")
    assert found.counts["blank"] == (len(queries) + len(events)) * (kind == "one file")
    (said,) = (n for n in found.notices if "was not shown" in n)
    row = (
        2 * (len(queries) + len(events)) - 1 if kind == "one file" else len(events) - 1
    )
    column = "event_attributes.object.object_id"
    assert said.endswith(f"{files[-1]}, column {column}, row {row}")


@pytest.mark.parametrize("kind", ["ndjson", "csv"])
def test_a_sample_of_the_generator_of_search_events(kind, tmp_path):
    """It ranks from 0 as `rank`, beside the object; its CSV has no nested names."""
    queries, events = ubi(first=0)
    for event in events:
        inner = event["event_attributes"]
        if "position" in inner:
            inner["rank"] = inner.pop("position")["ordinal"]
    rng = np.random.default_rng(4)
    events = [events[k] for k in rng.permutation(len(events))]
    files = [tmp_path / f"{name}.{kind}" for name in ("queries", "events")]
    if kind == "ndjson":
        for path, rows in zip(files, (queries, events), strict=True):
            lines(path, rows)
    else:
        table = flat(events)
        names = [name.rpartition(".")[2] for name in table.column_names]
        pyarrow.csv.write_csv(flat(queries), files[0])
        pyarrow.csv.write_csv(table.rename_columns(names), files[1])
    found = import_events(files, tmp_path / "log", "ubi")
    check(found, tmp_path / "log", first_position=0)


def test_a_missing_item_is_said_of_the_file_of_events(tmp_path):
    queries, events = ubi()
    files = [lines(tmp_path / "q.jsonl", queries), tmp_path / "e.jsonl"]
    for event in events:
        event["event_attributes"] = {"sku": "7"}
    lines(files[1], events)
    with pytest.raises(ValueError, match=r"e\.jsonl: no column event_attributes\.obj"):
        import_events(files, tmp_path / "log", "ubi")


def test_dumps_that_wrap_documents_and_ranks_from_zero(tmp_path):
    queries, events = ubi(first=0)
    wrapped = [{"_index": "ubi", "_source": row} for row in [*queries, *events]]
    found = import_events(lines(tmp_path / "a.jsonl", wrapped), tmp_path / "log", "ubi")
    check(found, tmp_path / "log", first_position=0)
    assert "positions count from 0" in found.notices
    with pytest.raises(
        ValueError, match=r"a\.jsonl: a position is 0, below .* position 1"
    ):
        import_events(tmp_path / "a.jsonl", tmp_path / "log2", "ubi", first_position=1)


def test_a_prompt_and_one_file(tmp_path):
    queries, events = ubi()
    files = [lines(tmp_path / "q.jsonl", queries), lines(tmp_path / "e.jsonl", events)]
    command = ["import", *files, "--preset", "ubi", "-o", tmp_path / "log.parquet"]
    command += ["-c", "click=click,add_to_cart", "-c", "target=", "--json"]
    done = CliRunner().invoke(app, [str(word) for word in command])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    _, clicks, carts = expected()
    assert told["clicks"] == clicks + carts and told["targets"] == {}
    assert read_log(tmp_path / "log.parquet").log.sessions == 40
    again = CliRunner().invoke(app, [str(word) for word in command])
    assert again.exit_code == 1 and "exists; --force" in again.output
    shown = CliRunner().invoke(app, [*map(str, command[:-1]), "--force"])
    assert shown.exit_code == 0 and "the first at" in shown.output


def test_shown_lists_of_queries_where_no_event_is_an_impression(tmp_path):
    queries, events = ubi()
    for s, query in enumerate(queries):
        query["query_response_hit_ids"] = [f"SKU-{i:03d}" for i in shown(s)[0]]
    both = import_events(
        [lines(tmp_path / "q.jsonl", queries), lines(tmp_path / "e.jsonl", events)],
        tmp_path / "both",
        "ubi",
    )
    check(both, tmp_path / "both")  # impressions say better what was seen
    some = [e for e in events if e["action_name"] != "impression"]
    lines(tmp_path / "e.jsonl", some)
    found = import_events(
        [tmp_path / "q.jsonl", tmp_path / "e.jsonl"], tmp_path / "log", "ubi"
    )
    check(found, tmp_path / "log")
    assert any("whether or not anybody saw them" in n for n in found.notices)


def analytics(sessions=30, text=False):
    """An analytics export: lists within an event, keys and values, other lists."""
    events = []
    for s in range(sessions):
        item, clicked, _ = shown(s)
        number = str if text else int

        def event(name, items, offset, s=s, number=number):
            at = 1_772_000_000_000_000 + s * 60_000_000 + offset
            params = [
                {"key": "ga_session_id", "value": {"int_value": number(s)}},
                {"key": "search_term", "value": {"string_value": f"term {s % 5}"}},
            ]
            return {
                "event_name": name,
                "event_timestamp": number(at),
                "user_pseudo_id": f"u{s % 3}",
                "event_params": params if name == "view_item_list" else [],
                "device": {"category": ["mobile", "desktop"][s % 2]},
                "items": [
                    {
                        "item_id": f"SKU-{i}",
                        "item_list_index": number(k),
                        "price": 2.5 + i,
                    }
                    for i, k in items
                ],
            }

        listed = [(int(i), k) for k, i in enumerate(item)]
        events.append(event("view_item_list", listed, 0))
        events += [
            event("select_item", [one], 1_000_000 + one[1])
            for one, click in zip(listed, clicked, strict=True)
            if click
        ]
    return events


@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
def test_an_analytics_export(text, tmp_path):
    events = analytics(text=text)
    if text:
        events[0]["items"][1]["item_list_index"] = "(not set)"
    path = lines(tmp_path / "events.jsonl", events)
    columns = PRESETS["ga4"].replaced(["keep=items.price"])
    found = import_events(path, tmp_path / "log", columns)
    clicks = sum(int(shown(s)[1].sum()) for s in range(30))
    assert (found.lists, found.impressions, found.clicked) == (30, 120, clicks)
    assert found.by == "row" and found.first_position == 0
    assert found.counts["reranked"] == int(text)
    table = pq.read_table(tmp_path / "log")
    for s, row in enumerate(sorted(table.to_pylist(), key=lambda r: r["timestamp"])):
        item, click, _ = shown(s)
        assert row["click"] == click.tolist() and row["query"] == f"term {s % 5}"
        if s or not text:
            assert row["item"] == [f"SKU-{i}" for i in item]
            assert row["price"] == [2.5 + i for i in item]
        assert row["device"] == ["mobile", "desktop"][s % 2]
    pq.write_table(pa.Table.from_pylist(events), tmp_path / "events.parquet")
    again = import_events(tmp_path / "events.parquet", tmp_path / "two", columns)
    assert again[1:-1] == found[1:-1]
    assert pq.read_table(tmp_path / "two").equals(table)


def generic(rows, names=("event", "session", "query", "item", "position", "timestamp")):
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    return pa.table({name: list(values) for name, values in columns.items()})


def rows_of(path):
    return pq.read_table(path).to_pylist()


def test_a_target_that_never_occurs_is_said(tmp_path):
    rows = [("impression", 0, "q", "x", 1, 1), ("click", 0, "q", "x", None, 2)]
    pq.write_table(generic(rows), tmp_path / "events.parquet")
    columns = EventColumns(target=("gift",))
    found = import_events(tmp_path / "events.parquet", tmp_path / "log", columns)
    assert any("the name of the target gift" in each for each in found.notices)


def test_an_action_belongs_to_the_last_impression_before_it(tmp_path):
    # The user u sees x twice, in two lists an hour apart; no list has an id.
    names = ("event", "user", "query", "item", "timestamp")
    rows = [
        ("impression", "u", "a", "x", 0),
        ("impression", "u", "a", "y", 10),
        ("click", "u", None, "x", 20),
        ("impression", "u", "a", "x", 5000),
        ("impression", "u", "b", "x", 5010),  # another query, another list
        ("click", "u", None, "x", 5005),
        ("click", "u", None, "y", 5006),  # too late for the first list
        ("click", "v", None, "x", 21),  # never shown to v
        ("click", "u", None, "z", 22),
        ("impression", None, "a", "x", 0),  # nobody's
    ]
    rows = [(*row[:-1], row[-1] + 1_700_000_000) for row in rows]
    found = import_events(generic(rows, names), tmp_path / "log", gap=1800)
    assert (found.by, found.lists, found.impressions, found.clicks) == ("gap", 3, 4, 2)
    assert [found.counts[n] for n in ("orphans", "late", "without_session")] == [
        2,
        1,
        1,
    ]
    assert [(r["query"], r["item"], r["click"]) for r in rows_of(tmp_path / "log")] == [
        ("a", ["x", "y"], [True, False]),
        ("a", ["x"], [True]),
        ("b", ["x"], [False]),
    ]


def test_each_odd_event_has_one_policy_and_a_sentence(tmp_path):
    base = 1_700_000_000
    rows = [
        ("click", "s", "q", "x", None, base - 5),  # before its impression: kept
        ("impression", "s", "q", "x", 1, base),
        ("impression", "s", "q", "x", 3, base + 1),  # again: the first place stays
        ("impression", "s", "q", "y", 4, base),  # a hole in the ranks stays a hole
        ("click", "s", "q", "y", None, base + 3600),  # an hour later
        ("impression", "t", "q", "x", 1, base + 2),  # ranks that repeat: by time
        ("impression", "t", "q", "y", 1, base + 1),
        ("impression", "t", "q", None, 2, base + 1),  # no item
        ("impression", None, "q", "x", 1, base + 1),  # no session
        ("scroll", "t", "q", None, None, base),
        ("click", "s", "q", "z", None, base),  # never shown
    ]
    found = import_events(generic(rows), tmp_path / "log", window=600)
    counts = {name: count for name, count in found.counts.items() if count}
    assert counts == {
        "duplicates": 1,
        "reranked": 1,
        "holes": 1,
        "orphans": 1,
        "early": 1,
        "late": 1,
        "without_item": 1,
        "without_session": 1,
        "other_events": 1,
    }
    first = [n.rpartition("row ")[2] for n in found.notices if "first at table" in n]
    assert first == ["2", "6", "3", "10", "0", "4", "7", "8"]
    said = "\n".join(found.notices)
    for role in ("item", "position", "timestamp", "session"):
        assert f"the first at table, column {role}, row" in said
    assert any("ignored: 1 (scroll)" in notice for notice in found.notices)
    s, t = rows_of(tmp_path / "log")
    assert (s["item"], s["position"], s["click"]) == (["x", "y"], [1, 4], [True, False])
    assert (t["item"], t["position"]) == (["y", "x"], [1, 2])
    everything = import_events(generic(rows), tmp_path / "all")  # no window
    assert everything.counts["late"] == 0 and everything.clicks == 2


def test_a_visit_that_asks_several_queries_is_a_list_each(tmp_path):
    rows = [
        ("impression", "visit", "a", "x", 1, 0),
        ("impression", "visit", "a", "y", 2, 0),
        ("impression", "visit", "b", "y", 1, 50),
        ("click", "visit", None, "y", None, 60),  # the list that it was seen in last
    ]
    found = import_events(generic(rows), tmp_path / "log")
    assert found.counts["parted"] == 1 and found.lists == 2
    assert [(r["query"], r["click"]) for r in rows_of(tmp_path / "log")] == [
        ("a", [False, False]),
        ("b", [True]),
    ]
    assert any("asked several queries" in notice for notice in found.notices)


def oracle(rows):
    """Lists and counts of events with a session, event by event, in plain Python."""
    lists, acts = defaultdict(dict), defaultdict(Counter)
    for event, session, _, item, position, _ in rows:
        if event == "impression":
            lists[session].setdefault(item, position)
    for event, session, _, item, *_ in rows:
        if event != "impression":
            acts[session, item][event] += item in lists[session]
    return {
        s: {i: (p, acts[s, i]["click"], acts[s, i]["buy"]) for i, p in shown.items()}
        for s, shown in lists.items()
    }


@pytest.mark.parametrize("memory", [0.5, 1e-5], ids=["one group", "many groups"])
def test_random_events_against_plain_python(memory, tmp_path):
    rng = np.random.default_rng(3)
    rows = []
    for session in range(300):
        items = rng.choice(30, 6, replace=False)
        for k, item in enumerate(items):
            rows.append(("impression", session, session % 7, int(item), k + 1, 2 * k))
            for event, chance in (("click", 0.3), ("buy", 0.1)):
                if rng.random() < chance:
                    other = int(item) if rng.random() < 0.8 else 77
                    rows.append((event, session, session % 7, other, None, 2 * k + 1))
    rows = [rows[n] for n in rng.permutation(len(rows))]
    wanted = oracle(rows)
    parts = [tmp_path / "events" / f"{n}.parquet" for n in range(3)]
    parts[0].parent.mkdir()
    for n, path in enumerate(parts):
        pq.write_table(generic(rows[n::3]), path)
    columns = EventColumns(target=("buy",))
    found = import_events(tmp_path / "events", tmp_path / "log", columns, memory=memory)
    assert len(list((tmp_path / "log").glob("*.parquet"))) > 20 * (memory < 0.1)
    got = {
        int(row["session"]): {
            item: (place, click, buy)
            for item, place, click, buy in zip(
                row["item"], row["position"], row["click"], row["buy"], strict=True
            )
        }
        for row in rows_of(tmp_path / "log")
    }
    assert got == {
        s: {i: (p, click > 0, buy) for i, (p, click, buy) in cells.items()}
        for s, cells in wanted.items()
    }
    clicks = sum(click for cells in wanted.values() for _, click, _ in cells.values())
    assert found.clicks == clicks
    assert found.clicks + found.targets["buy"] + found.counts["orphans"] == sum(
        row[0] != "impression" for row in rows
    )
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    queries, events = ubi()
    files = [lines(tmp_path / "a.jsonl", queries), lines(tmp_path / "b.jsonl", events)]
    out = tmp_path / "log"

    def killed(*_):
        raise KeyboardInterrupt

    spilled = []
    spill = importing.spill
    monkeypatch.setattr(
        importing,
        "spill",
        lambda part, *more: spilled.append(part) or spill(part, *more),
    )
    monkeypatch.setattr(importing, "join", killed)
    with pytest.raises(KeyboardInterrupt):
        import_events(files, out, "ubi")
    assert not out.exists() and (tmp_path / ".log.importing").exists()
    monkeypatch.undo()
    read = importing.spill.__globals__["Flattener"]
    monkeypatch.setitem(importing.spill.__globals__, "Flattener", killed)
    check(import_events(files, out, "ubi"), out)  # reads no event again
    monkeypatch.setitem(importing.spill.__globals__, "Flattener", read)
    assert not (tmp_path / ".log.importing").exists()
    check(import_events(files, out, "ubi"), out)  # is finished
    with pytest.raises(ValueError, match="log: exists; --force"):
        import_events(files, out, UBI.replaced(["target="]))
    import_events(files, out, UBI.replaced(["target="]), force=True)
    assert "add_to_cart" not in pq.read_schema(out / "part-00000.parquet").names


@pytest.mark.parametrize("name", ["log", "log.parquet"])
def test_killed_while_it_publishes_it_loses_nothing(tmp_path, monkeypatch, name):
    """Before any rename and removal, over an older log; then started again."""
    files = [lines(tmp_path / f"{n}.jsonl", part) for n, part in enumerate(ubi(9))]
    wanted = import_events(files, tmp_path / name, "ubi")
    out, left = tmp_path / "out" / name, 0
    publish = importing._publish

    def watched(act):
        def called(*given, **options):
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return act(*given, **options)

        return called

    def dying(*given):
        nonlocal left
        with monkeypatch.context() as inside:
            for act in ("rename", "replace", "unlink", "rmdir"):
                inside.setattr(os, act, watched(getattr(os, act)))
            left = moment
            publish(*given)

    for moment in range(1, 40):
        import_events(files, out, UBI.replaced(["target="]), force=True)
        monkeypatch.setattr(importing, "_publish", dying)
        try:
            import_events(files, out, "ubi", force=True)
            break  # there are no more moments
        except KeyboardInterrupt:
            monkeypatch.setattr(importing, "_publish", publish)
        found = import_events(files, out, "ubi", force=True)
        assert pq.read_table(out).equals(pq.read_table(wanted.path)), moment
        assert found._replace(path=wanted.path) == wanted
        assert not list(out.parent.glob(".*")), moment
    assert 5 < moment < 39


def test_names_of_folders_are_columns(tmp_path):
    queries, events = ubi()
    for name in ("impression", "click", "add_to_cart"):
        some = [e for e in events if e["action_name"] == name]
        folder = tmp_path / "events" / f"action={name}" / "day=2026-03-01"
        folder.mkdir(parents=True)
        some = [{k: v for k, v in e.items() if k != "action_name"} for e in some]
        pq.write_table(pa.Table.from_pylist(some), folder / "0.parquet")
    columns = UBI.replaced(["event=action"])
    lines(tmp_path / "queries.jsonl", queries)
    found = import_events(
        tmp_path / "events", tmp_path / "log", columns.replaced(["query="])
    )
    clicked, clicks, carts = expected()
    assert (found.clicked, found.clicks) == (clicked, clicks)
    assert found.targets == {"add_to_cart": carts}


def test_numbers_in_one_shard_and_text_in_another_are_one_name(tmp_path):
    rows = [("impression", 7, "q", 5, 1, 0), ("click", 7, "q", 5, None, 1)]
    as_text = generic(rows[1:]).set_column(3, "item", [["5"]])
    as_text = as_text.set_column(1, "session", [["7"]])
    pq.write_table(generic(rows[:1]), tmp_path / "0.parquet")
    pq.write_table(as_text, tmp_path / "1.parquet")
    found = import_events(
        [tmp_path / "0.parquet", tmp_path / "1.parquet"], tmp_path / "log"
    )
    assert found.clicked == 1 and rows_of(tmp_path / "log")[0]["item"] == ["5"]
    said = [notice for notice in found.notices if "read as text" in notice]
    assert len(said) == 2 and said[1] == (
        f"item holds numbers in column item in {tmp_path}/0.parquet and text in "
        f"column item in {tmp_path}/1.parquet: both are read as text"
    )


def test_bad_events_name_file_column_and_row(tmp_path):
    good = [("impression", "s", "q", "x", 1, 0), ("click", "s", "q", "x", 1, 1)]

    def refused(table, message, columns="generic", **more):
        with pytest.raises(ValueError, match=message):
            import_events(table, tmp_path / "log", columns, **more)
        assert not (tmp_path / "log").exists()

    table = generic(good)
    refused(table.drop(["event"]), "table: no column event for event: .* -c event=")
    refused(table.drop(["item"]), "table: no column item for item")
    refused(table, "no column page for session", EventColumns(session=("page",)))
    refused(table, "no column f for keep", EventColumns(keep=("f",)))
    queries = {
        "query_id": ["s"],
        "user_query": ["q"],
        "query_response_hit_ids": [["x"]],
    }
    refused(
        pa.table(queries),
        r"table: holds queries \(user_query, query_response_hit_ids\) but no events: "
        "it has no column action_name. Put the file of events, which for UBI is the "
        "export of the index ubi_events, into the same folder",
        "ubi",
    )
    refused(
        table,
        "no event is a click: column event has click, and none of tap; say -c click=",
        EventColumns(click=("tap",)),
    )
    refused(
        table,
        r"no event shows an item: column event has click impression.*none of view",
        EventColumns(impression=("view",)),
    )
    odd = table.set_column(4, "position", [[1.5, None]])
    refused(
        odd, r"column position \(position\) must be a whole number, got 1.5 at row 0"
    )
    times = table.set_column(5, "timestamp", [["2026-03-01", "soon"]])
    refused(times, r"column timestamp must be a time .* got 'soon' at row 1.*ignore")
    listed = table.set_column(3, "item", [[["x", "y"], ["x"]]])
    listed = listed.set_column(4, "position", [[[1], [1]]])
    refused(listed, "column position .* has 1 entries for 2 items at row 0")
    refused(
        table.drop(["session", "timestamp"]).append_column("user", [["u", "u"]]),
        "events have no session and no time.* say -c session=NAME",
    )
    refused(table, "keep=item: the log has another", EventColumns(keep=("item",)))
    refused(table, "no preset 'ubo'", "ubo")
    pq.write_table(table, tmp_path / "0.parquet")
    pq.write_table(table.drop(["session"]), tmp_path / "1.parquet")
    both = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    refused(
        both, r"1\.parquet: no column session for the session, but .*0\.parquet has it"
    )
    with pytest.raises(
        ValueError, match="'sesion=a' is not ROLE=COLUMN: did you mean sess"
    ):
        EventColumns().replaced(["sesion=a"])


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):
    _, events = ubi()
    path = lines(tmp_path / "e.jsonl", events)

    def grow(share):
        with path.open("a") as file:
            file.write("\n")

    with pytest.raises(ValueError, match=r"e\.jsonl: changed while it was read, from"):
        import_events(path, tmp_path / "log", UBI.replaced(["query="]), progress=grow)
    assert not (tmp_path / "log").exists()


def test_a_tracker_whose_lists_and_clicks_differ_in_shape(tmp_path):
    """Lists as a product array, clicks with one product, ids of delivery."""
    events = []
    for s in range(12):
        item, clicked, _ = shown(s)
        products = [
            {"product_id": int(i), "position": k + 1} for k, i in enumerate(item)
        ]
        at = 1_772_000_000_000 + 60_000 * s
        events.append(
            {
                "messageId": f"m{s}",
                "event": "Product List Viewed",
                "anonymousId": f"u{s % 4}",
                "sentAt": at,
                "properties": {"category": f"c{s % 3}", "products": products},
            }
        )
        events += [
            {
                "messageId": f"m{s}-{k}",
                "event": "Product Clicked",
                "anonymousId": f"u{s % 4}",
                "sentAt": at + 1000,
                "properties": {"product_id": int(item[k])},
            }
            for k in np.flatnonzero(clicked)
        ]
    path = lines(tmp_path / "events.jsonl", [*events, *events[:5]])  # some came twice
    columns = EventColumns().replaced(
        [
            "impression=Product List Viewed",
            "click=Product Clicked",
            "session=",
            "item=properties.products.product_id,properties.product_id",
            "position=properties.products.position",
            "query=properties.category",
            "timestamp=sentAt",
            "user=anonymousId",
            "id=messageId",
        ]
    )
    found = import_events(path, tmp_path / "log", columns)
    clicks = sum(int(shown(s)[1].sum()) for s in range(12))
    assert (found.by, found.lists, found.impressions) == ("row", 12, 48)
    assert found.clicks == found.clicked == clicks and found.counts["copies"] == 5
    assert any("milliseconds since 1970" in notice for notice in found.notices)
    rows = sorted(rows_of(tmp_path / "log"), key=lambda row: row["timestamp"])
    assert [row["item"] for row in rows] == [shown(s)[0].tolist() for s in range(12)]
    assert [row["click"] for row in rows] == [shown(s)[1].tolist() for s in range(12)]
    assert [row["query"] for row in rows] == [f"c{s % 3}" for s in range(12)]


def test_columns_that_begin_far_down_a_file_are_found(tmp_path, monkeypatch):
    from debias.data import tables

    queries, events = ubi()
    path = lines(tmp_path / "all.jsonl", [*queries, *events])
    monkeypatch.setattr(tables, "_BLOCK", 1 << 11)  # holds queries alone
    check(import_events(path, tmp_path / "log", "ubi"), tmp_path / "log")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_events_are_read_or_refused_by_name(seed, tmp_path):
    rng = np.random.default_rng(seed)
    queries, events = ubi(6)
    lines(tmp_path / "q.jsonl", queries)
    text = bytearray(lines(tmp_path / "e.jsonl", events).read_bytes())
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(text)))
        stop = at + int(rng.choice([0, 1, 5]))
        text[at:stop] = rng.choice([b"\xff", b"null", b"[", b"}", b'"x":1,', b"\n"])
    (tmp_path / "e.jsonl").write_bytes(bytes(text))
    try:
        found = import_events(
            [tmp_path / "q.jsonl", tmp_path / "e.jsonl"], tmp_path / "l", "ubi"
        )
    except ValueError as error:
        assert str(tmp_path) in str(error) and not (tmp_path / "l").exists()
    else:
        assert found.lists and read_log(tmp_path / "l").log.sessions == found.lists


def tracker(preset, s):
    """Events of one list of a tracker, as its documentation writes them."""
    item, clicked, carted = shown(s)
    at, user = f"2026-03-01T10:{s:02d}", f"u{s % 4}"
    ids, places = [str(i) for i in item], [k + 1 for k in range(len(item))]
    names = {
        "segment": ("Product List Viewed", "Product Clicked", "Product Added"),
        "snowplow": ("list_view", "list_click", "add_to_cart"),
        "algolia": ("view", "click", "conversion"),
    }[preset]
    acts = [(names[0], range(len(item)))]
    acts += [(names[1], [k]) for k in np.flatnonzero(clicked)]
    acts += [(names[2], [k]) for k in np.flatnonzero(carted)]
    for number, (name, cells) in enumerate(acts):
        seen = [ids[k] for k in cells]
        if preset == "segment":
            products = [{"product_id": ids[k], "position": places[k]} for k in cells]
            properties = {"category": f"term {s % 5}"} | (
                products[0] if number else {"products": products}
            )
            common = {"anonymousId": user, "timestamp": f"{at}:{number:02d}.000Z"}
            yield common | {"event": name, "type": "track", "properties": properties}
        elif preset == "snowplow":
            schemas = "com_snowplowanalytics_snowplow_ecommerce"
            yield {
                "event_id": f"{s}-{number}",
                "derived_tstamp": f"{at}:{number:02d}.000Z",
                "domain_userid": user,
                f"unstruct_event_{schemas}_snowplow_ecommerce_action_1": {
                    "type": name,
                    "name": f"term {s % 5}",
                },
                f"contexts_{schemas}_product_1": [
                    {"id": ids[k], "position": places[k]} for k in cells
                ],
            }
        else:
            more = {"positions": [places[k] for k in cells]} if name == "click" else {}
            common = {"queryID": f"q{s}", "userToken": user, "objectIDs": seen} | more
            yield common | {"eventType": name, "timestamp": 10**12 + number}


@pytest.mark.parametrize("preset", ["segment", "snowplow", "algolia"])
def test_what_other_trackers_write(preset, tmp_path):
    rows = [event for s in range(40) for event in tracker(preset, s)]
    (tmp_path / "events.json").write_text(json.dumps(rows, indent=1))
    found = import_events(tmp_path / "events.json", tmp_path / "log", preset)
    clicked, _, carts = expected()
    assert (found.lists, found.impressions) == (40, 160)
    assert found.clicks == found.clicked == clicked
    assert list(found.targets.values()) == [carts] and not found.counts["orphans"]
    reading = read_log(tmp_path / "log")  # without a word on columns
    queries = 1 if preset == "algolia" else 5  # whose events do not hold the query
    assert reading.log.click.sum() == clicked and len(reading.queries) == queries
    assert ("no column has the query" in " ".join(found.notices)) == (queries == 1)


def test_ids_and_times_of_two_types_in_one_file(tmp_path):
    queries, events = ubi()
    for number, event in enumerate(events):
        if number % 2:
            place = event["event_attributes"].get("position", {"ordinal": 1})
            place["ordinal"] = str(place["ordinal"])
    for query in queries:  # the search engine counts milliseconds
        moment = np.datetime64(query["timestamp"][:-1], "ms")
        query["timestamp"] = int(moment.astype(np.int64))
    path = lines(tmp_path / "all.jsonl", [*queries, *events])
    check(import_events(path, tmp_path / "log", "ubi"), tmp_path / "log")


def test_files_of_one_event_each_in_folders(tmp_path):
    """Searches with their results, and clicks, by a column of JSON in a CSV."""
    searches = {"id": ["s1", "s2"], "hits": ['["a", "b"]', '["c"]']}
    clicks = {"id": ["s1", "s9"], "doc": ["b", "c"], "rank": [2, 1]}
    for event, columns in (("search", searches), ("click", clicks)):
        (tmp_path / "in" / f"event={event}").mkdir(parents=True)
        pyarrow.csv.write_csv(
            pa.table(columns), tmp_path / "in" / f"event={event}" / "part.csv"
        )
    columns = EventColumns().replaced(
        ["impression=search", "session=id", "item=hits,doc", "position=rank"]
    )
    found = import_events(tmp_path / "in", tmp_path / "log", columns)
    assert (found.lists, found.clicks, found.counts["orphans"]) == (2, 1, 1)
    rows = sorted(rows_of(tmp_path / "log"), key=lambda row: row["session"])
    assert [row["item"] for row in rows] == [["a", "b"], ["c"]]
    assert [row["click"] for row in rows] == [[False, True], [False]]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.binary()])
def test_text_of_other_libraries(kind, tmp_path):
    table = generic(
        [("impression", "s", "q", "a", 1, 5), ("click", "s", None, "a", 1, 6)]
    )
    table = table.set_column(0, "event", table["event"].cast(kind))
    table = table.set_column(3, "item", table["item"].cast(kind))
    assert import_events(table, tmp_path / "log").clicks == 1
    lists = pa.table({**dict(zip(table.column_names, table.columns, strict=True))})
    lists = lists.set_column(0, "event", [[["click"], ["x"]]])
    with pytest.raises(ValueError, match="must name an event, got list"):
        import_events(lists, tmp_path / "two")


def test_empty_ids_name_no_session_and_an_event_may_lack_its_query(tmp_path):
    table = generic(
        [
            ("impression", "s", "shoes", "a", 1, 5),
            ("impression", "s", None, "b", 2, 5),
            ("impression", "", "hats", "c", 1, 5),
            ("impression", "", "shoes", "d", 1, 5),
            ("click", "s", "", "b", 2, 6),
        ]
    )
    found = import_events(table, tmp_path / "log")
    assert (found.lists, found.impressions, found.clicks) == (1, 2, 1)
    assert found.counts["without_session"] == 2


def test_a_rank_that_is_missing_among_equal_times_is_that_of_its_row(tmp_path):
    rows = [("a", 1), ("b", None), ("c", 3)]
    table = generic([("impression", "s", "q", item, k, 5) for item, k in rows])
    found = import_events(
        pa.concat_tables([table, generic([("click", "s", "q", "b", 2, 6)])]),
        tmp_path / "log",
    )
    assert rows_of(tmp_path / "log")[0]["item"] == ["a", "b", "c"]
    assert found.counts["reranked"] == 1


def test_a_stray_position_0_moves_no_other_list(tmp_path):
    rows = [("impression", s, "q", f"i{k}", k, k) for s in "stu" for k in (1, 2, 3)]
    stray = ("impression", "t", "q", "i0", 0, 9)
    table = generic([*rows, stray])
    found = import_events(table, tmp_path / "log")
    assert found.first_position == 1 and found.counts["reranked"] == 1
    assert found.counts["unplaced"] == 1
    assert any("treated as unranked: 1" in notice for notice in found.notices)
    by = {row["session"]: row for row in rows_of(tmp_path / "log")}
    assert by["s"]["position"] == [1, 2, 3] and by["t"]["item"][-1] == "i0"
    found = import_events(table, tmp_path / "zero", first_position=0)
    by = {row["session"]: row for row in rows_of(tmp_path / "zero")}
    assert by["s"]["position"] == [2, 3, 4] and by["t"]["position"] == [1, 2, 3, 4]
    unknown = generic([*rows, ("impression", "t", "q", "i0", -1, 9)])
    found = import_events(unknown, tmp_path / "unknown")
    assert (found.first_position, found.counts["unplaced"]) == (1, 1)
    for what in ("unplaced", "reranked"):
        (said,) = (n for n in found.notices if n.startswith(COUNTED[what]))
        assert said.endswith("1, the first at table, column position, row 9")
    only = generic([(*row[:4], row[4] - 1, row[5]) for row in rows])
    assert import_events(only, tmp_path / "only").first_position == 0


def test_a_document_of_events_says_how_to_write_lines(tmp_path):
    path, event = tmp_path / "e.json", {"event": "click"}
    for document, list_of in (
        ({"data": [event]}, r"\.data"),
        ({"hits": {"total": 1, "hits": [{"_source": event}]}}, r"\.hits\.hits"),
    ):
        path.write_text(json.dumps(document))
        with pytest.raises(ValueError, match=rf"e\.json: .*jq -c '{list_of}\[\]'"):
            import_events(path, tmp_path / "log")


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": "2026-03-01T12:00:00.25Z"},
        {"timestamp": 1_772_359_200_000},
        {"user_query": 7, "extra": []},
        {"event_attributes": {"object": {"object_id": 7}, "position": {"ordinal": 2}}},
        {
            "event_attributes": {
                "object": {"object_id": "7"},
                "position": {"ordinal": "2"},
            }
        },
    ],
)
def test_a_type_that_changes_far_down_a_file(change, tmp_path, monkeypatch):
    from debias.data import tables

    monkeypatch.setattr(tables, "_BLOCK", 1 << 11)
    monkeypatch.setattr(tables, "_sampled", lambda path, schema: schema)
    first = {
        "action_name": "impression",
        "query_id": "q",
        "timestamp": "2026-03-01T12:00:00Z",
        "user_query": "2026-01-01",
        "extra": {},
        "event_attributes": {"object": {"object_id": "a"}, "position": {"ordinal": 1}},
    }
    more = [first | {"query_id": f"q{n}"} for n in range(30)]
    last = first | {"query_id": "last"} | change
    acts = [{**row, "action_name": "click"} for row in (first, last)]
    path = lines(tmp_path / "e.ndjson", [first, *more, last, *acts])
    found = import_events(path, tmp_path / "log", "ubi")
    assert (found.lists, found.impressions, found.clicks) == (32, 32, 2)


def test_events_without_a_session_say_so(tmp_path):
    table = generic([("impression", None, "q", "a", 1, 5)])
    with pytest.raises(ValueError, match="column session, row 0; say -c session=NAME"):
        import_events(table, tmp_path / "log")


def test_events_under_names_of_another_tracker_say_which_preset(tmp_path):
    queries, events = ubi(2)
    path = lines(tmp_path / "e.jsonl", [*queries, *events])
    for refused in (
        lambda: import_events(path, tmp_path / "log"),
        lambda: import_events(path, tmp_path / "log", "ga4"),
        lambda: read_log(path),
    ):
        with pytest.raises(ValueError, match=r"e\.jsonl: no column .*--preset ubi"):
            refused()
    columns = UBI.replaced(["item=event_attributes.object.sku"])
    with pytest.raises(ValueError, match=r"within event_attributes\.object there"):
        import_events(path, tmp_path / "log", columns)


def test_kinds_of_events_with_items_in_columns_of_their_own(tmp_path):
    """A search lists what it showed, and a click names its item elsewhere."""
    search = {"event": "search", "session": "a", "query": "q"}
    search["results"] = [{"sku": "x"}, {"sku": "y"}]
    rows = [search, {"event": "click", "session": "a", "sku": "y"}]
    path = lines(tmp_path / "e.jsonl", rows)

    def read(item):
        columns = EventColumns(impression=("search",), item=item)
        return import_events(path, tmp_path / "log.parquet", columns)

    with pytest.raises(ValueError, match=r"none of the 1 click events .*sku,NAME"):
        read(("results.sku",))
    with pytest.raises(ValueError, match=r"none of the 1 impression .*item=sku,NAME"):
        read(("sku",))
    done = read(("sku", "results.sku"))
    assert (done.lists, done.impressions, done.clicks) == (1, 2, 1)


def test_lists_without_an_item_are_counted(tmp_path):
    rows = [
        {"event": "impression", "session": "a", "item": ["x", "y"]},
        {"event": "click", "session": "a", "item": ["y"]},
        {"event": "click", "session": "a", "item": []},
        {"event": "click", "session": "a"},
    ]
    done = import_events(lines(tmp_path / "e.jsonl", rows), tmp_path / "log.parquet")
    assert (done.clicks, done.counts["without_item"]) == (1, 2)
