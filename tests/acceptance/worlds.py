"""Small tables of the kinds that people bring: logs, items to rank, events."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

# Names of a log come from strangers, who may want to rule the terminal that shows them.
EVIL = "\x1b[2J\x1b]0;pwned\x07"
FEATURES = 3
WEIGHTS = np.array([1.5, -1.0, 0.5])


def catalogue(queries, seed=0):
    """(queries, 8, F) features of eight items a query; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(queries, 8, FEATURES)).round(3)


def shown(sessions=400, queries=20, length=4, seed=0, uneven=False):
    """Columns of a log, one row per shown item, by a position-based model.

    P(click) = sigmoid(w x) / rank, and every list is drawn at random.
    """
    rng = np.random.default_rng(seed + 1)
    features = catalogue(queries)
    rows = []
    for session in range(sessions):
        query = int(rng.integers(queries))
        some = length - int(rng.integers(3)) * uneven
        for rank, item in enumerate(rng.permutation(8)[:some], 1):
            x = features[query, item]
            click = rng.random() < 1 / (1 + np.exp(-x @ WEIGHTS)) / rank
            rows.append((session, f"{EVIL}q{query}", f"d{item}", rank, int(click), *x))
    names = ["sid", "query", "doc", "position", "click"]
    names += [f"f_{n}" for n in range(FEATURES)]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def with_device(columns):
    """The log of a shop that has an application, with a name like those above."""
    devices = [f"[red]phone{EVIL}", "desk"]
    return {**columns, "device": [devices[sid % 2] for sid in columns["sid"]]}


def on_a_grid(columns):
    """Ranks 1 and 2 stand in the first row of the page, 3 and 4 in the second."""
    place = np.array(columns.pop("position")) - 1
    return {**columns, "row": place // 2 + 1, "column": place % 2 + 1}


def candidates(queries=20):
    """Items to rank: a row per item, features in another order than in the logs."""
    features = catalogue(queries).reshape(-1, FEATURES)
    columns = {
        "query": np.repeat([f"{EVIL}q{query}" for query in range(queries)], 8),
        "doc": np.tile([f"d{item}" for item in range(8)], queries),
    }
    return {**columns, **{f"f_{n}": features[:, n] for n in (2, 0, 1)}}


def write(path, columns):
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


def events(start, stop, seed=0):
    """Events of 30 users who like the items next to their own number."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 30, 1000)
    item = (user + rng.integers(0, 8, 1000)) % 40
    rows = slice(start, stop)
    return {
        "user": [f"{u:03}" for u in user[rows]],  # zeros in front are part of an id
        "item": [f"{EVIL}p{i}" for i in item[rows]],
        "time": np.arange(1000)[rows],
    }


def items():
    return {
        "item": [f"{EVIL}p{i}" for i in range(40)],
        "kind": [f"k{i % 5}" for i in range(40)],
        "price": [i / 10 for i in range(40)],
    }
