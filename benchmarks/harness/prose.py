"""Checks tables and numbers in Markdown against the results.

`<!-- table: NAME population=P columns=C,D rows=R,S baseline=B -->` opens a table, and
`<!-- /table -->` closes it. All options after NAME are optional. With `cells=C`, the
table shows column C by population and row. `<!-- number: TABLE POPULATION ROW METRIC
STATISTIC to=BASELINE digits=N -->` opens a number, and `<!-- /number -->` closes it.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.harness import store
from benchmarks.harness.plan import Table, unknown
from benchmarks.harness.tables import PAIRED, View, across, markdown, number, views

BLOCK = re.compile(
    r"(<!--\s*(table|number):\s*(.*?)\s*-->)((?:(?!<!--).)*)<!--\s*/\2\s*-->", re.S
)
MARKER = re.compile(r"<!--\s*(/?(?:table|number)\b.*?)\s*-->", re.S)
CODE = re.compile(r"^ *(```|~~~).*?^ *\1|`[^`\n]+`", re.S | re.M)

Results = Mapping[str, Sequence[store.Record]]


def check(
    root: Path, tables: Mapping[str, Table], results: Path, write: bool = False
) -> list[str]:
    """Compares every marked table and number in Markdown with the results.

    Reads the Markdown files of the root and of its folders `docs` and `benchmarks`.
    Markers inside code are ignored.

    Args:
        root: Folder of the source tree.
        tables: All tables by name.
        results: Folder of the results files.
        write: Whether to rewrite blocks that differ, instead of reporting them.

    Returns:
        One text per problem, with file, line number and description.
    """
    loaded, problems = _load(tables, results)
    places = ("*.md", "benchmarks/*.md", "docs/**/*.md")
    for path in sorted(page for place in places for page in root.glob(place)):
        text = path.read_text(encoding="utf-8")
        new, found = _checked(text, tables, loaded, write)
        problems += [f"{path.relative_to(root)}:{line}: {what}" for line, what in found]
        if new != text:
            path.write_text(new, encoding="utf-8")
    return problems


def _load(tables: Mapping[str, Table], results: Path) -> tuple[Results, list[str]]:
    """The published records by table, and the problems found in their files."""
    loaded, problems = {}, []
    for path in sorted(results.glob("*.jsonl")):
        if path.stem not in tables:
            problems.append(f"{path}: {unknown('table', path.stem, tables)}")
            continue
        try:
            # Committed files must be complete, so a truncated line is also a problem.
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                loaded[path.stem] = store.read(path)
        except (ValueError, UserWarning) as error:
            problems.append(str(error))
    return loaded, problems


def _checked(
    text: str, tables: Mapping[str, Table], records: Results, write: bool
) -> tuple[str, list[tuple[int, str]]]:
    """The text, and its problems by line; if `write`, blocks are updated."""
    plain = CODE.sub(lambda match: re.sub(r"\S", " ", match[0]), text)
    pieces, problems, end = [], [], 0
    for block in BLOCK.finditer(plain):
        _, kind, words, _ = block.groups()
        line = text.count("\n", 0, block.start()) + 1
        fill = _table if kind == "table" else _figure
        try:
            wanted = fill(words.split(), tables, records)
        except ValueError as error:
            problems.append((line, f"{kind} {words}: {error}"))
            continue
        shown = text[slice(*block.span(4))]
        if shown != wanted and write:
            pieces += [text[end : block.start(4)], wanted]
            end = block.end(4)
        elif shown != wanted:
            problems.append((line, f"{kind} {words}: {_change(shown, wanted)}"))
    rest = BLOCK.sub(lambda match: re.sub(r"\S", " ", match[0]), plain)
    for marker in MARKER.finditer(rest):
        fault = "closed but not opened" if marker[1].startswith("/") else "not closed"
        line = text.count("\n", 0, marker.start()) + 1
        problems.append((line, f"{marker[1]}: {fault}"))
    return "".join([*pieces, text[end:]]), sorted(problems, key=lambda at: at[0])


def _change(shown: str, wanted: str) -> str:
    pairs = zip([*shown.split("\n"), ""], [*wanted.split("\n"), ""], strict=False)
    old, new = next(((a, b) for a, b in pairs if a != b), (shown, wanted))
    return f"differs from the results: has {old.strip()!r}, expected {new.strip()!r}"


def _table(words: Sequence[str], tables: Mapping[str, Table], records: Results) -> str:
    names, options = _options(
        words, ("population", "columns", "cells", "rows", "baseline")
    )
    if len(names) != 1:
        raise ValueError(f"expected one table name, got {names}")
    columns = list(filter(None, options.get("columns", "").split(",")))
    cells = options.get("cells", "")
    rows = list(filter(None, options.get("rows", "").split(",")))
    found = _views(names[0], tables, records, options)
    for row in rows:
        _among("row", row, _rows(found))
    metrics = {m for view in found for values in view.values.values() for m in values}
    for column in filter(None, [*columns, cells]):
        kind, _, metric = column.rpartition(":")
        _among("metric", metric, sorted(metrics))
        if kind:
            _among("kind of column", kind, PAIRED)
    if cells:
        return f"\n{across(found, cells, rows)}\n"
    blocks = [markdown(view, columns, rows, title=len(found) > 1) for view in found]
    return "\n{}\n".format("\n\n".join(blocks))


def _figure(words: Sequence[str], tables: Mapping[str, Table], records: Results) -> str:
    names, options = _options(words, ("to", "digits"))
    if len(names) != 5:
        raise ValueError(f"expected TABLE POPULATION ROW METRIC STATISTIC, got {names}")
    name, population, row, metric, statistic = names
    given = {"population": population, "baseline": options.get("to", "")}
    (view,) = _views(name, tables, records, given)
    _among("row", row, _rows([view]))
    digits = options.get("digits")
    return number(view, row, metric, statistic, None if digits is None else int(digits))


def _views(
    name: str,
    tables: Mapping[str, Table],
    records: Results,
    options: Mapping[str, str],
) -> list[View]:
    """The views of a table that match the options, at least one."""
    _among("table", name, tables)
    table = tables[name]
    population, baseline = options.get("population", ""), options.get("baseline", "")
    every = [
        view
        for view in views(table, table.records(records), baseline=baseline)
        if view.dataset == table.dataset
    ]
    if population:
        there = (*table.populations, *(view.population for view in every))
        _among("population", population, dict.fromkeys(there))
    if baseline:
        _among("row", baseline, _rows(every, table))
    found = [view for view in every if population in ("", view.population)]
    if not found:
        where = f" on {population}" if population else ""
        raise ValueError(
            f"no results of table {name}{where} with the settings that its "
            "experiments have now"
        )
    return found


def _rows(views: Sequence[View], *tables: Table) -> list[str]:
    """The rows of the tables and of the views."""
    every = (*tables, *(view.table for view in views))
    return [*dict.fromkeys(row for table in every for row in table.rows)]


def _options(
    words: Sequence[str], known: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    options = dict(word.split("=", 1) for word in words if "=" in word)
    for name in options:
        _among("option", name, known)
    return [word for word in words if "=" not in word], options


def _among(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in (known := list(known)):
        raise ValueError(unknown(kind, name, known))
