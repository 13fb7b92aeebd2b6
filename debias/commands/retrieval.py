"""`debias retrieval`: from interactions to a published model that is kept fresh.

`train` writes a folder with `train.json` (what was asked for), `passes/N` (the state of
learning after pass N) and at last `report.json`. `publish` makes a version of it, which
`update` follows a stream of events with, and `query` asks; `debias serve` answers the
rest of the world.
"""

import json as json_
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from debias.artifacts import report_of
from debias.commands.screen import (
    AsJson,
    bar,
    messages,
    print_json,
    print_table,
    share_bar,
)
from debias.commands.train import finished, peak_memory, start

if TYPE_CHECKING:
    from debias.retrieval.data.events import EventColumns
    from debias.retrieval.data.interactions import Interactions
    from debias.retrieval.training.learner import Build, Learner, TrainingConfig

TOWERS = "dssm fm senet youtube mind dat"
INDEXES = "exact hnsw ivf pq annoy"
PARTS = "user item time user_features item_features"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Retrieval models: train, evaluate, publish, update and query.",
)

EventFile = Annotated[
    str,
    typer.Argument(
        help="Parquet, CSV or JSON lines: a file, a folder or a glob; a row an event."
    ),
]
Trained = Annotated[
    Path, typer.Argument(help="Folder that `debias retrieval train` wrote.")
]
Root = Annotated[Path, typer.Argument(help="Folder of published versions.")]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        "-c",
        help="PART=NAME, which column plays which part, such as item=product_id or "
        f"item_features='p_*'; may be repeated. Parts: {PARTS}.",
    ),
]
Users = Annotated[
    str | None,
    typer.Option(help="Table of users with their features; all columns but the id's."),
]
Items = Annotated[str | None, typer.Option(help="The same of items.")]
Kept = Annotated[int, typer.Option(min=1, help="Versions to keep.")]


class Recipe(NamedTuple):
    """What a learner is made of, as JSON values; travels in the manifest."""

    tower: str
    dim: int
    hidden: list[int]
    temperature: float
    seed: int
    pace: dict[str, Any]

    def build(self) -> "Build":
        """Makes the model of schemas."""
        from debias.retrieval import models as retrieval

        given = {
            "dim": self.dim,
            "temperature": self.temperature,
            "seed": self.seed,
            "length": self.pace["length"],
        }
        if self.tower == "fm":
            return partial(retrieval.fm_tower, **given)
        towers: dict[str, Callable[..., Any]] = {
            "dssm": retrieval.dssm,
            "senet": retrieval.senet_tower,
            "youtube": retrieval.youtube_dnn,
            "mind": retrieval.MIND,
            "dat": partial(retrieval.DAT, category=None),
        }
        return partial(towers[self.tower], **given, hidden=self.hidden)

    def pace_of(self) -> "TrainingConfig":
        from debias.retrieval.training.learner import TrainingConfig

        return TrainingConfig(**self.pace)


class Columns(NamedTuple):
    """Which columns play which parts."""

    user: str = "user"
    item: str = "item"
    time: str = "time"
    user_features: tuple[str, ...] = ("*",)
    item_features: tuple[str, ...] = ("*",)

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Columns":
        """Of texts PART=NAME.

        >>> Columns.of(["item=sku", "item_features=price", "item_features=kind"])[1:5:3]
        ('sku', ('price', 'kind'))
        """
        found: dict[str, Any] = {}
        for text in texts:
            part, equals, name = text.partition("=")
            if part not in cls._fields or not equals or not name:
                raise ValueError(
                    f"--column must be PART=NAME with a part of {PARTS}, got {text!r}"
                )
            if part.endswith("features"):
                found[part] = (*found.get(part, ()), name)
            else:
                found[part] = name
        return cls(**found)

    @property
    def events(self) -> "EventColumns":
        from debias.retrieval.data.events import EventColumns

        return EventColumns(self.user, self.item, self.time)

    def features(
        self, users: str | None, items: str | None
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Raw columns of both tables, None of one that is not given."""
        from debias.data.features import read_features

        def read(source: str | None, id: str, names: tuple[str, ...]) -> Any:
            if source is None:
                return None
            with share_bar("features") as progress:
                return read_features(source, id, names, progress)

        return (
            read(users, self.user, self.user_features),
            read(items, self.item, self.item_features),
        )


@app.command()
def train(
    events: EventFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    column: Column = None,
    users: Users = None,
    items: Items = None,
    tower: Annotated[str, typer.Option(help=f"One of {TOWERS}.")] = "dssm",
    dim: Annotated[int, typer.Option(min=1, help="Size of a vector.")] = 64,
    hidden: Annotated[str, typer.Option(help="Hidden sizes, such as 128,64.")] = "128",
    length: Annotated[int, typer.Option(min=1, help="Items of a history.")] = 20,
    temperature: Annotated[float, typer.Option(help="Divides the cosines.")] = 0.1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes.")] = 3,
    rate: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 0.003,
    batch_size: Annotated[int, typer.Option(min=2, help="Events a step.")] = 512,
    memory: Annotated[
        int, typer.Option(min=1, help="Events of a user that are remembered.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Names all chance.")] = 0,
    hold_out: Annotated[
        bool,
        typer.Option(
            "--hold-out",
            help="Judge by the last event of each user, which is not learned from.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another run in the folder.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Trains a retrieval model on interactions.

    The id's column of a table of features is named as in the events. A user or an item
    that no table describes is known by its id alone. A run that was interrupted or
    killed continues behind its last whole pass when the command is given again.
    """
    with messages():
        _check("--tower", tower, TOWERS)
        pace = {
            "length": length,
            "batch_size": batch_size,
            "rate": rate,
            "id_rate": rate,
            "memory": memory,
            "seed": seed,
        }
        recipe = Recipe(tower, dim, _numbers(hidden), temperature, seed, pace)
        mapping = Columns.of(column or ())
        sources = [
            None if s is None else str(Path(s).absolute()) for s in (users, items)
        ]
        asked = {
            "source": {
                "events": str(Path(events).absolute()),
                "users": sources[0],
                "items": sources[1],
                "column": list(column or ()),
            },
            "model": "retrieval",
            "settings": {**recipe._asdict(), "epochs": epochs, "hold_out": hold_out},
        }
        found = finished(out, asked, force)
        if found is None:
            log, facts = _read(events, mapping, users, items)
            start(out, asked, force)  # after the events were read without a fault
            found = _learn(out, log, facts, recipe, epochs, hold_out)
        else:
            typer.echo(f"{out}: is finished; --force trains anew", err=True)
    if json:
        print_json(found)
        return
    print_table("Passes", found["passes"])
    if found["held_out"]:
        print_table("Held-out events", [found["held_out"]])
    typer.echo(
        f"{found['tower']}: {found['users']:,} users, {found['items']:,} items, "
        f"{found['events']:,} events, {found['duplicates']:,} duplicates left out, "
        f"{found['bare']:,} ids without features; {found['seconds']:.0f} s, peak "
        f"memory {found['peak_memory_gb']:.2f} GB; written to {out}"
    )


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number]
    except ValueError:
        raise ValueError(f"--hidden must be whole numbers, got {text!r}") from None


def _read(
    events: str, mapping: Columns, users: str | None, items: str | None
) -> tuple["Interactions", dict[str, Any]]:
    """All events over the tables, and what is to be said of them."""
    import numpy as np

    from debias.retrieval.data.events import Events, pending, take_in
    from debias.retrieval.data.interactions import ID, FeatureTable, Interactions

    user_table, item_table = (
        FeatureTable.build(raw or {ID: np.empty(0, str)})
        for raw in mapping.features(users, items)
    )
    with share_bar("reading") as progress:
        lots = list(pending(events, {}, mapping.events, progress=progress))
    if not lots:
        raise ValueError(f"{events}: holds no event")
    every = Events(*map(np.concatenate, zip(*(lot for lot, _ in lots), strict=True)))
    none = np.empty(0, np.int32)
    nothing = Interactions(none, none, none.astype(np.int64), user_table, item_table)
    taken = take_in(nothing, every)
    return taken.log, {
        "applied": lots[-1][1],
        "events": taken.events,
        "duplicates": taken.duplicates,
        "users": len(taken.log.users),
        "items": len(taken.log.items),
        "bare": taken.bare,
    }


def _learn(
    folder: Path,
    log: "Interactions",
    facts: dict[str, Any],
    recipe: Recipe,
    epochs: int,
    hold_out: bool,
) -> dict[str, Any]:
    """Trains in a folder that was begun, from its last whole pass; the report."""
    from debias.data.files import atomic_write
    from debias.retrieval.data.interactions import ID, leave_last_out
    from debias.retrieval.training import learner as learners

    begun = time.perf_counter()
    known, last = leave_last_out(log) if hold_out else (log, log)
    build, pace = recipe.build(), recipe.pace_of()
    passes = folder / "passes"
    done = max((int(path.name) for path in passes.glob("[0-9]*")), default=0)
    losses = folder / "losses.json"
    history = json_.loads(losses.read_text()) if losses.exists() else []
    if done:
        learner = learners.load(passes / str(done), build, pace)
    else:
        learner = learners.new_learner(build, known, pace)
    with bar(recipe.tower, epochs * len(known), "events/s") as progress:
        progress(done * len(known))
        for number in range(done + 1, epochs + 1):
            (loss,) = learners.learn(learner, progress=progress)
            history = [*history[: number - 1], {"pass": number, "loss": loss}]
            with atomic_write(losses) as aside:
                aside.write_text(json_.dumps(history), encoding="utf-8")
            learners.save(learner, passes / str(number))
            shutil.rmtree(passes / str(number - 1), ignore_errors=True)
    held_out = None
    if hold_out:
        from debias.retrieval.data.events import Events

        names = (t.vocabularies[ID] for t in (log.users, log.items))
        user, item = (
            n[rows] for n, rows in zip(names, (last.user, last.item), strict=True)
        )
        held_out = learners.judge(learner, Events(user, item, last.time))
    report = {
        "tower": recipe.tower,
        "recipe": recipe._asdict(),
        "passes": history,
        "held_out": held_out,
        **facts,
        "seconds": time.perf_counter() - begun,
        "peak_memory_gb": peak_memory(),
    }
    with atomic_write(folder / "report.json") as aside:
        aside.write_text(json_.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def trained(folder: Path) -> tuple["Learner", dict[str, Any], dict[str, Any]]:
    """The learner of a trained folder, its report, and what was asked for.

    Raises:
        ValueError: The folder is none, or its training did not finish.
    """
    from debias.retrieval.training.learner import load

    report = report_of(folder)
    if "recipe" not in report:
        raise ValueError(
            f"{folder}: holds no retrieval model; train one with debias retrieval train"
        )
    recipe = Recipe(**report["recipe"])
    last = folder / "passes" / str(len(report["passes"]))
    asked = json_.loads((folder / "train.json").read_text(encoding="utf-8"))
    return load(last, recipe.build(), recipe.pace_of()), report, asked


@app.command()
def evaluate(
    folder: Trained,
    events: EventFile,
    column: Column = None,
    json: AsJson = False,
) -> None:
    """How well a trained model foretells later events.

    Items are ranked among all that a user has not taken. What the model does not know,
    it misses.
    """
    with messages():
        import numpy as np

        from debias.retrieval.data.events import Events, read_events
        from debias.retrieval.training.learner import judge

        learner, report, asked = trained(folder)
        mapping = Columns.of(column or asked["source"]["column"])
        with share_bar("reading") as progress:
            lots = [lot for _, lot in read_events(events, mapping.events, progress)]
        every = Events(*map(np.concatenate, zip(*lots, strict=True)))
        if not len(every.user):
            raise ValueError(f"{events}: holds no event")
        found = {"tower": report["tower"], **judge(learner, every)}
    if json:
        print_json(found)
    else:
        print_table("Metrics", [{"metric": k, "value": v} for k, v in found.items()])


@app.command()
def publish(
    folder: Trained,
    root: Root,
    index: Annotated[str, typer.Option(help=f"One of {INDEXES}.")] = "exact",
    keep: Kept = 3,
    json: AsJson = False,
) -> None:
    """Makes a trained model a version that is served: tower, vectors and index."""
    with messages():
        how = _how(index)
        learner, report, asked = trained(folder)
        if asked["settings"]["hold_out"]:
            raise ValueError(
                f"{folder}: was trained to be judged, and knows nothing of the last "
                "events; train without --hold-out"
            )
        from debias.retrieval.serving import versions
        from debias.retrieval.serving.update import LEARNERS, publish_full

        about = {
            "recipe": report["recipe"],
            "column": asked["source"]["column"],
            "index": index,
        }
        applied = report["applied"]
        with versions.alone(root / LEARNERS), share_bar("publishing") as progress:
            served = publish_full(
                root, learner, applied, how, about=about, keep=keep, progress=progress
            )
        measured = served.index.report
        log = learner.log
        found: dict[str, Any] = {
            "version": served.name,
            "users": len(log.users),
            "items": len(log.items),
            "index": None if measured is None else measured._asdict(),
        }
    if json:
        print_json(found)
        return
    typer.echo(
        f"version {served.name}: {len(log.users):,} users, {len(log.items):,} items"
    )
    if found["index"]:
        print_table("Index", [found["index"]])


def _check(option: str, name: str, known: str) -> None:
    if name not in known.split():
        raise ValueError(f"{option} must be one of {known}, got {name!r}")


def _how(name: str) -> Any:
    _check("--index", name, INDEXES)
    from debias.retrieval.serving import index

    return None if name == "exact" else getattr(index, name)


@app.command()
def update(
    root: Root,
    events: EventFile,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="One pass over all events since the last full update, which replaces "
            "the increments; without it, only embeddings of ids move.",
        ),
    ] = False,
    every: Annotated[
        int, typer.Option(min=1, help="Events of one increment, at most.")
    ] = 4096,
    users: Users = None,
    items: Items = None,
    keep: Kept = 3,
    json: AsJson = False,
) -> None:
    """Applies the events that the published version has not seen, and publishes.

    Files of events may only grow at their end: how many rows of each are applied is
    part of the version. Interrupted or killed, give the command again: no event is lost
    or applied twice. Columns are named as in training.
    """
    with messages():
        from debias.retrieval.serving import versions
        from debias.retrieval.serving.update import update as updates

        about = versions.manifest(root)["extra"]
        if "recipe" not in about:
            raise ValueError(f"{root}: was not published by debias retrieval publish")
        recipe, mapping = Recipe(**about["recipe"]), Columns.of(about["column"])
        raw = mapping.features(users, items)
        with ExitStack() as stack:
            found = [
                report._asdict()
                for report in updates(
                    root,
                    events,
                    recipe.build(),
                    recipe.pace_of(),
                    full,
                    columns=mapping.events,
                    most=every,
                    users=raw[0],
                    items=raw[1],
                    how=_how(about["index"]),
                    keep=keep,
                    start=lambda count: stack.enter_context(
                        bar("updating", count, "events/s")
                    ),
                )
            ]
    if json:
        print_json(found)
    elif found:
        shown = ("version", "kind", "events", "duplicates", "new_users", "new_items")
        print_table(
            "Published", [{name: each[name] for name in shown} for each in found]
        )
    else:
        typer.echo(f"{root}: has applied all of {events} already")


@app.command()
def query(
    root: Root,
    user: Annotated[str | None, typer.Option(help="Id of the user.")] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, a feature of the user; may be repeated."),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(help="Ids of its latest items, the most recent first: a,b,c."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Items to retrieve.")] = 10,
    version: Annotated[str | None, typer.Option(help="By default the current.")] = None,
    json: AsJson = False,
) -> None:
    """The items that a published version retrieves for one user.

    A user that it has never seen gets an answer from features and history alone.
    """
    with messages():
        from debias.retrieval.serving import versions
        from debias.retrieval.serving.query import retrieve

        loaded = versions.load(root, version)
        about: dict[str, Any] = {} if user is None else {"id": user}
        for text in feature or ():
            name, equals, value = text.partition("=")
            if not equals:
                raise ValueError(f"--feature must be NAME=VALUE, got {text!r}")
            column = loaded.users.columns.get(name)
            numeric = column is not None and column.dtype.kind == "f"
            about[name] = _number(name, value) if numeric else value
        ids = None if history is None else [i for i in history.split(",") if i]
        answer = retrieve(loaded, about, ids, k)
        found = {"version": loaded.name, **answer._asdict()}
    if json:
        print_json(found)
        return
    pairs = zip(found["items"], found["scores"], strict=True)
    print_table("Items", [{"item": item, "score": score} for item, score in pairs])
    if not found["known"]:
        typer.echo("The user is not known.")
    if found["passed_over"]:
        typer.echo(f"Not in the catalogue: {', '.join(found['passed_over'])}")


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--feature {name} must be a number, got {text!r}") from None
