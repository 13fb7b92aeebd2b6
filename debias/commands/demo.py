"""`debias demo`: a one-minute demonstration on a simulated shop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from debias.commands import inputs
from debias.commands.places import check_free
from debias.commands.screen import AsJson, print_json, print_table, say, share_bar

if TYPE_CHECKING:
    import pyarrow as pa

    from debias.data import ClickLog, RankingData

MODELS = ("naive", "product")
POSITIONS = 8
NEXT = """
{page} is the diagnosis of the log. Run the same on your own files:

  debias diagnose {log} -c "features=f_*" -o page.html
  debias train {log} -c "features=f_*" -o trained
  debias rank trained {products} -o ranked.parquet
"""


@inputs.options()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path(
        "demo"
    ),
    sessions: Annotated[
        int, typer.Option(min=500, help="Number of sessions to simulate.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    show: Annotated[
        bool, typer.Option("--open/--no-open", help="Open report.html in a browser.")
    ] = True,
    force: inputs.Force = False,
    json: AsJson = False,
) -> None:
    """Demonstrates debiasing on a simulated shop, in about a minute.

    The shop shows its oldest products first, and users mostly click the top products.
    The command writes a click log (clicks.csv), products to rank (products.csv) and a
    diagnosis of the log (report.html). The command also prints the NDCG of three
    rankings on unseen queries. The NDCG uses the true relevance, which only a simulator
    knows.
    """
    from debias.data.files import atomic_write
    from debias.diagnosis import report

    check_free(out, force)
    paths = {name: out / name for name in ("clicks.csv", "products.csv", "report.html")}
    with share_bar("demo") as progress:
        train, test, log = shop_log(sessions, seed)
        out.mkdir(parents=True, exist_ok=True)
        _write_csv(shown_rows(log, train), paths["clicks.csv"])
        _write_csv(product_rows(test, first=train.queries), paths["products.csv"])
        progress(0.1)
        found = report.diagnose(log, seed=seed, progress=lambda s: progress(s * 0.4))
        with atomic_write(paths["report.html"]) as aside:
            aside.write_text(report.page(found, "clicks.csv"), encoding="utf-8")
        rows = compared(log, train, test, seed, lambda s: progress(0.4 + 0.6 * s))
    if json:
        print_json({"headline": found.headline, "rankings": rows, **_named(paths)})
        return
    say(f"{found.headline}\n")
    print_table("Rankings of unseen queries against the truth", rows)
    say(NEXT.format(**_named(paths)).strip("\n"))
    if show:
        typer.launch(str(paths["report.html"].absolute()))


def _named(paths: dict[str, Path]) -> dict[str, str]:
    log, products, page = map(str, paths.values())
    return {"log": log, "products": products, "page": page}


def shop_log(
    sessions: int, seed: int
) -> tuple["RankingData", "RankingData", "ClickLog"]:
    """Training products, products of unseen queries, and a simulated click log."""
    import numpy as np

    import simulators
    from simulators.shop import longest_listed, shop

    train, test = shop(seed=seed).split((0.75, 0.25), np.random.default_rng(seed))
    policy = simulators.PlackettLuce(longest_listed, temperature=0.5)
    log = simulators.simulate(train, policy, "pbm", sessions, seed, POSITIONS)
    return train, test, log


def compared(
    log: "ClickLog", train: "RankingData", test: "RankingData", seed: int, progress: Any
) -> list[dict[str, Any]]:
    """NDCG of the shop's order and of each model's ranking, on unseen queries."""
    import numpy as np

    from debias import metrics, training
    from simulators.shop import longest_listed

    orders = {"as the shop shows them": longest_listed(test)}
    about = {"naive": "naive: clicks as they are", "product": "product: debiased"}
    for number, name in enumerate(MODELS, 1):
        config = training.TrainingConfig(epochs=10, batch_size=128, seed=seed)
        fitted = training.fit(name, log, train, config=config)
        orders[about[name]] = np.asarray(fitted.ranker(test.features))
        progress(number / len(MODELS))
    assert test.labels is not None
    rows = []
    for name, scores in orders.items():
        each = metrics.ndcg(test.labels, scores, (1, 5), offsets=test.offsets)
        one, five = (metrics.estimate(each[:, k]).mean for k in (0, 1))
        rows.append({"ranking": name, "ndcg@1": one, "ndcg@5": five})
    return rows


def shown_rows(log: "ClickLog", data: "RankingData") -> "pa.Table":
    """The log as a table with one row per shown product."""
    import numpy as np
    import pyarrow as pa

    session, _ = np.nonzero(log.mask)
    item = log.item[log.mask]
    columns = {
        "session": session,
        "query": _names("q", log.query[session]),
        "item": _names("p", item),
        "position": log.position[log.mask],
        "click": log.click[log.mask].astype(int),
    }
    return pa.table(columns | _features(data, item))


def product_rows(data: "RankingData", first: int) -> "pa.Table":
    """Table of products to rank, with queries numbered from `first`."""
    import numpy as np
    import pyarrow as pa

    items = np.arange(data.items)
    query = _names("q", first + data.query_of_item())
    return pa.table({"query": query, "item": items} | _features(data, items))


def _features(data: "RankingData", item: Any) -> dict[str, Any]:
    names = data.feature_names or ()
    rows = data.features[item].astype(float).round(2)
    return dict(zip(names, rows.T, strict=True))


def _names(letter: str, numbers: Any) -> list[str]:
    return [f"{letter}{number}" for number in numbers]


def _write_csv(table: "pa.Table", path: Path) -> None:
    from pyarrow import csv

    from debias.data.files import atomic_write

    with atomic_write(path) as aside:
        csv.write_csv(table, aside)
