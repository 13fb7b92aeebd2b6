"""From results to tables: means, paired differences, rendering, and the check of prose.

One population of one table is a `View`. The terminal, Markdown and the numbers in prose
all read it, so they cannot disagree.
"""

import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import store
from benchmarks.harness.plan import Table, unknown

if TYPE_CHECKING:
    import rich.table

LEVEL = 0.95
ABSENT = "–"
FLAG = "⚑"


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` seeds and its interval, which is nan for a single seed."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean of paired differences, its p-value, and the mean they are measured by."""

    p: float
    base: float

    def percent(self, value: float) -> float:
        """`value` in percent of the size of the baseline's mean, nan where it is 0."""
        return 100 * value / abs(self.base) if self.base else math.nan


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95% t interval: mean +- t(.975, n - 1) s / sqrt(n).

    Args:
        values: One value a seed, at least one.

    Raises:
        ValueError: There are no values.

    >>> found = estimate([1.0, 2.0, 3.0])  # t(.975, 2) = 4.303, s = 1
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
    (2.0, -0.484, 4.484)
    """
    from debias import metrics

    if not len(values):
        raise ValueError("values must hold at least one value")
    found = metrics.estimate(values, LEVEL)
    return Estimate(found.mean, found.low, found.high, found.n)


def difference(values: Mapping[int, float], base: Mapping[int, float]) -> Difference:
    """Paired difference `values` - `base` over the seeds that both have.

    The p-value is that of the two-sided paired t-test. Where all differences are equal
    it is 0, or 1 if they are 0; with a single seed it is nan.

    Args:
        values: Value by seed.
        base: The baseline's value by seed.

    Raises:
        ValueError: No seed is in both.

    >>> found = difference({0: 1.5, 1: 2.5}, {0: 1.0, 1: 1.0, 2: 9.0})
    >>> found.mean, found.percent(found.mean), found.count
    (1.0, 100.0, 2)
    """
    from debias import metrics

    seeds = sorted(values.keys() & base.keys())
    if not seeds:
        raise ValueError("values and base must have a seed in common")
    own, other = ([of[seed] for seed in seeds] for of in (values, base))
    found = metrics.paired_difference(own, other, LEVEL)
    mean = math.fsum(other) / len(seeds)
    return Difference(found.mean, found.low, found.high, found.n, found.p_value, mean)


@dataclass(frozen=True)
class View:
    """The results of one table on one population, by row, metric and seed.

    `values[row][metric][seed]`; rows are in the order of the table, those without
    results are in `missing`. The time of a measurement is the metric `seconds`.
    """

    table: Table
    dataset: str
    population: str
    baseline: str
    values: Mapping[str, Mapping[str, Mapping[int, float]]]
    missing: tuple[str, ...]

    @property
    def title(self) -> str:
        """Table, population, data and number of seeds."""
        seeds = max((len(m["seconds"]) for m in self.values.values()), default=0)
        count = f"{seeds} seed{'s' * (seeds != 1)}"
        return f"{self.table.name}: {self.population}, {self.dataset}, {count}"

    def mean(self, row: str, metric: str) -> Estimate | None:
        """The estimate of a row's metric, None where the row does not have it."""
        values = self.values.get(row, {}).get(metric)
        return estimate(list(values.values())) if values else None

    def paired(self, row: str, metric: str) -> Difference | None:
        """The row against the baseline; None for the baseline and for absent values."""
        values = self.values.get(row, {}).get(metric, {})
        base = self.values.get(self.baseline, {}).get(metric, {})
        if row == self.baseline or not values.keys() & base.keys():
            return None
        return difference(values, base)

    def sign(self, row: str, metric: str) -> int:
        """1 or -1: better or worse than the baseline beyond the interval; else 0."""
        found = self.paired(row, metric)
        if found is None or not (found.low > 0 or found.high < 0):
            return 0
        better = (found.low > 0) != (metric in self.table.lower)
        return 1 if better else -1

    def disagrees(self, row: str) -> bool:
        """Whether one scoreboard is won and the other lost against the baseline."""
        table = self.table
        if not table.paired or not table.clicks:
            return False
        return self.sign(row, table.paired[0]) * self.sign(row, table.clicks) < 0

    def best(self, metric: str) -> str | None:
        """The row of the best mean, bounds apart; None where there is no such row."""
        sign = -1 if metric in self.table.lower else 1
        means = {
            row: sign * found.mean
            for row in self.values
            if row not in self.table.bounds and (found := self.mean(row, metric))
        }
        return max(means, key=means.__getitem__) if means else None


def current(
    table: Table, records: Iterable[store.Record], quick: bool = False
) -> list[store.Record]:
    """The newest records whose settings are those of an experiment of the table.

    Where files of one name but other content were measured, only those of the last
    content count.
    """
    settings = {
        (e.row, e.population): _canonical(e.settings()) for e in table.variant(quick)
    }
    kept = []
    for record in store.newest(records).values():
        place = record.row, record.population
        if settings.get(place) == _canonical(_settings(record)):
            kept.append(record)
    content = {record.dataset: record.config.get("data") for record in kept}
    return [r for r in kept if r.config.get("data") == content[r.dataset]]


def outdated(table: Table, records: Iterable[store.Record]) -> int:
    """How many results have settings that no experiment of the table has any more."""
    known = {
        (e.row, e.population, _canonical(e.settings()))
        for e in (*table.experiments, *table.quick)
    }
    return sum(
        (r.row, r.population, _canonical(_settings(r))) not in known
        for r in store.newest(records).values()
    )


def views(
    table: Table,
    records: Iterable[store.Record],
    quick: bool = False,
    baseline: str = "",
) -> list[View]:
    """One view for each dataset and population that have results, in their order.

    Args:
        table: The table.
        records: Its records; those of other settings are left out, as by `current`.
        quick: Whether the short version is shown.
        baseline: A row to compare with instead of the table's.
    """
    kept = current(table, records, quick)
    experiments = table.variant(quick)
    found = []
    for dataset in dict.fromkeys(record.dataset for record in kept):
        for population in dict.fromkeys(e.population for e in experiments):
            rows = [e.row for e in experiments if e.population == population]
            values: dict[str, dict[str, dict[int, float]]] = {}
            for row in rows:
                for r in kept:
                    if (r.dataset, r.population, r.row) == (dataset, population, row):
                        for metric, value in (
                            *r.metrics.items(),
                            ("seconds", r.seconds),
                        ):
                            of_row = values.setdefault(row, {})
                            of_row.setdefault(metric, {})[r.seed] = value
            if values:
                missing = tuple(row for row in rows if row not in values)
                base = baseline or table.baseline
                found.append(View(table, dataset, population, base, values, missing))
    return found


def _settings(record: store.Record) -> dict[str, object]:
    return {name: value for name, value in record.config.items() if name != "data"}


def _canonical(settings: Mapping[str, object]) -> str:
    return json.dumps(settings, sort_keys=True)


# Rendering. A column is named METRIC, or KIND:METRIC where KIND is one of `PAIRED`.

PAIRED = ("difference", "absolute", "p")


def columns_of(table: Table) -> tuple[str, ...]:
    """All columns of a table: metrics, with the paired ones before the click metric."""
    at = len(table.metrics)
    if table.clicks in table.metrics:
        at = table.metrics.index(table.clicks)
    pairs = [f"{kind}:{m}" for m in table.paired for kind in PAIRED]
    return (
        *table.metrics[:at],
        *(pairs if table.baseline else ()),
        *table.metrics[at:],
    )


def by_importance(table: Table) -> list[str]:
    """The columns in the order in which a narrow terminal gives them room."""
    columns = columns_of(table)
    first = [*table.paired[:1], *(f"difference:{m}" for m in table.paired[:1])]
    order = [*first, table.clicks, *table.metrics]
    order += [f"{kind}:{m}" for kind in PAIRED for m in table.paired]
    return [c for c in dict.fromkeys([*order, *columns]) if c in columns]


@dataclass(frozen=True)
class Line:
    """A row as text: one cell a column, and which cells are the best of theirs."""

    row: str
    cells: tuple[str, ...]
    best: tuple[bool, ...]
    bound: bool
    flag: bool
    first: bool


def lines(view: View, columns: Sequence[str], rows: Sequence[str] = ()) -> list[Line]:
    """The rows of a view as text, models first and bounds after them.

    Args:
        view: The results.
        columns: Names of columns.
        rows: The only rows wanted; all where empty.
    """
    table = view.table
    primary = (*(m for m in table.paired if m in table.metrics), *table.metrics)[0]
    shown = [row for row in view.values if not rows or row in rows]
    texts = {column: _texts(view, column, shown) for column in columns}
    found = []
    for row in sorted(shown, key=lambda row: row in table.bounds):
        found.append(
            Line(
                row,
                tuple(texts[column][row] for column in columns),
                tuple(":" not in c and view.best(c) == row for c in columns),
                row in table.bounds,
                view.disagrees(row),
                view.best(primary) == row,
            )
        )
    return found


def _texts(view: View, column: str, rows: Sequence[str]) -> dict[str, str]:
    kind, _, metric = column.rpartition(":")
    if not kind:
        means = {row: found for row in rows if (found := view.mean(row, metric))}
        digits = _digits([found.mean for found in means.values()])
        cells = {
            row: _with_interval(_number(m.mean, digits), m.half_width, digits)
            for row, m in means.items()
        }
        return {row: cells.get(row, ABSENT) for row in rows}
    pairs = {row: found for row in rows if (found := view.paired(row, metric))}
    digits = _digits([found.base for found in pairs.values()])
    cells = {}
    for row, pair in pairs.items():
        if kind == "p":
            cells[row] = _p(pair.p)
        elif kind == "absolute":
            mean = _number(pair.mean, digits, signed=True)
            cells[row] = _with_interval(mean, pair.half_width, digits)
        else:
            mean = _number(pair.percent(pair.mean), 2, signed=True) + "%"
            cells[row] = _with_interval(mean, pair.percent(pair.half_width), 2)
    return {row: cells.get(row, ABSENT) for row in rows}


def _digits(values: Sequence[float]) -> int:
    """Decimals that show a column of such size."""
    size = max(map(abs, values), default=0.0)
    return next(
        (d for d, top in ((4, 1), (3, 10), (2, 100), (1, 1000)) if size < top), 0
    )


def _number(value: float, digits: int, signed: bool = False) -> str:
    """A number without the zero before the point, as in `.52`."""
    if math.isnan(value):
        return ABSENT
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    return re.sub(r"^([+-]?)0\.", r"\1.", text)


def _with_interval(mean: str, half: float, digits: int) -> str:
    return mean if math.isnan(half) else f"{mean} ±{_number(half, digits)}"


def _p(p: float) -> str:
    return "<.001" if p < 0.001 else _number(p, 3)


def heading(view: View, column: str) -> str:
    """The head of a column, in up to three short lines."""
    kind, _, metric = column.rpartition(":")
    name = metric.replace("_", " ")
    if len(name) > 12 and " " in name:
        middle = min(
            (i for i, c in enumerate(name) if c == " "),
            key=lambda i: abs(i - len(name) / 2),
        )
        name = f"{name[:middle]}\n{name[middle + 1 :]}"
    if not kind:
        return name
    unit = {"difference": "", "absolute": " (abs.)", "p": " (p)"}[kind]
    return f"{name}{unit}\nvs {view.baseline.replace('_', ' ')}"


def notes(view: View, shown: Sequence[Line], columns: Sequence[str]) -> list[str]:
    """What a reader must know beside the cells, one sentence each."""
    seeds = {line.row: len(view.values[line.row]["seconds"]) for line in shown}
    most = max(seeds.values(), default=0)
    text = f"Mean ± half of the 95% t interval over {most} seeds"
    if most < 2:
        text = "One seed, so without intervals"
    if any(":" in column for column in columns):
        text += f"; differences from {view.baseline} are paired by seed"
    found = [f"{text}."]
    if any(line.bound for line in shown):
        found.append("Bounds are no models to choose from.")
    if any(line.flag for line in shown):
        found.append(
            f"{FLAG} The scoreboards disagree: better than {view.baseline} in one of "
            f"{view.table.paired[0]} and {view.table.clicks}, worse in the other, "
            "both beyond the interval."
        )
    if fewer := [f"{row} {n}" for row, n in seeds.items() if n < most]:
        found.append(f"Fewer seeds: {', '.join(fewer)}.")
    if view.missing:
        found.append(f"No results yet: {', '.join(view.missing)}.")
    return found


def markdown(
    view: View,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    title: bool = False,
) -> str:
    """A view as a Markdown table with its notes.

    Args:
        view: The results.
        columns: Names of columns; all but the absolute differences where empty.
        rows: The only rows wanted; all where empty.
        title: Whether the title goes before the table.
    """
    columns = columns or [
        c for c in columns_of(view.table) if not c.startswith("absolute:")
    ]
    found = lines(view, columns, rows)
    heads = ["model", *(heading(view, c).replace("\n", " ") for c in columns)]
    text = [f"**{view.title}**", ""] if title else []
    text += [_row(heads), _row(["---", *("---:" for _ in columns)])]
    for i, line in enumerate(found):
        if line.bound and (i == 0 or not found[i - 1].bound):
            text.append(_row(["*bounds*", *("" for _ in columns)]))
        name = f"**{line.row}**" if line.first else line.row
        cells = [
            f"**{c}**" if b else c for c, b in zip(line.cells, line.best, strict=True)
        ]
        text.append(_row([f"{name} {FLAG}" if line.flag else name, *cells]))
    return "\n".join([*text, "", " ".join(notes(view, found, columns))])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def terminal(view: View, width: int) -> "rich.table.Table":
    """A view for a terminal of `width` characters, less the columns that do not fit.

    The ranking scoreboard stays longest, as in `by_importance`.
    """
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    def room(columns: Sequence[str]) -> int:
        shown = lines(view, columns)
        total = max((len(x.row) + 2 * x.flag for x in shown), default=0)
        for i, column in enumerate(columns):
            cells = [len(line.cells[i]) for line in shown]
            heads = [len(part) for part in heading(view, column).split("\n")]
            total += 1 + max(cells + heads)
        return total

    chosen: list[str] = []
    for column in by_importance(view.table):
        if not chosen or room([*chosen, column]) <= width:
            chosen.append(column)
    columns = [column for column in columns_of(view.table) if column in chosen]
    # Two characters between columns where there is room for them, else one.
    pad = 1 if room(columns) + len(columns) <= width else 0
    shown = lines(view, columns)
    grid = Grid(
        title=view.title,
        caption=" ".join(notes(view, shown, columns)),
        caption_justify="left",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, pad, 0, 0),
    )
    grid.add_column("model", no_wrap=True)
    for column in columns:
        grid.add_column(heading(view, column), justify="right", no_wrap=True)
    for i, line in enumerate(shown):
        if line.bound and i and not shown[i - 1].bound:
            grid.add_section()
        name = Text(line.row, "bold" if line.first else "italic" if line.bound else "")
        if line.flag:
            name.append(f" {FLAG}")
        cells = [
            Text(cell, "bold" if best else "")
            for cell, best in zip(line.cells, line.best, strict=True)
        ]
        grid.add_row(name, *cells)
    return grid


# Markers in Markdown.

STATISTICS = (
    "mean",
    "low",
    "high",
    "half_width",
    "difference",
    "difference_low",
    "difference_high",
    "difference_percent",
    "difference_percent_low",
    "difference_percent_high",
    "p",
    "seeds",
)
MARKER = re.compile(r"<!--\s*(?:(table|number):\s*(.*?)|/(table|number))\s*-->", re.S)
CODE = re.compile(r"^ *(```|~~~).*?^ *\1|`[^`\n]+`", re.S | re.M)


def number(
    view: View, row: str, metric: str, statistic: str, digits: int | None = None
) -> str:
    """One figure for prose.

    Args:
        view: The results.
        row: Name of the row.
        metric: Name of the metric.
        statistic: A name in `STATISTICS`; differences are from the view's baseline.
        digits: Decimals; by default 1 for percentages, else as in the table.

    Raises:
        ValueError: An unknown statistic, or one that the results do not have.
    """
    if statistic not in STATISTICS:
        raise ValueError(unknown("statistic", statistic, STATISTICS))
    mean, pair = view.mean(row, metric), view.paired(row, metric)
    if mean is None:
        raise ValueError(f"no results of {metric} of row {row} on {view.population}")
    if statistic == "seeds":
        return str(mean.count)
    if digits is None:
        digits = 1 if "percent" in statistic else _digits([mean.mean])
    if statistic in ("mean", "low", "high", "half_width"):
        return _finite(getattr(mean, statistic), digits, row, metric, statistic)
    if pair is None:
        raise ValueError(f"no difference of {metric} of {row} from {view.baseline}")
    if statistic == "p":
        return _p(pair.p)
    end = statistic.rpartition("_")[2]
    value = {"low": pair.low, "high": pair.high}.get(end, pair.mean)
    percent = "percent" in statistic
    value = pair.percent(value) if percent else value
    text = _finite(value, digits, row, metric, statistic, signed=True)
    return text + "%" * percent


def _finite(
    value: float,
    digits: int,
    row: str,
    metric: str,
    statistic: str,
    signed: bool = False,
) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{statistic} of {metric} of row {row} needs more seeds")
    return _number(value, digits, signed)


def check(
    root: Path, tables: Mapping[str, Table], results: Path, write: bool = False
) -> list[str]:
    """Compares every marked table and number in Markdown with the results.

    Reads `*.md` of the root and of its folders `docs` and `benchmarks`; markers inside
    code are left alone.

    Args:
        root: Folder of the source tree.
        tables: All tables by name.
        results: Folder of the results files.
        write: Whether blocks that differ are rewritten rather than reported.

    Returns:
        One line a problem: file, line, and what is wrong.
    """
    loaded: dict[str, list[store.Record]] = {}
    problems = []
    for path in sorted(results.glob("*.jsonl")):
        if path.stem not in tables:
            problems.append(f"{path}: {unknown('table', path.stem, tables)}")
            continue
        try:
            # What is committed must be whole: a half-written line is a problem too.
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                loaded[path.stem] = store.read(path)
        except (ValueError, UserWarning) as error:
            problems.append(str(error))
    files = [
        *root.glob("*.md"),
        *root.glob("benchmarks/*.md"),
        *root.glob("docs/**/*.md"),
    ]
    for path in sorted(files):
        text = path.read_text(encoding="utf-8")
        new, found = _checked(text, tables, loaded, write)
        problems += [f"{path.relative_to(root)}:{line}: {what}" for line, what in found]
        if new != text:
            path.write_text(new, encoding="utf-8")
    return problems


def _checked(
    text: str,
    tables: Mapping[str, Table],
    records: Mapping[str, list[store.Record]],
    write: bool,
) -> tuple[str, list[tuple[int, str]]]:
    """The text with its blocks rewritten, if so wished, and its problems by line."""
    plain = CODE.sub(lambda match: re.sub(r"\S", " ", match[0]), text)
    pieces, problems, end = [], [], 0
    markers = list(MARKER.finditer(plain))
    for i, marker in enumerate(markers):
        kind, words, closes = marker.groups()
        line = text.count("\n", 0, marker.start()) + 1
        if closes:
            if i == 0 or markers[i - 1][3]:
                problems.append((line, f"{closes}: closed but not opened"))
            continue
        after = markers[i + 1] if i + 1 < len(markers) else None
        if after is None or after[3] != kind:
            problems.append((line, f"{kind} {words}: not closed"))
            continue
        try:
            wanted = (_table_block if kind == "table" else _number_block)(
                words.split(), tables, records
            )
        except ValueError as error:
            problems.append((line, f"{kind} {words}: {error}"))
            continue
        shown = text[marker.end() : after.start()]
        if shown != wanted and write:
            pieces += [text[end : marker.end()], wanted]
            end = after.start()
        elif shown != wanted:
            problems.append((line, f"{kind} {words}: {_change(shown, wanted)}"))
    return "".join([*pieces, text[end:]]), problems


def _change(shown: str, wanted: str) -> str:
    pairs = zip([*shown.split("\n"), ""], [*wanted.split("\n"), ""], strict=False)
    old, new = next(((a, b) for a, b in pairs if a != b), (shown, wanted))
    return f"differs from the results: has {old.strip()!r}, expected {new.strip()!r}"


def _table_block(
    words: Sequence[str],
    tables: Mapping[str, Table],
    records: Mapping[str, list[store.Record]],
) -> str:
    names, options = _options(
        words, ("population", "dataset", "columns", "rows", "baseline")
    )
    if len(names) != 1:
        raise ValueError(f"expected one table name, got {names}")
    table = _known("table", names[0], tables)
    columns = list(filter(None, options.get("columns", "").split(",")))
    rows = list(filter(None, options.get("rows", "").split(",")))
    for row in rows:
        _among("row", row, table.rows)
    found = _views(table, records, options)
    metrics = {m for view in found for values in view.values.values() for m in values}
    for column in columns:
        kind, _, metric = column.rpartition(":")
        _among("metric", metric, sorted(metrics))
        if kind:
            _among("kind of column", kind, PAIRED)
    several = len(found) > 1
    blocks = [markdown(view, columns, rows, title=several) for view in found]
    return "\n{}\n".format("\n\n".join(blocks))


def _number_block(
    words: Sequence[str],
    tables: Mapping[str, Table],
    records: Mapping[str, list[store.Record]],
) -> str:
    names, options = _options(words, ("to", "dataset", "digits"))
    if len(names) != 5:
        raise ValueError(f"expected TABLE POPULATION ROW METRIC STATISTIC, got {names}")
    name, population, row, metric, statistic = names
    table = _known("table", name, tables)
    _among("row", row, table.rows)
    given = {"population": population, "baseline": options.get("to", "")}
    (view,) = _views(table, records, {**options, **given})
    digits = options.get("digits")
    return number(view, row, metric, statistic, None if digits is None else int(digits))


def _views(
    table: Table,
    records: Mapping[str, list[store.Record]],
    options: Mapping[str, str],
) -> list[View]:
    population, baseline = options.get("population", ""), options.get("baseline", "")
    if population:
        _among("population", population, table.populations)
    if baseline:
        _among("row", baseline, table.rows)
    dataset = options.get("dataset", table.dataset)
    found = [
        view
        for view in views(table, records.get(table.name, []), baseline=baseline)
        if view.dataset == dataset and population in ("", view.population)
    ]
    if not found:
        where = f" on {population}" if population else ""
        raise ValueError(
            f"no results of table {table.name}{where}, dataset {dataset}, with the "
            "settings that its experiments have now"
        )
    return found


def _options(
    words: Sequence[str], known: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    names = [word for word in words if "=" not in word]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    for name in options:
        _among("option", name, known)
    return names, options


def _known(kind: str, name: str, known: Mapping[str, Table]) -> Table:
    _among(kind, name, known)
    return known[name]


def _among(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in (known := list(known)):
        raise ValueError(unknown(kind, name, known))
