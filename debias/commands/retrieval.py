"""`debias retrieval`: trains, publishes, updates and queries retrieval models.

`train` writes a folder (see `debias.retrieval.training.runs`). `publish` makes a
version from this folder, `update` applies new events to a version, and `query`
retrieves items from a version. `debias serve` serves a version over HTTP.
"""

import csv
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from debias.commands import inputs
from debias.commands.screen import (
    FAILED,
    AsJson,
    bar,
    complain,
    print_json,
    print_table,
    say,
    share_bar,
)
from debias.commands.towers import AUTO, Learning
from debias.commands.train import finished, peak_memory, started
from debias.retrieval.training.recipe import Recipe, recipe_of

if TYPE_CHECKING:
    from debias.retrieval.data.events import EventColumns
    from debias.retrieval.data.interactions import Interactions
    from debias.retrieval.serving.update import Served
    from debias.retrieval.serving.versions import Version

INDEXES = ("exact", "hnsw", "ivf", "pq")
EXTRA_INDEXES = ("annoy", "milvus")  # they need their own extras
REPORTED = (
    *("tower", "recipe", "passes", "held_out", "beside", "repeat", "repeats"),
    "applied",
)
MRR = (
    "mrr/10: mean of 1 / ceil(rank / 10) of each user's best hit; ranks 1 to 10 count "
    "1, ranks 11 to 20 count 1/2"
)
PARTS = "user item time user_features item_features user_numbers item_numbers target"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Trains, evaluates, publishes, updates and queries retrieval models.",
)

EventFile = Annotated[
    str,
    typer.Argument(
        help="Events in Parquet, CSV or JSON lines, one row per event: a file, a "
        "folder or a glob."
    ),
]
Trained = Annotated[
    Path, typer.Argument(help="Folder that `debias retrieval train` wrote.")
]
Root = Annotated[
    str,
    typer.Argument(help="Folder, s3:// URL or gs:// URL of published versions."),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        "-c",
        help="Column for a role, as ROLE=COLUMN, such as item=product_id or "
        "item_features='p_*'. Roles that end with features or numbers may be "
        "repeated. Integer features are read as categories; item_numbers=NAME or "
        f"user_numbers=NAME reads them as numbers. Roles: {PARTS}.",
    ),
]
Users = Annotated[
    str | None,
    typer.Option(help="Table of users; every column except the id is a feature."),
]
Items = Annotated[
    str | None,
    typer.Option(help="Table of items; every column except the id is a feature."),
]
Kept = Annotated[int, typer.Option(min=1, help="Number of versions to keep.")]


class Columns(NamedTuple):
    """The column names of each role."""

    user: str = "user"
    item: str = "item"
    time: str = "time"
    user_features: tuple[str, ...] = ("*",)
    item_features: tuple[str, ...] = ("*",)
    user_numbers: tuple[str, ...] = ()
    item_numbers: tuple[str, ...] = ()
    target: str | None = None

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Columns":
        """Parses texts ROLE=COLUMN.

        >>> Columns.of(["item=sku", "item_features=price", "item_features=kind"])[1:5:3]
        ('sku', ('price', 'kind'))
        """
        found: dict[str, Any] = {}
        for text in texts:
            part, equals, name = text.partition("=")
            if part not in cls._fields or not equals or not name:
                raise ValueError(
                    f"--column must be ROLE=COLUMN with a role of {PARTS}, got {text!r}"
                )
            if part.endswith(("features", "numbers")):
                if name in found.get(part, ()):
                    raise ValueError(f"--column names {part}={name} twice")
                found[part] = (*found.get(part, ()), name)
            elif part in found:
                raise ValueError(
                    f"--column names {part} twice, {found[part]} and {name}"
                )
            else:
                found[part] = name
        return cls(**found)

    @property
    def events(self) -> "EventColumns":
        from debias.retrieval.data.events import EventColumns

        return EventColumns(self.user, self.item, self.time, self.target)

    def check_tables(self, **tables: str | None) -> None:
        """Raises ValueError if users or items have features but no table."""
        for side, table in tables.items():
            for part in (f"{side}_features", f"{side}_numbers"):
                if table is None and getattr(self, part) != self._field_defaults[part]:
                    raise ValueError(
                        f"-c {part}= needs --{side}s, a table of the {side}s: features "
                        "are read from that table, not from the events"
                    )

    def features(
        self,
        users: str | None,
        items: str | None,
        notice: Callable[[str], None] = lambda text: None,
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Raw columns of the tables of users and items; None for a missing table."""
        from debias.data.features import read_features

        def read(source: str | None, side: str) -> Any:
            if source is None:
                return None
            id, names, numbers = (
                getattr(self, f"{side}{part}") for part in ("", "_features", "_numbers")
            )
            with share_bar("features") as progress:
                return read_features(
                    source,
                    id,
                    names,
                    progress,
                    numbers=numbers,
                    notice=lambda text: notice(
                        f"{text}; name the features to read (-c "
                        f"{side}_features=NAME) and those of numbers (-c "
                        f"{side}_numbers=NAME)"
                    ),
                )

        return read(users, "user"), read(items, "item")


@app.command()
@inputs.options(learning=Learning.of)
def train(
    events: EventFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    learning: Learning,
    column: Column = None,
    users: Users = None,
    items: Items = None,
    hold_out: Annotated[
        bool,
        typer.Option(
            "--hold-out",
            help="Evaluate the model and the baselines on held-out events. The "
            "held-out events are the last event of each user, or the last tenth of "
            "the log if users take several items at a time.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another run in the folder.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Trains a retrieval model on interactions.

    Held-out events decide which tower to train, how the tower weighs the items of a
    history, and for how many passes it is trained. The command compares the chosen
    model with three baselines tuned on the same events: popularity, item kNN and EASE.
    Finally, the command trains the chosen model on the whole log. The id column of a
    feature table must have the same name as in the events. A user or item without a row
    in its table is represented by its id alone.

    A log may have several kinds of events, such as clicks and orders. With -c
    target=COLUMN, name the column that holds the kind of each event. With --worth, give
    the weight of each kind. For each kind of event, the towers learn a vector of each
    user and each item. An item's score is the sum of the inner products for all kinds,
    weighted by --worth.

    To resume an interrupted run, give the same command again. The run continues after
    the last completed pass.
    """
    from debias.data import fingerprint
    from debias.data.stores import whole_path

    recipes, mapping = learning.recipes, Columns.of(column or ())
    mapping.check_tables(user=users, item=items)
    if bool(learning.recipe.worth) != bool(mapping.target):
        raise ValueError(
            "give both or neither: -c target=COLUMN (the kind of each event) and "
            "--worth NAME=VALUE (the worth of each kind)"
        )
    sources = {"events": events, "users": users, "items": items}
    paths = {k: None if v is None else whole_path(v) for k, v in sources.items()}
    asked = {
        "source": {**paths, "column": list(column or ())},
        # A resumed run must not mix learners of old events with new events.
        "contents": {k: fingerprint(v) for k, v in paths.items() if v is not None},
        "model": "retrieval",
        "settings": {**learning.settings(), "hold_out": hold_out},
    }
    found = finished(out, asked, force, REPORTED)
    if found is None:
        found = _train(out, asked, force, events, mapping, recipes)
    else:
        say(f"{out}: training is finished; --force trains again", err=True)
    _print_training(found, out, json)


def _train(
    out: Path,
    asked: dict[str, Any],
    force: bool,
    events: str,
    mapping: Columns,
    recipes: list[Recipe],
) -> dict[str, Any]:
    """Reads the events, trains in the folder and writes its report."""
    from debias.data.records import write_record
    from debias.retrieval.data.repeats import infer_repeat
    from debias.retrieval.training import runs
    from debias.retrieval.training.selection import hold_out as held_out

    begun = time.perf_counter()
    tables = mapping.features(
        asked["source"]["users"],
        asked["source"]["items"],
        lambda text: say(f"note: {text}", err=True),
    )
    with share_bar("reading") as progress:
        log, facts = runs.read_log(
            *(events, mapping.events, *tables, progress),
            targets=tuple(recipes[0].worth or ()),
        )
    epochs, hold_out = asked["settings"]["epochs"], asked["settings"]["hold_out"]
    known = held_out(log).known if hold_out else log
    inferred, policy = infer_repeat(known), recipes[0].config["repeat"]
    why = f"--repeat {policy}, as given: {inferred.finding}"
    if policy == AUTO:
        policy, why = inferred.policy, str(inferred)
    recipes = [r._replace(config={**r.config, "repeat": policy}) for r in recipes]
    total = runs.work(log, recipes, epochs)
    # The folder is created only after the events were read without error.
    with started(out, asked, force), bar("choosing", total, "events/s") as advance:
        found = runs.train(
            *(out, log, recipes, epochs, hold_out), advance, advance.rename
        )
    report = {
        **found,
        **facts,
        "repeats": why,
        "seconds": time.perf_counter() - begun,
        "peak_memory_gb": peak_memory(),
    }
    write_record(out / "report.json", report)
    return report


def _print_training(found: dict[str, Any], out: Path, json: bool) -> None:
    if json:
        print_json(found)
        return
    if found["choice"]:
        _print_choice(found["choice"])
    print_table("Passes", found["passes"])
    if found["held_out"]:
        print_table("Held-out events", [found["held_out"]])
        beside = [{"name": found["tower"], **found["held_out"]}, *found["beside"]]
        shown = ("name", "hr@10", "hr@50", "ndcg@10", "ndcg@50", "mrr")
        print_table(
            "Comparison with baselines",
            [{name: row[name] for name in shown} for row in beside],
        )
        say(MRR)
        _warn_repeats(found["held_out"], found["repeat"]["policy"])
    memory = found["peak_memory_gb"]
    say(found["repeats"])
    if weights := found["repeat"]["weights"]:
        said = ", ".join(f"{weight:.2f}" for weight in weights)
        say(
            "weights of the bonus for a repeat (constant, count, recency, score): "
            + said
        )
    say(
        f"{found['tower']}: {found['users']:,} users, {found['items']:,} items, "
        f"{found['events']:,} events, {found['duplicates']:,} duplicates left out, "
        f"{found['bare']:,} ids without features; {found['seconds']:.0f} s"
        + (f", peak memory {memory:.2f} GB" if memory else "")
        + f"; written to {out}"
    )


def _warn_repeats(metrics: dict[str, float], policy: str) -> None:
    """Warns if many events count as missed because the policy excludes their items."""
    from debias.retrieval.data.repeats import LEAST

    again, events = (int(metrics[name]) for name in ("repeated", "events"))
    if policy == "exclude" and again >= LEAST * events:
        complain(
            f"warning: {again:,} of {events:,} events are of an item that the user "
            "took before, and repeat exclude counts them as missed; to rank such "
            "items, train with --repeat model"
        )


def _print_choice(choice: dict[str, Any]) -> None:
    """Prints the candidates on held-out events, and the baselines ahead of them."""
    where = {
        "last": "the last event of each user",
        "period": "the last tenth of the log, as users take several items at a time",
    }[choice["rule"]]
    trials = [
        {**row, "trend": row["trend"] and f"latest {row['trend'][1]:.0%}"}
        for row in choice["trials"]
    ]
    print_table(f"Chosen by {where}", trials)
    print_table("Baselines without training", [_rival(row) for row in choice["rivals"]])
    sure, level = [], []
    for row in choice["rivals"]:
        if row["ahead"] > 1.96 * (row["ahead_se"] or 0.0):
            sure.append(row["name"])
        elif row["ahead"] > 0:
            level.append(row["name"])
    if sure:
        say(
            f"{', '.join(sure)}: significantly better than the chosen tower (95%, "
            f"{choice['users']:,} users, paired); try a larger --dim, all towers "
            "(--model auto), or features of items and users"
        )
    if level:
        say(f"{', '.join(level)}: not significantly better than the chosen tower")


def _rival(row: dict[str, Any]) -> dict[str, Any]:
    """A table row of a baseline, narrow enough for a screen."""
    settings = ", ".join(f"{k} {v:g}" for k, v in row["settings"].items())
    return {
        "name": row["name"],
        "ndcg@50": row["ndcg@50"],
        "ahead": row["ahead"],
        "se": row["ahead_se"],
        "settings": settings,
    }


@app.command()
@inputs.options()
def evaluate(
    folder: Trained,
    events: EventFile,
    column: Column = None,
    json: AsJson = False,
) -> None:
    """Evaluates a trained model on later events.

    The command ranks items in the same way as the service. The option --repeat of the
    training decides how to rank items that a user took before. Events with an item that
    training did not see count as missed. All metrics are means over users. mrr averages
    1 / rank of each user's best hit, and mrr/10 averages 1 / ceil(rank / 10).
    """
    given = None if column is None else Columns.of(column)
    from debias.retrieval.data.events import read_all
    from debias.retrieval.training import runs
    from debias.retrieval.training.evaluation import evaluate as evaluated

    run = runs.open_run(folder)
    mapping = given or Columns.of(run.request["source"]["column"])
    with share_bar("reading") as progress:
        every = read_all(events, mapping.events, progress)
    learner = run.learner
    noticing = warnings.catch_warnings(record=True, action="always")
    with share_bar("evaluating") as shown, noticing as noticed:
        metrics = evaluated(
            *(learner.served, learner.log, every),
            repeat=run.repeat,
            progress=shown,
        )
    for notice in noticed:
        complain(f"warning: {notice.message}")
    found = {"tower": run.report["tower"], **metrics}
    _warn_repeats(metrics, run.repeat.policy)
    if json:
        print_json(found)
    else:
        print_table("Later events", [found])
        say(MRR)


@app.command()
@inputs.options()
def publish(
    folder: Trained,
    root: Root,
    index: Annotated[
        str,
        typer.Option(
            help=f"Index of the item vectors: {' '.join((*INDEXES, *EXTRA_INDEXES))}. "
            f"{' and '.join(EXTRA_INDEXES)} need the extras of the same names."
        ),
    ] = "exact",
    milvus_uri: Annotated[
        str | None,
        typer.Option(
            help="Address of a Milvus cluster, such as http://milvus:19530. By "
            "default, the embedded edition of Milvus is used. The environment variable "
            "MILVUS_TOKEN holds the access token."
        ),
    ] = None,
    ranker: Annotated[
        Path | None,
        typer.Option(
            help="ONNX ranker that `debias export` wrote. The version will contain "
            "this ranker, which orders the retrieved items."
        ),
    ] = None,
    keep: Kept = 3,
    cluster: inputs.Cluster = None,
    json: AsJson = False,
) -> None:
    """Publishes a trained model as a version: tower, item vectors and index."""
    how = _searcher(index, milvus_uri)
    served, log = _published(
        *(folder, root, how, ranker, keep, cluster), index=index, milvus_uri=milvus_uri
    )
    measured = served.index.report
    found: dict[str, Any] = {
        "version": served.name,
        "users": len(log.users),
        "items": len(log.items),
        "repeat": served.repeat.policy,
        "index": None if measured is None else measured._asdict(),
    }
    if json:
        print_json(found)
        return
    say(
        f"version {served.name}: {len(log.users):,} users, {len(log.items):,} items, "
        f"repeat {served.repeat.policy}"
    )
    if found["index"]:
        print_table("Index", [found["index"]])


def _published(
    folder: Path,
    root: str,
    how: Any,
    ranker: Path | None,
    keep: int,
    cluster: str | None,
    **about: Any,
) -> tuple["Served", "Interactions"]:
    """Publishes a version from a finished run; returns it with its log."""
    from debias.engine.cluster import joined
    from debias.retrieval.serving import versions
    from debias.retrieval.serving.update import LEARNERS, publish_full
    from debias.retrieval.training.runs import encoded, open_run

    run = open_run(folder)
    if run.request["settings"].get("hold_out"):
        raise ValueError(
            f"{folder}: was trained with --hold-out, so without the latest events; to "
            "publish, train without --hold-out"
        )
    of = {"recipe": run.report["recipe"], "column": run.request["source"]["column"]}
    vectors = None
    if cluster is not None:
        with joined(cluster) as over:
            vectors = encoded(folder, len(run.learner.log.items), over)
    with versions.alone(root, LEARNERS), share_bar("publishing") as progress:
        served = publish_full(
            *(root, run.learner, run.report["applied"], how),
            about={**of, **about},
            repeat=run.repeat,
            ranker=ranker,
            keep=keep,
            progress=progress,
            vectors=vectors,
        )
    return served, run.learner.log


def _searcher(name: str, milvus_uri: str | None = None) -> Any:
    """Function that builds the searcher of an index; None for exact search."""
    inputs.check_name("--index", name, (*INDEXES, *EXTRA_INDEXES))
    if name == "milvus":
        from debias.retrieval.serving.milvus import milvus

        return partial(milvus, uri=milvus_uri)
    if milvus_uri is not None:
        raise ValueError("--milvus-uri needs --index milvus")
    from debias.retrieval.serving import index

    return None if name == "exact" else getattr(index, name)


@app.command()
@inputs.options()
def update(
    root: Root,
    events: EventFile,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Train all weights for one pass over the events since the last full "
            "update. The result replaces all increments since that update. Without "
            "--full, only id embeddings are updated.",
        ),
    ] = False,
    every: Annotated[
        int,
        typer.Option(min=1, help="Largest number of events per incremental version."),
    ] = 4096,
    users: Users = None,
    items: Items = None,
    keep: Kept = 3,
    json: AsJson = False,
) -> None:
    """Applies new events to the published version and publishes the result.

    Append new rows only to the end of an events file, because the version stores how
    many rows of each file it has applied. After an interruption, give the same command
    again: no event is lost or applied twice. The columns must have the same names as in
    training.
    """
    found = _update(root, events, full, every, users, items, keep)
    if json:
        print_json(found)
    elif found:
        shown = ("version", "kind", "events", "duplicates", "new_users", "new_items")
        print_table(
            "Published", [{name: each[name] for name in shown} for each in found]
        )
        if late := sum(each["late"] for each in found):
            say(
                f"events older than the latest known event of their user: {late:,}; "
                "histories are sorted by time"
            )
        for side in ("users", "items"):
            lacking = [each["lacks"][side] for each in found if side in each["lacks"]]
            if lacking:
                count = sum(each["count"] for each in lacking)
                names = " ".join(lacking[0]["features"])
                say(
                    f"new {side} without features: {count:,} lack {names}. A full "
                    f"update adds them (--full --{side} TABLE). An increment adds them "
                    "only if it gets the table with the first events of an id"
                )
            _print_unknown(side, found)
    else:
        say(f"{root}: all events of {events} were applied before")


def _print_unknown(side: str, found: list[dict[str, Any]]) -> None:
    """Prints which values of new users or items were not in training."""
    counts = Counter[str]()
    for each in found:
        counts.update(each["unknown"].get(side, {}))
    if counts:
        said = ", ".join(f"{name} of {count:,}" for name, count in counts.items())
        say(
            f"new {side} with values that training did not know: {said}; all are "
            "treated as one unknown value until you train again"
        )


def _update(
    root: str,
    events: str,
    full: bool,
    every: int,
    users: str | None,
    items: str | None,
    keep: int,
) -> list[dict[str, Any]]:
    """Publishes updates; returns a report of each version."""
    from debias.retrieval.serving import versions
    from debias.retrieval.serving.update import update as updates

    about = versions.manifest(root)["extra"]
    if "recipe" not in about:
        raise ValueError(f"{root}: was not published by debias retrieval publish")
    recipe, mapping = recipe_of(about["recipe"]), Columns.of(about["column"])
    tables = mapping.features(users, items)
    with ExitStack() as stack:
        reports = updates(
            root,
            events,
            recipe.build(),
            recipe.training_config(),
            full,
            columns=mapping.events,
            max_events=every,
            users=tables[0],
            items=tables[1],
            how=_searcher(about["index"], about.get("milvus_uri")),
            keep=keep,
            start=lambda count: stack.enter_context(bar("updating", count, "events/s")),
        )
        return [report._asdict() for report in reports]


@app.command()
@inputs.options()
def check(
    root: Annotated[
        str,
        typer.Argument(
            help="Folder or URL of published versions, or of a single version."
        ),
    ],
    json: AsJson = False,
) -> None:
    """Reads every byte of every version and lists damaged files.

    The exit status is 1 if a version is damaged.
    """
    from debias.retrieval.serving import versions

    with share_bar("checking") as progress:
        found = [each._asdict() for each in versions.check(root, progress)]
    if json:
        print_json(found)
    else:
        for each in found:
            size = "" if each["megabytes"] is None else f"{each['megabytes']:.1f} MB, "
            served = ", served" if each["current"] else ""
            say(f"{each['version']}{served}: {size}{each['damage'] or 'whole'}")
    if any(each["damage"] for each in found):
        raise typer.Exit(FAILED)


@app.command()
@inputs.options()
def rollback(
    root: Root,
    version: Annotated[
        str | None,
        typer.Argument(
            help="Version to serve. The default is the version before the current "
            "version."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Serves an earlier version again.

    The command first checks the files of the earlier version. A running service
    switches to the earlier version by itself. The files of newer versions are kept
    until the next version is published.
    """
    from debias.retrieval.serving import versions

    before = versions.current(root)
    found = {"version": versions.roll_back(root, version), "before": before}
    if json:
        print_json(found)
    else:
        say(f"{root}: serves version {found['version']}, not {before}")


@app.command()
@inputs.options()
def query(
    root: Root,
    user: Annotated[str | None, typer.Option(help="Id of the user.")] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="Feature of the user, as NAME=VALUE. May be repeated."),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            help="Ids of the user's latest items, most recent first: a,b,c. Quote an "
            "id that contains a comma: 'a,\"b,c\"'."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of items to retrieve.")] = 10,
    repeat: Annotated[
        str | None,
        typer.Option(
            help="Policy for items that the user took before: exclude, allow, or model "
            "(adds a learned bonus to their scores). The default is the policy used in "
            "training."
        ),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="Version to query. The default is the served version."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Retrieves items for one user from a published version.

    For an unknown user, the answer depends only on features and history.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    pairs = _pairs(feature or (), user)
    from debias.retrieval.serving import versions
    from debias.retrieval.serving.query import retrieve

    loaded = versions.load(root, version)
    about = {name: _value(loaded, name, text) for name, text in pairs.items()}
    ids = None if history is None else [i for i in next(csv.reader([history]), []) if i]
    answer = retrieve(loaded, about, ids, k, repeat=repeat)
    found = {"version": loaded.name, **answer._asdict()}
    if json:
        print_json(found)
        return
    rows = zip(found["items"], found["scores"], strict=True)
    print_table("Items", [{"item": item, "score": score} for item, score in rows])
    if len(found["items"]) < k:
        say(
            f"{len(found['items']):,} of {k:,} items: no other items are left for this "
            "user."
        )
    if not found["known"]:
        say("The user is not known.")
    if found["passed_over"]:
        say(f"Not in the catalogue: {', '.join(found['passed_over'])}")


def _pairs(features: Sequence[str], user: str | None) -> dict[str, str]:
    """The features of the user, by name; raises ValueError if a name repeats."""
    found = {} if user is None else {"id": user}
    for text in features:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--feature must be NAME=VALUE, got {text!r}")
        if name in found:
            raise ValueError(f"--feature gives {name!r} twice")
        found[name] = value
    return found


def _value(version: "Version", name: str, text: str) -> str | float:
    """The text, converted to a number if the feature is numeric."""
    column = version.users.columns.get(name)
    if column is None or column.dtype.kind != "f":
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--feature {name} must be a number, got {text!r}") from None
