"""`python -m simulators`: writes a click log of any length to a folder of shards."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _show_presets(show: bool) -> None:
    if not show:
        return
    from simulators.clicks import ATTRACTIONS, SATISFACTIONS
    from simulators.policies import POLICIES
    from simulators.populations import POPULATIONS

    for kind, names in (
        ("populations", POPULATIONS),
        ("policies", POLICIES),
        ("attractions", ATTRACTIONS),
        ("satisfactions", SATISFACTIONS),
    ):
        typer.echo(f"{kind}: {' '.join(names)}")
    raise typer.Exit


@app.command()
def main(
    out: Annotated[
        Path, typer.Argument(help="Folder to write: new, empty, or to be continued.")
    ],
    population: Annotated[
        str,
        typer.Option(help="Preset, or a Python file that sets `population`."),
    ] = "mixed",
    data: Annotated[
        str, typer.Option(help="`generator`, or a LETOR file with labels.")
    ] = "generator",
    queries: Annotated[int, typer.Option(help="Queries of the generator.")] = 2000,
    sessions: Annotated[int, typer.Option(help="Sessions to write.")] = 1_000_000,
    shards: Annotated[
        int | None, typer.Option(help="Files; by default a million sessions each.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Names the log.")] = 0,
    policy: Annotated[str, typer.Option(help="Logging policy.")] = "weak",
    randomness: Annotated[
        float | None,
        typer.Option(help="Temperature, epsilon or rate of the policy."),
    ] = None,
    list_size: Annotated[int, typer.Option(help="Items shown at most.")] = 10,
    attraction: Annotated[
        str, typer.Option(help="How grades attract clicks.")
    ] = "graded",
    noise: Annotated[float, typer.Option(help="Of the logit of attraction.")] = 0.0,
    satisfaction: Annotated[
        str | None,
        typer.Option(help="How grades satisfy; by default as behaviours say."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads; by default one per core.")
    ] = None,
    presets: Annotated[
        bool,
        typer.Option(
            "--presets", callback=_show_presets, is_eager=True, help="List the names."
        ),
    ] = False,
) -> None:
    """Simulates sessions with known truth and writes them as Parquet shards.

    The same arguments give the same bytes. A run that was killed continues when it is
    started again.
    """
    try:
        _run(
            out,
            {
                "population": population,
                "data": data,
                "queries": queries if data == "generator" else None,
                "policy": policy,
                "randomness": randomness,
                "attraction": attraction,
                "noise": noise,
                "satisfaction": satisfaction,
            },
            seed,
            sessions,
            shards,
            list_size,
            workers,
        )
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _run(
    out: Path,
    run: dict[str, Any],
    seed: int,
    sessions: int,
    shards: int | None,
    list_size: int,
    workers: int | None,
) -> None:
    from simulators import clicks, populations, writer
    from simulators.policies import POLICIES

    # All that can be wrong with the arguments is said before the data is read.
    crowd = _population(run)
    name = run["policy"]
    if name not in POLICIES:
        raise ValueError(
            f"no policy is called {name!r}; {populations.near(name, POLICIES)}"
        )
    data = _data(run, seed)
    policy = POLICIES[name](data, seed, run["randomness"])
    ready = clicks.prepare(
        data,
        policy,
        crowd,
        seed,
        list_size,
        run["attraction"],
        run["noise"],
        run["satisfaction"],
    )
    del data, policy  # the features, most of all
    with _progress(sessions) as progress:
        writer.write(ready, out, sessions, shards, run, workers, progress)
    typer.echo(f"{sessions} sessions in {out}")


def _population(run: dict[str, Any]) -> Any:
    """The population; a file is entered in the run by its content."""
    import hashlib

    from simulators import populations

    name = run["population"]
    if not name.endswith(".py"):
        return populations.named(name)
    crowd = populations.from_file(name)
    run["population"] = Path(name).name
    run["population_sha256"] = hashlib.sha256(Path(name).read_bytes()).hexdigest()
    return crowd


def _data(run: dict[str, Any], seed: int) -> Any:
    if run["data"] == "generator":
        from simulators.queries import generate

        return generate(run["queries"], seed)
    from debias.data import read_letor

    data = read_letor(run["data"])
    run["data"] = Path(run["data"]).name
    return data


class _progress:
    """A bar with the time left on standard error."""

    def __init__(self, sessions: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(
            TextColumn("sessions"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self.task = self.bar.add_task("sessions", total=sessions)

    def __enter__(self) -> Any:
        self.bar.start()
        return lambda sessions: self.bar.advance(self.task, sessions)

    def __exit__(self, *error: object) -> None:
        self.bar.stop()


if __name__ == "__main__":
    app(prog_name="python -m simulators")
