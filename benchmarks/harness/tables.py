"""Computes and formats tables: means, paired differences, layout.

A `View` holds the results of one table on one population. Tables on the terminal,
tables in Markdown and numbers in text are all computed from views, so they cannot
disagree.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import store
from benchmarks.harness.plan import UNIT, Experiment, Table, unknown

if TYPE_CHECKING:
    import rich.table

    from debias.metrics.statistics import Difference, Estimate
    from debias.training.pages import Figure

LEVEL = 0.95
ABSENT = "–"
FLAG = "⚑"
MARK = "*"
FAR = 1.5  # in ranges of the models, from the nearest model
DIVERGED = "diverged"  # metric of a row whose training diverged


@dataclass(frozen=True)
class View:
    """The results of one table on one population, by row, metric and seed.

    `values[row][metric][seed]` is a result. Rows are in the order of the table; rows
    without results are in `missing`. The metric `seconds` is the duration of a
    measurement. `survivors` holds the pairs (row, metric) whose difference is
    significant after Holm's correction.
    """

    table: Table
    dataset: str
    population: str
    baseline: str
    values: Mapping[str, Mapping[str, Mapping[int, float]]]
    missing: tuple[str, ...]
    survivors: frozenset[tuple[str, str]] = frozenset()

    @property
    def title(self) -> str:
        """Table, population, data and number of seeds."""
        seeds = max((len(m["seconds"]) for m in self.values.values()), default=0)
        count = f"{seeds} seed{'s' * (seeds != 1)}"
        return f"{self.table.name}: {self.population}, {self.dataset}, {count}"

    def mean(self, row: str, metric: str) -> "Estimate | None":
        """Mean over seeds with its 95% interval; None if there are no values.

        The interval comes from `bootstrap.crossed` if the results have values of the
        metric by query. Otherwise, it is a t interval over seeds.
        """
        from benchmarks.harness import bootstrap
        from debias.metrics import estimate

        values = self.values.get(row, {}).get(metric)
        if values and (each := bootstrap.by_query(self.values[row], metric)):
            return bootstrap.estimate(bootstrap.matrix(each, sorted(values)), LEVEL)
        return estimate([*values.values()], LEVEL) if values else None

    def paired(
        self, row: str, metric: str, percent: bool = False
    ) -> "Difference | None":
        """Mean difference of a row from the baseline over their common seeds.

        With `percent`, the difference is relative to the absolute mean of the baseline
        over these seeds; nan if this mean is 0. The result is None for the baseline
        itself and without common seeds.
        """
        from benchmarks.harness import bootstrap
        from debias.metrics import paired_difference

        values = self.values.get(row, {}).get(metric, {})
        base = self.values.get(self.baseline, {}).get(metric, {})
        seeds = sorted(values.keys() & base.keys())
        if row == self.baseline or not seeds:
            return None
        own, other = ([of[seed] for seed in seeds] for of in (values, base))
        mine, theirs = (
            bootstrap.by_query(self.values[name], metric)
            for name in (row, self.baseline)
        )
        if mine and mine.keys() == theirs.keys():
            apart = [bootstrap.matrix(each, seeds) for each in (mine, theirs)]
            found = bootstrap.crossed(apart[0] - apart[1], LEVEL)
        else:
            found = paired_difference(own, other, LEVEL)
        if not percent:
            return found
        size = abs(math.fsum(other)) / len(seeds)
        unit = 100 / size if size else math.nan
        ends = {name: unit * getattr(found, name) for name in ("mean", "low", "high")}
        return found._replace(**ends)

    def sign(self, row: str, metric: str) -> int:
        """1 if a row is significantly better than the baseline, -1 if worse, else 0."""
        found = self.paired(row, metric)
        if found is None or not (found.low > 0 or found.high < 0):
            return 0
        better = (found.low > 0) != (metric in self.table.lower)
        return 1 if better else -1

    def disagrees(self, row: str) -> bool:
        """Whether click and ranking metric differ in sign, both significantly."""
        table = self.table
        if not table.paired or not table.clicks:
            return False
        return self.sign(row, table.paired[0]) * self.sign(row, table.clicks) < 0

    def best(self, metric: str) -> str | None:
        """The row with the best mean, not counting bounds; None if there are no rows.

        Only rows with the largest number of seeds count, because seeds differ in
        difficulty.
        """
        sign = -1 if metric in self.table.lower else 1
        rows = [row for row in self.values if row not in self.table.bounds]
        seeds = {row: len(self.values[row].get(metric, ())) for row in rows}
        means = {
            row: sign * found.mean
            for row in rows
            if seeds[row] == max(seeds.values()) and (found := self.mean(row, metric))
        }
        return max(means, key=means.__getitem__) if means else None


def current(
    table: Table, records: Iterable[store.Record], quick: bool = False
) -> list[store.Record]:
    """The latest records that match a current experiment of the table.

    If data files had the same name but different content, only records of the content
    that was measured last are returned.
    """
    known = {_identity(e.row, e.population, e.settings()) for e in table.variant(quick)}
    newest = store.newest(records).values()
    kept = [r for r in newest if _identity(r.row, r.population, r.config) in known]
    content = {record.dataset: record.config.get("data") for record in kept}
    return [r for r in kept if r.config.get("data") == content[r.dataset]]


def outdated(table: Table, records: Iterable[store.Record]) -> list[store.Record]:
    """The records that match no current experiment of the table.

    Only the last record of each row, population and seed is returned.
    """
    experiments = (*table.experiments, *table.quick)
    known = {_identity(e.row, e.population, e.settings()) for e in experiments}
    newest = store.newest(records).values()
    old = [r for r in newest if _identity(r.row, r.population, r.config) not in known]
    return [*{(r.dataset, r.population, r.row, r.seed): r for r in old}.values()]


def _identity(row: str, population: str, settings: Mapping[str, object]) -> str:
    plain = {name: value for name, value in settings.items() if name != "data"}
    return store.key("", row, "", population, 0, plain)


def views(
    table: Table,
    records: Iterable[store.Record],
    quick: bool = False,
    baseline: str = "",
) -> list[View]:
    """One view for each dataset and population with results, in order.

    Args:
        table: The table.
        records: Records of the table; `current` selects the records that are used.
        quick: Whether the short version is shown.
        baseline: Row to compare with, instead of the baseline of the table.
    """
    found: dict[tuple[str, str, str], dict[str, dict[int, float]]] = {}
    for r in current(table, records, quick):
        of_row = found.setdefault((r.dataset, r.population, r.row), {})
        for metric, value in (*r.metrics.items(), ("seconds", r.seconds)):
            of_row.setdefault(metric, {})[r.seed] = value
    rows = _rows_by_population(table.variant(quick))
    made: list[View] = []
    for dataset in dict.fromkeys(key[0] for key in found):
        own = []
        for population, names in rows.items():
            keys = {row: (dataset, population, row) for row in names}
            values = {row: found[keys[row]] for row in names if keys[row] in found}
            missing = tuple(row for row in names if row not in values)
            if values:
                usual = baseline or table.baseline
                own.append(View(table, dataset, population, usual, values, missing))
        made += _corrected(own) if table.holm else own
    return made


def _rows_by_population(
    each: Iterable[Experiment],
) -> dict[str, list[str]]:
    """The rows of each population, in order of first appearance."""
    found: dict[str, dict[str, None]] = {}
    for one in each:
        found.setdefault(one.population, {})[one.row] = None
    return {population: [*rows] for population, rows in found.items()}


def _corrected(views: Sequence[View]) -> list[View]:
    """Adds the differences that are significant after Holm's correction to views.

    The correction covers all differences of the table: every row, population and paired
    metric.
    """
    from debias.metrics.statistics import holm

    compared = {
        (view.population, row, metric): found.p_value
        for view in views
        for metric in view.table.paired
        for row in view.values
        if (found := view.paired(row, metric))
    }
    adjusted = zip(compared, holm([*compared.values()]), strict=True)
    kept = [place for place, p in adjusted if p < 1 - LEVEL]
    return [
        replace(
            view, survivors=frozenset(p[1:] for p in kept if p[0] == view.population)
        )
        for view in views
    ]


# Columns and cells. A column is named METRIC, or KIND:METRIC with a KIND of `PAIRED`.

PAIRED = ("difference", "p")


def columns_of(table: Table) -> tuple[str, ...]:
    """Names of all columns, with paired differences before the click metric."""
    metrics = [*table.metrics]
    if table.baseline:
        at = metrics.index(table.clicks) if table.clicks in metrics else len(metrics)
        metrics[at:at] = [f"{kind}:{m}" for m in table.paired for kind in PAIRED]
    return tuple(metrics)


def by_importance(table: Table) -> list[str]:
    """The columns in order of priority, for a narrow terminal."""
    first = [*table.paired[:1], *(f"difference:{m}" for m in table.paired[:1])]
    columns = columns_of(table)
    pairs = sorted((c for c in columns if ":" in c), key=lambda c: c.startswith("p:"))
    order = dict.fromkeys([*first, table.clicks, *table.metrics, *pairs])
    return [c for c in order if c in columns]


@dataclass(frozen=True)
class Line:
    """A row as text: one cell per column, and whether each cell is the best."""

    row: str
    cells: tuple[str, ...]
    best: tuple[bool, ...]
    bound: bool
    flag: bool
    first: bool


def lines(
    view: View,
    columns: Sequence[str],
    rows: Sequence[str] = (),
    digits: int | None = None,
) -> list[Line]:
    """The rows of a view as text, models first and bounds after them.

    Args:
        view: The results.
        columns: Names of columns.
        rows: Names of the rows to use; () for all rows.
        digits: Decimals of means; None adapts them to the magnitude of each column.
    """
    table = view.table
    primary = (*(m for m in table.paired if m in table.metrics), *table.metrics)[0]
    shown = [row for row in view.values if not rows or row in rows]
    texts = {column: _cells(view, column, shown, digits) for column in columns}
    return [
        Line(
            row,
            tuple(texts[column].get(row, ABSENT) for column in columns),
            tuple(":" not in c and view.best(c) == row for c in columns),
            row in table.bounds,
            view.disagrees(row),
            view.best(primary) == row,
        )
        for row in sorted(shown, key=lambda row: row in table.bounds)
    ]


def _cells(
    view: View, column: str, rows: Sequence[str], digits: int | None
) -> dict[str, str]:
    """The cells of a column by row, without rows that have no value."""
    kind, _, metric = column.rpartition(":")
    if not kind:
        means = {row: found for row in rows if (found := view.mean(row, metric))}
        if digits is None:
            digits = decimals([found.mean for found in means.values()])
        return {row: _interval(found, digits) for row, found in means.items()}
    pairs = {row: p for row in rows if (p := view.paired(row, metric, percent=True))}
    if kind == "p":
        return {row: _p(found.p_value) for row, found in pairs.items()}
    return {
        row: _interval(found, 2, "%") + MARK * ((row, metric) in view.survivors)
        for row, found in pairs.items()
    }


def decimals(values: Sequence[float]) -> int:
    """Number of decimals for a column with these values."""
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


def _interval(value: "Estimate | Difference", digits: int, unit: str = "") -> str:
    mean = _number(value.mean, digits, signed=bool(unit)) + unit
    half = (value.high - value.low) / 2
    return mean if math.isnan(half) else f"{mean} ±{_number(half, digits)}"


def _p(p: float) -> str:
    return "<.001" if p < 0.001 else _number(p, 3)


def heading(view: View, column: str) -> str:
    """The heading of a column, in up to three short lines."""
    kind, _, metric = column.rpartition(":")
    name = metric.replace("_", " ")
    if len(name) > 12 and " " in name:
        spaces = [i for i, c in enumerate(name) if c == " "]
        middle = min(spaces, key=lambda i: abs(i - len(name) / 2))
        name = f"{name[:middle]}\n{name[middle + 1 :]}"
    unit = " (p)" if kind == "p" else ""
    return f"{name}{unit}\nvs {view.baseline.replace('_', ' ')}" if kind else name


def notes(view: View, shown: Sequence[Line], columns: Sequence[str]) -> list[str]:
    """Notes below a table, one sentence each."""
    seeds = {line.row: len(view.values[line.row]["seconds"]) for line in shown}
    most = max(seeds.values(), default=0)
    text = f"Mean ± half of the 95% t interval over {most} seeds"
    if most < 2:
        text = "One seed, so without intervals"
    each = "seed"
    if any(UNIT in name for line in shown for name in view.values[line.row]):
        over = f"queries and {most} seeds" if most > 1 else "queries, of one seed"
        text = f"Mean ± half of the 95% bootstrap interval over {over}"
        each = "seed and query"
    if any(":" in column for column in columns):
        text += f"; differences from {view.baseline} are paired by {each}"
    found = [f"{text}."]
    if view.table.holm and any(c.startswith("difference:") for c in columns):
        found.append(
            f"{MARK} Significant at {_number(1 - LEVEL, 2)} after Holm's correction "
            "over all differences of the table."
        )
    if any(line.bound for line in shown):
        found.append("Bounds are reference rows, not candidate models.")
    if any(line.flag for line in shown):
        found.append(
            f"{FLAG} The scoreboards disagree: one of {view.table.paired[0]} and "
            f"{view.table.clicks} is better than that of {view.baseline}, the other "
            "worse, both beyond the interval."
        )
    if lost := [f"{row} {n}" for row in seeds if (n := len(_diverged(view, row)))]:
        found.append(f"Seeds at which training diverged: {', '.join(lost)}.")
    if fewer := [f"{row} {n}" for row, n in seeds.items() if n < most]:
        found.append(f"Fewer seeds: {', '.join(fewer)}.")
    if view.missing:
        found.append(f"No results yet: {', '.join(view.missing)}.")
    return found


def _diverged(view: View, row: str) -> Mapping[int, float]:
    """The seeds at which training of a row diverged; they have no other metric."""
    return view.values[row].get(DIVERGED, {})


# Renderings: Markdown, the terminal, one number for prose.


def markdown(
    view: View,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    title: bool = False,
) -> str:
    """A view as a Markdown table with its notes.

    Args:
        view: The results.
        columns: Names of the columns to show; () for all columns.
        rows: Names of the rows to use; () for all rows.
        title: Whether to print the title above the table.
    """
    columns = columns or columns_of(view.table)
    found = lines(view, columns, rows)
    heads = ["model", *(heading(view, c).replace("\n", " ") for c in columns)]
    grid = [heads, ["---", *("---:" for _ in columns)]]
    for i, line in enumerate(found):
        if line.bound and (i == 0 or not found[i - 1].bound):
            grid.append(["*bounds*", *("" for _ in columns)])
        name = f"**{line.row}**" if line.first else line.row
        cells = zip(line.cells, line.best, strict=True)
        bold = [f"**{cell}**" if best else cell for cell, best in cells]
        grid.append([f"{name} {FLAG}" if line.flag else name, *bold])
    text = [f"**{view.title}**", ""] if title else []
    text += [f"| {' | '.join(row)} |" for row in grid]
    return "\n".join([*text, "", " ".join(notes(view, found, columns))])


def across(views: Sequence[View], column: str, rows: Sequence[str] = ()) -> str:
    """One column of several views as a Markdown table of populations by rows.

    The table is transposed if it would have more columns than lines. The best row of
    each population is bold.

    Args:
        views: Views of one table, one for each population.
        column: The column that fills the cells.
        rows: Names of the rows to use; () for all rows.
    """
    metric = column.rpartition(":")[2]
    means = [
        mean.mean for v in views for row in v.values if (mean := v.mean(row, metric))
    ]
    found = [lines(view, [column], rows, decimals(means)) for view in views]
    bounds = views[0].table.bounds
    names = dict.fromkeys(
        line.row for each in found for line in each if line.cells != (ABSENT,)
    )
    shown = sorted(names, key=lambda row: row in bounds)
    grid = [["", *(f"*{row}*" if row in bounds else row for row in shown)]]
    said: dict[str, list[str]] = {}
    for view, each in zip(views, found, strict=True):
        cells = {line.row: line.cells[0] for line in each}
        best = view.best(metric)
        if best in cells:
            cells[best] = f"**{cells[best]}**"
        grid.append([view.population, *(cells.get(row, ABSENT) for row in shown)])
        for note in notes(view, each, [column]):
            said.setdefault(note, []).append(view.population)
    if len(shown) > len(views):
        grid = [list(line) for line in zip(*grid, strict=True)]
    grid.insert(1, ["---", *("---:" for _ in grid[0][1:])])
    about = [
        note if len(where) == len(views) else f"{', '.join(where)}: {note}"
        for note, where in said.items()
    ]
    title = f"**{views[0].table.name}: {heading(views[0], column)}**".replace("\n", " ")
    body = [f"| {' | '.join(line)} |" for line in grid]
    return "\n".join([title, "", *body, "", " ".join(about)])


def record(view: View) -> dict[str, Any]:
    """A view as JSON: the estimate over seeds for each row and metric."""

    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    rows = []
    for row in view.values:
        means = {m: view.mean(row, m) for m in view.table.metrics}
        found = {
            metric: {name: plain(each) for name, each in mean._asdict().items()}
            for metric, mean in means.items()
            if mean is not None
        }
        rows.append({"row": row, "bound": row in view.table.bounds, "metrics": found})
    return {
        "table": view.table.name,
        "population": view.population,
        "data": view.dataset,
        "baseline": view.baseline,
        "rows": rows,
        "missing": list(view.missing),
    }


def write_page(path: Path, table: Table, views: Sequence[View]) -> None:
    """Writes the views of a table as one self-contained HTML page."""
    from debias.data.files import atomic_write
    from debias.training.pages import page

    columns = [each for each in columns_of(table) if not each.startswith("p:")]
    sections, figures, words = [], [], []
    for view in views:
        found = lines(view, columns)
        heads = [heading(view, each).replace("\n", " ") for each in columns]
        rows = [
            {"model": line.row, **dict(zip(heads, line.cells, strict=True))}
            for line in found
        ]
        sections.append((view.title, rows))
        about = " ".join(notes(view, found, columns))
        if drawn := _figure(view, about):
            figures.append(drawn)
        else:
            words.append(f"{view.population}: {about}")
    headline = f"{table.name}: {table.title}"
    with atomic_write(path) as aside:
        text = page("benchmarks", headline, words, sections, figures)
        aside.write_text(text, encoding="utf-8")


def _figure(view: View, about: str) -> "Figure | None":
    """Mean and interval of each row, by the metric that the table compares first.

    Bounds far from all models are omitted, because they would compress the scale.
    """
    from benchmarks.harness.drawing import dots
    from debias.training.pages import WIDTHS, Figure

    metric = (*view.table.paired, *view.table.metrics)[0]
    means = {row: mean for row in view.values if (mean := view.mean(row, metric))}
    models = [m.mean for row, m in means.items() if row not in view.table.bounds]
    if not models:
        return None
    low, high = min(models), max(models)
    near = FAR * (high - low)
    out = [r for r, m in means.items() if not low - near <= m.mean <= high + near]
    shown = {row: mean for row, mean in means.items() if row not in out}
    words = f"{metric.replace('_', ' ')} of {view.population} by model."
    if view.table.bounds:
        words += " Hollow dots are bounds."
    if out:
        words += f" Outside the drawn range: {', '.join(out)}."
    drawings = [
        (kind, dots(shown, view.table.bounds, metric, view.population, width))
        for kind, width in WIDTHS.items()
    ]
    return Figure(view.title, f"{words} {about}", drawings, {})


def terminal(view: View, width: int) -> "rich.table.Table":
    """A view for a terminal of `width` characters, without columns that do not fit.

    Columns are separated by two spaces, or by one space if there is no room for two.
    """
    from rich.console import Console

    ruler = Console(width=10_000)
    chosen = by_importance(view.table)
    while True:
        columns = [column for column in columns_of(view.table) if column in chosen]
        for pad in (1, 0):
            grid = _grid(view, columns, pad)
            if ruler.measure(grid).maximum <= width or len(chosen) + pad == 1:
                return grid
        chosen.pop()


def _grid(view: View, columns: Sequence[str], pad: int) -> "rich.table.Table":
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

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
        name.append(f" {FLAG}" * line.flag)
        cells = zip(line.cells, line.best, strict=True)
        grid.add_row(name, *(Text(cell, "bold" * best) for cell, best in cells))
    return grid


STATISTICS = (
    *("mean", "low", "high", "seeds", "p"),
    *("difference", "difference_low", "difference_high"),
    *("difference_percent", "difference_percent_low", "difference_percent_high"),
)


def number(
    view: View, row: str, metric: str, statistic: str, digits: int | None = None
) -> str:
    """Formats one number for prose.

    Args:
        view: The results.
        row: Name of the row.
        metric: Name of the metric.
        statistic: A name in `STATISTICS`. Differences are from the view's baseline.
        digits: Number of decimals. The default is 1 for percentages, and the number of
            decimals in the table for all other statistics.

    Raises:
        ValueError: The statistic is unknown, or the results do not have it.
    """
    if statistic not in STATISTICS:
        raise ValueError(unknown("statistic", statistic, STATISTICS))
    mean, percent = view.mean(row, metric), "percent" in statistic
    if mean is None:
        raise ValueError(f"no results of {metric} of row {row} on {view.population}")
    if statistic == "seeds":
        return str(mean.n)
    signed = statistic.startswith("difference")
    pair = view.paired(row, metric, percent)
    found = pair if signed or statistic == "p" else mean
    if found is None:
        raise ValueError(f"no difference of {metric} of {row} from {view.baseline}")
    end = statistic.rpartition("_")[2]
    field = {"low": "low", "high": "high", "p": "p_value"}.get(end, "mean")
    value = getattr(found, field)
    if not math.isfinite(value):
        raise ValueError(f"{statistic} of {metric} of row {row} needs more seeds")
    if statistic == "p":
        return _p(value)
    if digits is None:
        digits = 1 if percent else decimals([mean.mean])
    return _number(value, digits, signed) + "%" * percent
