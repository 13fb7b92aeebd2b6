"""Fuzzing: runs commands on damaged and unusual files.

    python -m benchmarks.fuzz --mutants 200 --commands inspect

A mutant is a small log, item table or ranking data set with faults, such as flipped
bytes, a truncated file, renamed columns, other types, extreme values or another
encoding. The seed of the mutant determines the faults. A command may read the mutant,
or refuse it with a message that names the file. The command fails if it prints a
traceback, dies, takes more than 20 seconds, or refuses the mutant without naming the
file.
"""

import json
import math
import os
import re
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer

from debias.data import ClickLog, RankingData

COMMANDS = ("inspect", "train", "evaluate", "rank", "diagnose", "import")
SLOW = 20.0  # seconds
COLUMNS = ["features=f_*", "context=hour"]
ACCEPTED, REFUSED = "accepted", "refused"
FAULTS = ("traceback", "unnamed", "slow", "died", "hung")

Generator = np.random.Generator


# What is mutated


def base_table(seed: int = 0, sessions: int = 60) -> pa.Table:
    """A log with one row per shown item, and with every kind of column."""
    rng = np.random.default_rng(seed)
    count = 3 * sessions
    session = np.repeat(np.arange(sessions), 3)
    query = np.repeat(rng.integers(0, 6, sessions), 3)
    item = np.concatenate([rng.permutation(8)[:3] for _ in range(sessions)])
    feature = np.random.default_rng(1).normal(size=(6, 8, 3)).round(3)
    stamp = np.datetime64("2024-05-01T10:00:00", "us") + session.astype("m8[m]")
    return pa.table(
        {
            "session": [f"s{number}" for number in session],
            "query": [f"q{number}" for number in query],
            "item": [f"item {number}" for number in item],
            "click": (rng.random(count) < 0.4).astype(np.int64),
            "position": np.tile([1, 2, 3], sessions),
            "timestamp": stamp,
            "user": [f"u{number % 7}" for number in session],
            "device": np.where(session % 2, "phone", "tv"),
            "hour": (session % 24).astype(float),
            "propensity": np.tile([0.5, 0.25, 0.125], sessions),
            "label": np.minimum(item, 4).astype(float),
            **{f"f_{k}": feature[query, item, k] for k in range(3)},
        }
    )


def events() -> pa.Table:
    """The log of `base_table` as events of impressions and clicks."""
    names = ["session", "query", "item", "position", "timestamp", "user"]
    table = base_table()
    clicked = table.filter(table["click"].cast(pa.bool_())).select(names)
    rows = [(table.select(names), "impression"), (clicked, "click")]
    named = [t.append_column("event", [[name] * len(t)]) for t, name in rows]
    return pa.concat_tables(named).sort_by("timestamp")


def own_log(seed: int = 0) -> tuple[ClickLog, RankingData]:
    """A similar log as a `ClickLog`, with its ranking data."""
    rng = np.random.default_rng(seed)
    query = rng.integers(0, 6, 60)
    item = np.stack([8 * q + rng.permutation(8)[:3] for q in query])
    data = RankingData(
        rng.normal(size=(48, 3)),
        rng.integers(0, 5, 48),
        np.arange(0, 49, 8),
        feature_names=("f_0", "f_1", "f_2"),
    )
    click = rng.random(item.shape) < 0.4
    return ClickLog(query, item, click, device=rng.integers(1, 3, 60)), data


# How a table is mutated

_TYPES = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.binary_view(),
    pa.int8(),
    pa.int64(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.bool_(),
    pa.decimal128(20, 6),
    pa.date32(),
    pa.timestamp("s"),
    pa.timestamp("ns", "Europe/Paris"),
    pa.time64("us"),
    pa.duration("ms"),
    pa.null(),
)
_VALUES: tuple[Any, ...] = (
    None,
    math.nan,
    math.inf,
    -math.inf,
    1e38,
    1e300,
    -0.0,
    0,
    -1,
    2,
    2**31,
    2**63 - 1,
    -(2**63),
    "",
    "nan",
    "x" * 5000,
    "\x1b[31mred\x07\r\n",
    "\u202eé\0",
    "2024-05-01T10:00:00Z",
    "31/12/2024",
    "1714557600",
    True,
    [1.0, None],
    [],
    {"a": 1},
)
_NAMES = ("", " ", "\x1b[2J", "é" * 300, "session", "item", "f_0", "a,b", 'a"b', "*")


def mutated_table(table: pa.Table, rng: Generator) -> tuple[pa.Table, str]:
    """Damages a table by one to three faults; returns it and the faults' names."""
    said = []
    for _ in range(rng.integers(1, 4)):
        fault = _TABLE_FAULTS[rng.integers(len(_TABLE_FAULTS))]
        at = int(rng.integers(table.num_columns))
        with suppress(pa.ArrowException, ValueError, OverflowError):
            table, what = fault(table, at, rng)
            said.append(what)
    return table, "; ".join(said)


def _twice(table: pa.Table, at: int, rng: Generator) -> tuple[pa.Table, str]:
    name = table.column_names[at]
    return table.append_column(name, table.column(at)), f"{name} twice"


def _renamed(table: pa.Table, at: int, rng: Generator) -> tuple[pa.Table, str]:
    names = list(table.column_names)
    names[at] = _NAMES[rng.integers(len(_NAMES))]
    return table.rename_columns(names), f"{table.column_names[at]} is {names[at]!r}"


def _dropped(table: pa.Table, at: int, rng: Generator) -> tuple[pa.Table, str]:
    return table.remove_column(at), f"no {table.column_names[at]}"


def _empty(table: pa.Table, at: int, rng: Generator) -> tuple[pa.Table, str]:
    name, kind = table.column_names[at], table.column(at).type
    kind = pa.null() if rng.random() < 0.5 else kind
    return table.set_column(at, name, pa.nulls(len(table), kind)), f"{name} is NULL"


def _retyped(table: pa.Table, at: int, rng: Generator) -> tuple[pa.Table, str]:
    name, kind = table.column_names[at], _TYPES[rng.integers(len(_TYPES))]
    column = table.column(at).combine_chunks()
    if rng.random() < 0.2:
        return table.set_column(at, name, column.dictionary_encode()), f"{name} coded"
    if rng.random() < 0.2:
        column = pa.array([[value] for value in column.to_pylist()])
        return table.set_column(at, name, column), f"{name} in lists"
    with suppress(pa.ArrowException):
        return table.set_column(at, name, column.cast(kind, safe=False)), (
            f"{name} as {kind}"
        )
    text = column.cast(pa.string())
    return table.set_column(at, name, text.cast(kind, safe=False)), f"{name} as {kind}"


def _changed(table: pa.Table, at: int, rng: Generator) -> tuple[pa.Table, str]:
    """Replaces some values of a column by others, if necessary of other types."""
    name, values = table.column_names[at], table.column(at).to_pylist()
    value = _VALUES[rng.integers(len(_VALUES))]
    some = rng.permutation(len(values))[: rng.integers(1, len(values) + 1)]
    if rng.random() < 0.5:
        some = some[:1]
    for row in some:
        values[row] = value
    for kind in (table.column(at).type, None, pa.string()):
        if kind == pa.string():
            values = [None if v is None else str(v) for v in values]
        with suppress(pa.ArrowException, ValueError, OverflowError, TypeError):
            column = pa.array(values, kind)
            return table.set_column(at, name, column), f"{name} has {str(value)[:20]!r}"
    return table, ""


def _rows(table: pa.Table, at: int, rng: Generator) -> tuple[pa.Table, str]:
    count = int(rng.choice([0, 1, 2, len(table)]))
    chosen = rng.permutation(len(table))[:count]
    return table.take(pa.array(chosen)), f"{count} rows in another order"


_TABLE_FAULTS = (_twice, _renamed, _dropped, _empty, _retyped, _retyped) + (
    (_changed,) * 4 + (_rows,)
)


# How bytes are mutated


def mutated_bytes(raw: bytes, rng: Generator) -> tuple[bytes, str]:
    """Damages bytes by one fault; returns them and the name of the fault."""
    size = len(raw)
    place = int(rng.integers(max(size, 1)))
    kind = rng.integers(6)
    if kind == 0 or not size:
        return raw[:place], f"cut at {place} of {size}"
    if kind == 1:
        return raw + rng.bytes(int(rng.integers(1, 50))), "more at its end"
    changed = bytearray(raw)
    if kind == 2:
        stop = min(size, place + int(rng.integers(1, 64)))
        changed[place:stop] = bytes(stop - place)
        return bytes(changed), f"zeros from {place}"
    if kind == 3:
        stop = min(size, place + int(rng.integers(1, 64)))
        del changed[place:stop]
        return bytes(changed), f"a gap at {place}"
    places = rng.integers(size, size=int(rng.integers(1, 5)))
    for each in places:
        changed[each] ^= 1 << int(rng.integers(8))
    return bytes(changed), f"bits flipped at {sorted(places.tolist())}"


_TEXT_FAULTS: dict[str, Callable[[str], str]] = {
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "no end of line": lambda text: text.rstrip("\n"),
    "no first line": lambda text: text.partition("\n")[2],
    "semicolons": lambda text: text.replace(",", ";"),
    "an open quote": lambda text: text.replace("s1", '"s1', 1),
    "a zero byte": lambda text: text.replace("s1", "s\0", 1),
    "empty lines": lambda text: text.replace("\n", "\n\n"),
    "short lines": lambda text: text.replace(",", "", 20),
    "half a surrogate pair": lambda text: text.replace("item 1", "\\ud800"),
    "NaN": lambda text: text.replace("0.5", "NaN"),
    "Infinity": lambda text: text.replace("0.5", "-Infinity"),
    "one array": lambda text: f"[{text.replace(chr(10), ',')}]",
    "text qid": lambda text: text.replace("qid:", "qid:a"),
    "no qid": lambda text: re.sub(r"qid:\S+ ", "", text),
    "a far index": lambda text: text.replace(" 3:", " 50000000:", 1),
    "index zero": lambda text: text.replace(" 1:", " 0:"),
    "equal indices": lambda text: text.replace(" 2:", " 1:"),
    "no value": lambda text: text.replace(" 2:", " 2 "),
    "a large value": lambda text: text.replace(" 2:", " 2:1e99", 1),
    "a large grade": lambda text: re.sub(r"^\d", "99999", text),
    "half a grade": lambda text: re.sub(r"^\d", "1.5", text),
    "no number": lambda text: re.sub(r"^\d", "good", text),
}
_ENCODINGS = {
    "Latin-1": lambda text: text.replace("i", "\u00e9").encode("latin-1", "replace"),
    "UTF-16": lambda text: text.encode("utf-16", "replace"),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(errors="replace"),
}


def mutated_text(raw: bytes, rng: Generator) -> tuple[bytes, str]:
    """Damages a text file by one fault; returns its bytes and the name of the fault."""
    text = raw.decode(errors="replace")
    names = [*_TEXT_FAULTS, *_ENCODINGS]
    name = names[rng.integers(len(names))]
    if name in _ENCODINGS:
        return _ENCODINGS[name](text), name
    return _TEXT_FAULTS[name](text).encode(errors="replace"), name


# Mutants


class Mutant(NamedTuple):
    """A file with a fault, and the arguments of a command that reads it.

    Attributes:
        seed: Seed of the mutant.
        path: The file.
        fault: Description of the fault.
        arguments: Arguments of `debias`.
    """

    seed: int
    path: Path
    fault: str
    arguments: list[str]


def make(command: str, seed: int, folder: Path, trained: Path | None) -> Mutant:
    """Writes the mutant of a command and a seed to a folder."""
    rng = np.random.default_rng([seed, COMMANDS.index(command)])
    own = rng.random() < {"rank": 0.15, "import": 0}.get(command, 0.35)
    maker = _own_mutant if own else _table_mutant
    path, fault, log = maker(command, rng, folder)
    out = str(folder / "out")
    more = {
        "inspect": lambda: ["inspect", *log],
        "train": lambda: ["train", *log, "-o", out, *_TRAIN],
        "evaluate": lambda: ["evaluate", str(trained), *log],
        "rank": lambda: ["rank", str(trained), *log, "-o", f"{out}.parquet"],
        "diagnose": lambda: [
            "diagnose",
            *log,
            "-o",
            f"{out}.html",
            "--no-features",
        ],
        "import": lambda: ["import", *log, "-o", f"{out}.parquet"],
    }
    return Mutant(seed, path, fault, more[command]())


_TRAIN = ["--model", "naive", "--epochs", "1"]


def _table_mutant(
    command: str, rng: Generator, folder: Path
) -> tuple[Path, str, list[str]]:
    """A mutant of a foreign log, of its item table, or of events."""
    whole = table = events() if command == "import" else base_table()
    apart = rng.random() < 0.2 and command not in ("rank", "import")
    if apart:  # features are in a separate table
        names = ["query", "item", "label", "f_0", "f_1", "f_2"]
        items = (
            table.select(names)
            .group_by(["query", "item"])
            .aggregate([(name, "max") for name in names[2:]])
        )
        log = table.drop_columns(names[2:])
        table = items.rename_columns(names)
        pq.write_table(log, folder / "log.parquet")
    kind = ["parquet", "csv", "jsonl"][rng.integers(3)]
    deep = rng.random() < 0.6
    fault = ""
    if deep:
        table, fault = mutated_table(table, rng)
    path = folder / f"mutant.{kind}"
    try:
        raw = _WRITERS[kind](table)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):  # no such file
        raw, fault = _WRITERS[kind](whole), ""
    if not fault or rng.random() < 0.1:
        change = mutated_bytes
        if kind != "parquet" and rng.random() < 0.6:
            change = mutated_text
        raw, more = change(raw, rng)
        fault = "; ".join(filter(None, (fault, more)))
    path.write_bytes(raw)
    columns = [each for text in COLUMNS for each in ("-c", text)]
    if command in ("rank", "import"):
        return path, fault, [str(path)]
    if apart:
        return (
            path,
            fault,
            [str(folder / "log.parquet"), "--items", str(path), *columns],
        )
    return path, fault, [str(path), *columns]


def _own_mutant(
    command: str, rng: Generator, folder: Path
) -> tuple[Path, str, list[str]]:
    """A mutant of a log of this library, or of its ranking data."""
    log, data = own_log()
    kinds = ["log", "items", "letor"]
    kind = kinds[rng.integers(3)]
    letor = kind == "letor" or (kind == "log" and rng.random() < 0.3)
    items = folder / ("items.txt" if letor else "items.parquet")
    log = log if letor else log.of_items(data)
    log.write(folder / "log.parquet")
    if letor:
        items.write_text(_letor(data))
    else:
        data.write_parquet(items)
    path = folder / "log.parquet" if kind == "log" else items
    raw = path.read_bytes()
    change = mutated_text if kind == "letor" and rng.random() < 0.6 else mutated_bytes
    if kind != "letor" and rng.random() < 0.5:
        table, fault = mutated_table(pq.read_table(path), rng)
        with suppress(pa.ArrowException):
            raw = _parquet(table)
    else:
        raw, fault = change(raw, rng)
    path = path.with_name(f"mutant{path.suffix}")
    path.write_bytes(raw)
    return (
        path,
        fault,
        (
            [str(path), "--data", str(items)]
            if kind == "log"
            else [str(folder / "log.parquet"), "--data", str(path)]
        ),
    )


def _letor(data: RankingData) -> str:
    assert data.labels is not None
    lines = []
    for item, query in enumerate(data.query_of_item()):
        pairs = enumerate(data.features[item], 1)
        features = " ".join(f"{k}:{value}" for k, value in pairs)
        lines.append(f"{data.labels[item]} qid:{query} {features} # item {item}")
    return "\n".join(lines) + "\n"


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _csv(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue().to_pybytes()


def _jsonl(table: pa.Table) -> bytes:
    rows = [table.slice(k, 1).to_pydict() for k in range(len(table))]
    lines = (
        json.dumps({k: v[0] for k, v in row.items()}, default=str, ensure_ascii=False)
        for row in rows
    )
    return "".join(line + "\n" for line in lines).encode(errors="surrogatepass")


_WRITERS = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}


# Running


class Verdict(NamedTuple):
    """The outcome of a command on a mutant.

    Attributes:
        seed: Seed of the mutant.
        outcome: "accepted", "refused" or one of `FAULTS`.
        fault: Description of the fault in the file.
        said: The last lines that the command printed, or the traceback.
        seconds: Duration of the command.
    """

    seed: int
    outcome: str
    fault: str
    said: str
    seconds: float


def judged(mutant: Mutant) -> Verdict:
    """Runs the command in this process and classifies its outcome."""
    from typer.testing import CliRunner

    from debias.__main__ import app

    begun = time.perf_counter()
    done = CliRunner().invoke(app, mutant.arguments)
    seconds = time.perf_counter() - begun
    said = done.output + (done.stderr if done.stderr not in done.output else "")
    error = done.exception
    if error is not None and not isinstance(error, SystemExit):
        outcome = "traceback"
        said = "".join(traceback.format_exception(error))
    elif done.exit_code and mutant.path.name not in "".join(said.split()):
        outcome = "unnamed"
    elif seconds > SLOW:
        outcome = "slow"
    else:
        outcome = REFUSED if done.exit_code else ACCEPTED
    return Verdict(mutant.seed, outcome, mutant.fault, said[-2000:], seconds)


_MARK = b"verdict: "  # commands may print to the same descriptor


def work(command: str, seeds: Sequence[int], trained: Path | None) -> None:
    """Runs a command on the mutant of each seed, and prints each verdict."""
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            verdict = judged(make(command, seed, Path(folder), trained))
        line = _MARK + json.dumps(verdict._asdict()).encode() + b"\n"
        os.write(1, line)


def verdicts(
    command: str, seeds: Sequence[int], trained: Path | None
) -> Iterator[Verdict]:
    """Verdicts for all seeds, from workers that may die or hang."""
    left = list(seeds)
    while left:
        chunk = left[:100]  # workers restart now and then, as their memory grows
        given = [command, str(trained or ""), *map(str, chunk)]
        program = "from benchmarks.fuzz import main_worker; main_worker()"
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with subprocess.Popen(
            [sys.executable, "-c", program, *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as worker:
            done = 0
            for verdict in _heard(worker, chunk):
                yield verdict
                done += 1
            worker.kill()
        left = left[done:]


def _heard(worker: "subprocess.Popen[bytes]", seeds: list[int]) -> Iterator[Verdict]:
    """Yields verdicts as they arrive, and a verdict on a worker that hangs or dies."""
    assert worker.stdout is not None
    done, limit = 0, 120.0  # seconds for the first mutant, which loads libraries
    buffer = b""
    while done < len(seeds):
        ready, _, _ = select.select([worker.stdout], [], [], limit)
        piece = os.read(worker.stdout.fileno(), 1 << 16) if ready else b""
        if not piece:
            yield Verdict(seeds[done], "died" if ready else "hung", "", "", limit)
            return
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            if line.startswith(_MARK):
                yield Verdict(**json.loads(line.removeprefix(_MARK)))
                done, limit = done + 1, 3 * SLOW


def main_worker() -> None:
    """Entry point of a worker."""
    command, trained, *seeds = sys.argv[1:]
    work(command, list(map(int, seeds)), Path(trained) if trained else None)


def train_once(folder: Path) -> Path:
    """A folder with a trained model, for the commands that need it."""
    from typer.testing import CliRunner

    from debias.__main__ import app

    table = folder / "train.parquet"
    pq.write_table(base_table(), table)
    out = folder / "trained"
    columns = [each for text in COLUMNS for each in ("-c", text)]
    given = ["train", str(table), *columns, "-o", str(out), *_TRAIN]
    done = CliRunner().invoke(app, given)
    if done.exit_code:
        raise RuntimeError(done.output)
    return out


def run(
    mutants: Annotated[
        int, typer.Option(min=1, help="Number of mutants per command.")
    ] = 200,
    commands: Annotated[
        str,
        typer.Option(help=f"Comma-separated commands, out of {' '.join(COMMANDS)}."),
    ] = "inspect",
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
) -> None:
    """Runs the commands on damaged and unusual files and counts the outcomes."""
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        trained = None
        for command in commands.split(","):
            if command not in COMMANDS:
                raise typer.BadParameter(f"no command {command}: {' '.join(COMMANDS)}")
            if command in ("evaluate", "rank") and trained is None:
                trained = train_once(Path(folder))
            begun, counts = time.perf_counter(), Counter[str]()
            for verdict in verdicts(command, range(seed, seed + mutants), trained):
                counts[verdict.outcome] += 1
                if verdict.outcome in FAULTS:
                    found.append(f"{command} {verdict.seed}")
                    typer.echo(
                        f"{command} seed {verdict.seed}: {verdict.outcome}, of "
                        f"{verdict.fault}\n{verdict.said}\n"
                    )
            seconds = time.perf_counter() - begun
            counted = ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common())
            typer.echo(f"{command}: {counted}; {seconds:.0f} s")
    if found:
        typer.echo(f"{len(found)} findings: {', '.join(found)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(run)
