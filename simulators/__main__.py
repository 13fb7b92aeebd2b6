"""`python -m simulators`: writes a simulated click log of any length as shards."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from debias.commands.inputs import options
from debias.commands.screen import AsJson, Version, bar, print_json, say
from debias.commands.start import stoppable

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
        say(f"{kind}: {' '.join(names)}")
    raise typer.Exit


def run_of(
    population: Annotated[
        str,
        typer.Option(help="Preset, or a Python file that defines `population`."),
    ] = "mixed",
    data: Annotated[
        str,
        typer.Option(help="`generator` to generate queries, or a LETOR file."),
    ] = "generator",
    queries: Annotated[int, typer.Option(help="Number of queries to generate.")] = 2000,
    policy: Annotated[
        str,
        typer.Option(
            help="Logging policy; weak, expert and worst-first are deterministic."
        ),
    ] = "plackett-luce",
    randomness: Annotated[
        float | None,
        typer.Option(
            help="Temperature (default 1), epsilon (default .1) or rate (default 1) of "
            "the policy."
        ),
    ] = None,
    attraction: Annotated[
        str, typer.Option(help="Function from grades to attraction.")
    ] = "graded",
    noise: Annotated[
        float,
        typer.Option(help="Standard deviation of noise on the logit of attraction."),
    ] = 0.0,
    satisfaction: Annotated[
        str | None,
        typer.Option(
            help="Function from grades to P(satisfied given clicked). By default, "
            "each behaviour defines satisfaction."
        ),
    ] = None,
) -> dict[str, Any]:
    """The settings that identify a run, together with its seed and length."""
    return {
        "population": population,
        "data": data,
        "queries": queries if data == "generator" else None,
        "policy": policy,
        "randomness": randomness,
        "attraction": attraction,
        "noise": noise,
        "satisfaction": satisfaction,
    }


EXAMPLE = "python -m simulators log --items items.parquet --sessions 100000"


@app.command(epilog=f"Example: {EXAMPLE}")
@options(run=run_of)
def main(
    out: Annotated[
        Path,
        typer.Argument(help="Folder to write: new, empty, or of an interrupted run."),
    ],
    run: dict[str, Any],
    items: Annotated[
        Path | None,
        typer.Option(
            help="Parquet file to write, with the items of the log. Pass this file to "
            "`debias` as `--data`."
        ),
    ] = None,
    sessions: Annotated[int, typer.Option(help="Sessions to write.")] = 1_000_000,
    shards: Annotated[
        int | None,
        typer.Option(help="Number of files; by default, a million sessions per file."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    list_size: Annotated[
        int, typer.Option(help="Largest number of items in a list.")
    ] = 10,
    workers: Annotated[
        int | None, typer.Option(help="Number of threads; by default one per core.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Dask scheduler whose workers write the shards: tcp://HOST:PORT, or "
            "local:N for N processes on this machine. All workers need access to the "
            "folder. Needs the extra `cluster`."
        ),
    ] = None,
    presets: Annotated[
        bool,
        typer.Option(
            "--presets",
            callback=_show_presets,
            is_eager=True,
            help="Print the names of all presets.",
        ),
    ] = False,
    version: Version = False,
    json: AsJson = False,
) -> None:
    """Simulates sessions with known truth and writes them as Parquet shards.

    The same arguments give the same bytes. To resume a killed run, give the same
    command again.
    """
    with stoppable():
        _run(out, items, run, seed, sessions, shards, list_size, workers, cluster, json)


def _run(
    out: Path,
    items: Path | None,
    run: dict[str, Any],
    seed: int,
    sessions: int,
    shards: int | None,
    list_size: int,
    workers: int | None,
    cluster: str | None,
    json: bool,
) -> None:
    from debias.data.text import one_of
    from debias.engine.cluster import joined
    from simulators import clicks, writer
    from simulators.policies import POLICIES, Deterministic

    # Faulty arguments are reported before the data is read.
    crowd = _population(run)
    name = run["policy"]
    if name not in POLICIES:
        raise ValueError(one_of("--policy", POLICIES, name))
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
    if items is not None:
        _write_items(data, items)
    shown = f"{run['population']} users, lists of {name}{_chance(policy)}"
    only_list = isinstance(policy, Deterministic)
    del data, policy  # frees the features, above all
    with (
        joined(cluster) as found,
        bar("simulating", sessions, "sessions/s") as progress,
    ):
        over = None if cluster is None else found
        whole = Path(out).absolute()  # workers have other working folders
        writer.write(ready, whole, sessions, shards, run, workers, progress, over)
    if json:
        print_json({"path": str(out), "sessions": sessions, "seed": seed, **run})
    else:
        say(f"{sessions:,} sessions in {out}: {shown}")
    if only_list:
        say(
            "Every session of a query shows the same list, so this log cannot "
            "separate position from relevance; --policy plackett-luce draws random "
            "lists.",
            err=True,
        )


def _chance(policy: Any) -> str:
    """The numeric parameters of a policy, which control its randomness, as text.

    >>> from simulators.policies import EpsilonGreedy, expert
    >>> _chance(EpsilonGreedy(expert, 0.1))
    ' (epsilon 0.1)'
    """
    values = {field.name: getattr(policy, field.name) for field in fields(policy)}
    told = [f"{k} {v:g}" for k, v in values.items() if isinstance(v, int | float)]
    return f" ({', '.join(told)})" if told else ""


def _write_items(data: Any, path: Path) -> None:
    """Writes the ranking data of a log, unless the file already has this content.

    Raises:
        ValueError: The file has other content, which is not changed.
    """
    import filecmp
    from tempfile import TemporaryDirectory

    if not path.exists():
        data.write_parquet(path)
        return
    with TemporaryDirectory() as folder:
        fresh = Path(folder) / "items.parquet"
        data.write_parquet(fresh)
        if not filecmp.cmp(fresh, path, shallow=False):
            raise ValueError(f"{path}: exists and holds other items; name a new file")


def _population(run: dict[str, Any]) -> Any:
    """The population. If a file defines it, the run records a hash of the file."""
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


if __name__ == "__main__":
    app(prog_name="python -m simulators")
