"""The commands of the benchmark; `python -m benchmarks --help` lists them.

This module imports no learning library. Only the worker processes, which measure the
results, import such libraries.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.harness import machine, prose, scheduler, store, tables
from benchmarks.harness import verify as verification
from benchmarks.harness.plan import Experiment, Table, unknown
from benchmarks.harness.screen import (
    about,
    plural,
    progress,
    report_failures,
    wrapped,
)
from debias.commands.screen import AsJson, Version, print_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
FIGURES_FOLDER = Path(__file__).resolve().parent / "figures"
LOCAL = Path(".benchmarks")
MAIN = "main"
FAILED, INTERRUPTED = 1, 130
MOST_JOBS = 4  # default limit: each job needs a gigabyte

app = typer.Typer(
    add_completion=False,
    help="Measure and print tables of results. "
    "Without a command, run the quick version of the main table.",
)

Name = Annotated[str, typer.Argument(help="Name of a table; `list` shows all names.")]
Data = Annotated[
    Path | None,
    typer.Option(
        exists=True, help="LETOR file or folder to use instead of generated queries."
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(min=1, help="Number of seeds, from the first seed of the table on."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"Number of processes; by default one per core, at most {MOST_JOBS}.",
    ),
]
Only = Annotated[
    list[str] | None, typer.Option(help="Row to include; may be repeated.")
]
Population = Annotated[
    list[str] | None, typer.Option(help="Population to include; may be repeated.")
]
Out = Annotated[
    Path | None, typer.Option(help=f"Folder of the results; {LOCAL} by default.")
]
Publish = Annotated[
    bool, typer.Option("--publish", help="Add the results to the published results.")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Use the short version of the table.")
]
Html = Annotated[
    Path | None,
    typer.Option(
        help="Write figures and tables to this HTML file, such as page.html.",
        dir_okay=False,
    ),
]
Again = Annotated[bool, typer.Option("--again", help="Measure existing results again.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Hide progress and costs.")]


@app.callback(invoke_without_command=True)
def quick(context: typer.Context, html: Html = None, version: Version = False) -> None:
    if context.invoked_subcommand is None:
        _run(MAIN, quick=True, html=html)
    elif html is not None:
        raise typer.BadParameter(
            f"--html goes after the command: {context.invoked_subcommand} --html {html}"
        )


@app.command(epilog="Example: python -m benchmarks run main --seeds 3")
def run(
    name: Name,
    data: Data = None,
    seeds: Seeds = None,
    jobs: Jobs = None,
    only: Only = None,
    population: Population = None,
    out: Out = None,
    publish: Publish = False,
    quick: Quick = False,
    again: Again = False,
    html: Html = None,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the missing results of a table and print the table.

    An interrupted run resumes when it is started again.
    """
    _run(
        *(name, data, seeds, jobs, only, population, out, publish, quick, again, html),
        json=json,
        quiet=quiet,
    )


@app.command(epilog="Example: python -m benchmarks speed --seeds 3")
def speed(
    seeds: Seeds = None,
    only: Only = None,
    out: Out = None,
    publish: Publish = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the table `speed` again; each seed is one repetition."""
    more: dict[str, Any] = {"publish": publish, "json": json, "quiet": quiet}
    _run("speed", seeds=seeds, only=only, out=out, again=True, **more)


@app.command(epilog="Example: python -m benchmarks table main --html page.html")
def table(
    name: Name,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown.")
    ] = False,
    html: Html = None,
    population: Population = None,
    out: Out = None,
    publish: Annotated[
        bool, typer.Option("--published", help="Show only the published results.")
    ] = False,
    quick: Quick = False,
    baseline: Annotated[
        str | None, typer.Option(help="Baseline row of the differences.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Print a table of your own results, or of published results if you have none."""
    wanted = _table(name)
    _each("row", [baseline] if baseline else [], wanted.rows)
    _each("population", population, wanted.populations)
    with _bad_input():
        wanted.variant(quick)
    folders = [out] if out else [RESULTS] if publish else [LOCAL, RESULTS]
    for folder in folders:
        if _show(
            wanted,
            folder,
            quick,
            population,
            baseline or "",
            as_markdown=markdown,
            html=html,
            json=json,
        ):
            return
    places = " or ".join(str(folder) for folder in folders)
    run = " ".join(f"python -m benchmarks run {each};" for each in wanted.sources)
    run = run.rstrip(";") or f"python -m benchmarks run {name}"
    typer.echo(f"no results of {name} in {places}: {run}")
    raise typer.Exit(FAILED)


@app.command(epilog="Example: python -m benchmarks check --write")
def check(
    write: Annotated[
        bool,
        typer.Option("--write", help="Update tables and numbers that differ."),
    ] = False,
    root: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Source tree.")
    ] = ROOT,
) -> None:
    """Compare tables and numbers in Markdown with the published results."""
    if not (root / "README.md").exists():
        raise typer.BadParameter(f"expected a source tree with README.md, got {root}")
    results = root / "benchmarks" / "results"
    problems = prose.check(root, _tables(), results, write)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(FAILED)
    typer.echo("Markdown and results agree.")


@app.command(epilog="Example: python -m benchmarks verify --sample 5")
def verify(
    sample: Annotated[int, typer.Option(min=1, help="Number of results.")] = 5,
    table: Annotated[
        str | None, typer.Option(help="Table to sample; by default, all tables.")
    ] = None,
    only: Only = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    jobs: Jobs = None,
) -> None:
    """Measure a random sample of published results again, and compare the values."""
    wanted = [_table(table)] if table else list(_tables().values())
    for row in only or ():
        _each("row", [row], {name for each in wanted for name in each.rows})
    with _bad_input():
        chosen = verification.sample(wanted, RESULTS, sample, seed, only or ())
    console = Console(stderr=True)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "again.jsonl"
        todo = [each.job for each in chosen]
        clock = scheduler.Clock(each.record for each in chosen)
        outcome = _measure(console, todo, path, _jobs(jobs), clock)
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    again = {record.key: record.metrics for record in outcome.done}
    measured = [each for each in chosen if each.job.key in again]
    found = [
        deviation
        for each in measured
        for deviation in verification.deviations(each, again[each.job.key])
    ]
    exact = sum(verification.same_place(each.record, 1) for each in measured)
    _show_deviations(found)
    typer.echo(
        f"{plural(len(measured), 'result')} measured again, {exact} held to the digits "
        f"printed, the others to {verification.LOOSE}: "
        f"{plural(len(found), 'difference')}."
    )
    report_failures(console, outcome)
    if found or outcome.failures:
        raise typer.Exit(FAILED)


def _show_deviations(found: Sequence[verification.Deviation]) -> None:
    from rich import box
    from rich.table import Table as Grid

    grid = Grid("table", "population", "row", "seed", "metric", box=box.SIMPLE_HEAD)
    for name in ("published", "now", "allowed"):
        grid.add_column(name, justify="right")
    for each in found:
        of = each.record
        now = "absent" if each.found is None else f"{each.found:.6g}"
        numbers = f"{each.published:.6g}", now, f"{each.allowed:.2g}"
        grid.add_row(
            of.table, of.population, of.row, str(of.seed), each.metric, *numbers
        )
    if found:
        Console().print(grid)


@app.command(epilog="Example: python -m benchmarks figures --out figures")
def figures(
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn world.")] = 0,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")] = (
        LOCAL / "figures"
    ),
    publish: Publish = False,
) -> None:
    """Train models, and draw all figures as PNG and SVG."""
    from benchmarks.figures import FIGURES, save

    folder = FIGURES_FOLDER if publish else out
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(FIGURES, 1):
        save(name, folder, seed)
        typer.echo(f"{number}/{len(FIGURES)} {folder / name}.svg")


@app.command(name="list", epilog="Example: python -m benchmarks list")
def names(json: AsJson = False) -> None:
    """List the names of the tables, their populations and their rows."""
    if json:
        shown = ("title", "seeds", "populations", "rows")
        every = _tables().items()
        print_json({n: {k: getattr(t, k) for k in shown} for n, t in every})
        return
    for name, each in _tables().items():
        short = f", quick version with {each.quick_seeds}" if each.quick else ""
        wrapped(f"{name}: {each.title} ({plural(each.seeds, 'seed')}{short})", "")
        wrapped(f"populations: {' '.join(each.populations)}", "  ")
        wrapped(f"rows: {' '.join(each.rows)}", "  ")


def _tables() -> Mapping[str, Table]:
    from benchmarks.experiments import TABLES

    return TABLES


def _table(name: str) -> Table:
    known = _tables()
    _each("table", [name], known)
    return known[name]


def _each(kind: str, names: list[str] | None, known: Any) -> None:
    """Rejects unknown names, and suggests similar ones."""
    for name in names or ():
        if name not in known:
            raise typer.BadParameter(unknown(kind, name, known))


@contextmanager
def _bad_input() -> Iterator[None]:
    """Context manager: reports a ValueError as a usage error, without a traceback."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _runnable(
    name: str,
    only: list[str] | None,
    population: list[str] | None,
    data: Path | None,
    html: Path | None,
) -> Table:
    """The table, if it can be measured with these options."""
    wanted = _table(name)
    _each("row", only, wanted.rows)
    _each("population", population, wanted.populations)
    if wanted.sources:
        raise typer.BadParameter(
            f"table {name} is made of the results of {' and '.join(wanted.sources)}: "
            f"run these, then python -m benchmarks table {name}"
        )
    if wanted.needs_data and data is None:
        raise typer.BadParameter(
            f"table {name} needs graded data: --data, a LETOR file or folder"
        )
    if html is not None and not html.absolute().parent.is_dir():
        raise typer.BadParameter(f"--html {html}: there is no folder {html.parent}")
    return wanted


def _run(
    name: str,
    data: Path | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    only: list[str] | None = None,
    population: list[str] | None = None,
    out: Path | None = None,
    publish: bool = False,
    quick: bool = False,
    again: bool = False,
    html: Path | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    wanted = _runnable(name, only, population, data, html)
    folder = _folder(out, publish, quick)
    path = folder / f"{name}.jsonl"
    count = seeds or (wanted.quick_seeds if quick else wanted.seeds)
    with _bad_input():
        experiments = _chosen(wanted, quick, only, population)
        records = store.read(path)
        finished = () if again else store.newest(records).keys()
        todo = scheduler.plan(
            name, experiments, wanted.seeds_of(count), wanted.dataset, data, finished
        )
    console, loud = Console(stderr=True, quiet=quiet), Console(stderr=True)
    if have := len(experiments) * count - len(todo):
        console.print(f"{have} of {have + len(todo)} results are in {path} already.")
    most = min(_jobs(jobs), wanted.workers or _jobs(jobs))
    earlier = [r for each in sorted(RESULTS.glob("*.jsonl")) for r in store.read(each)]
    clock = scheduler.Clock([*earlier, *records])
    threads = wanted.threads or machine.cores()
    outcome = _measure(console, todo, path, most, clock, threads)
    if outcome.interrupted:
        report_failures(loud, outcome)
        left = len(todo) - len(outcome.done)
        loud.print(
            f"\nInterrupted: {have + len(outcome.done)} results are in {path}, {left} "
            "are not measured yet. The same command goes on from there.",
            style="bold",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED)
    dataset = wanted.dataset if data is None else data.resolve().name
    _show(wanted, folder, quick, population, dataset=dataset, json=json)
    if html is not None:
        _show(wanted, folder, quick, population, dataset=dataset, html=html, json=json)
    report_failures(loud, outcome)
    if outcome.failures:
        raise typer.Exit(FAILED)


def _chosen(
    wanted: Table, quick: bool, only: list[str] | None, population: list[str] | None
) -> tuple[Experiment, ...]:
    """The experiments of the requested rows and populations."""
    found = tuple(
        experiment
        for experiment in wanted.variant(quick)
        if (not only or experiment.row in only)
        and (not population or experiment.population in population)
    )
    if not found:
        raise ValueError(
            f"table {wanted.name} has no experiment with this row and population"
        )
    return found


def _jobs(asked: int | None) -> int:
    return min(machine.cores(), MOST_JOBS) if asked is None else asked


def _measure(
    console: Console,
    todo: list[scheduler.Job],
    path: Path,
    most: int,
    clock: scheduler.Clock,
    threads: int = 1,
) -> scheduler.Outcome:
    """Runs the jobs, after printing their expected cost."""
    expected = sum(map(clock.expect, todo)) / max(min(most, len(todo)), 1)
    if todo and not math.isnan(expected):
        seeds = len({job.seed for job in todo})
        each = f" ({about(expected / seeds)} a seed)" if seeds > 1 else ""
        console.print(
            f"{plural(len(todo), 'result')} at --jobs {most}: {about(expected)}{each}, "
            "by what earlier runs took."
        )
    with progress(console, len(todo)) as report:
        return scheduler.run(todo, path, most, clock, report, threads)


def _folder(out: Path | None, publish: bool, quick: bool) -> Path:
    """The folder of results; the default folder is created and ignored by git."""
    if publish and (out or quick):
        raise typer.BadParameter("--publish cannot be combined with --out or --quick")
    if publish:
        if not (ROOT / "setup.py").exists():
            raise typer.BadParameter(f"--publish needs a source tree, got {ROOT}")
        return RESULTS
    if out is None:
        LOCAL.mkdir(exist_ok=True)
        (LOCAL / ".gitignore").write_text("*\n")
    return out or LOCAL


def _show(
    wanted: Table,
    folder: Path,
    quick: bool,
    populations: list[str] | None = None,
    baseline: str = "",
    dataset: str = "",
    as_markdown: bool = False,
    html: Path | None = None,
    json: bool = False,
) -> bool:
    """Prints the views with results in a folder, and returns whether there are any.

    With `html`, the views are written to this page instead.
    """
    console = Console()
    names = wanted.sources or (wanted.name,)
    with _bad_input():
        records = wanted.records(store.read_all(folder, names))
        found = [
            view
            for view in tables.views(wanted, records, quick, baseline)
            if dataset in ("", view.dataset)
            and (not populations or view.population in populations)
        ]
    if found and html is not None:
        tables.write_page(html, wanted, found)
        typer.echo(f"page written to {html}", err=json)
        return True
    if found and json:
        print_json([tables.record(view) for view in found])
        return True
    for view in found:
        if as_markdown:
            typer.echo(tables.markdown(view, title=len(found) > 1) + "\n")
        else:
            console.print()
            console.print(tables.terminal(view, console.width))
    if found and not as_markdown:
        paths = ", ".join(str(folder / f"{name}.jsonl") for name in names)
        console.print(f"\n{wanted.title}. Results: {paths}", soft_wrap=True)
        if quick and wanted.quick_note:
            console.print(wanted.quick_note, highlight=False)
        old = tables.outdated(wanted, records)
        if old:
            console.print(
                f"Left out: {plural(len(old), 'result')} of settings no experiment has "
                "now."
            )
    return bool(found)


def main() -> None:
    """Console script."""
    sys.exit(app())


if __name__ == "__main__":
    main()
