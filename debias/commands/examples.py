"""Examples of the commands, and the panels that group the commands in --help."""

from collections.abc import Mapping
from inspect import getdoc

import typer

PANELS: Mapping[str, str] = {
    "Begin": "demo import inspect",
    "Examine a log": "diagnose plan",
    "Train and rank": "train evaluate rank distill export",
    "For your own trainer": "propensities judge weights",
    "Serve": "serve retrieval",
}

EXAMPLES: Mapping[str, str] = {
    "demo": "debias demo -o demo",
    "import": "debias import events.csv -c user=visitor -o log.parquet",
    "inspect": "debias inspect log.parquet -c session=sid -c item=doc",
    "diagnose": "debias diagnose log.parquet -c 'features=f_*' -o report.html",
    "plan": "debias plan log.parquet",
    "propensities": "debias propensities log.parquet -o propensities.csv",
    "judge": "debias judge log.parquet -o judgments.csv",
    "weights": "debias weights log.parquet --for lightgbm -o impressions.parquet",
    "train": "debias train log.parquet -c 'features=f_*' --model product -o trained",
    "evaluate": "debias evaluate trained log.parquet -c 'features=f_*'",
    "distill": "debias distill trained log.parquet -o trees",
    "export": "debias export trained -o ranker.onnx",
    "rank": "debias rank trained candidates.parquet -o ranked.parquet",
    "serve": "debias serve published --ranker ranker.onnx --port 8000",
    "retrieval train": "debias retrieval train events.parquet -o towers",
    "retrieval evaluate": "debias retrieval evaluate towers later.parquet",
    "retrieval publish": "debias retrieval publish towers published",
    "retrieval update": "debias retrieval update published new.parquet",
    "retrieval check": "debias retrieval check published",
    "retrieval rollback": "debias retrieval rollback published",
    "retrieval query": "debias retrieval query published --user u1 -k 5",
}
"""Examples by command, as typed after `debias`."""


def explain(app: typer.Typer, prefix: str = "") -> None:
    """Sets the help text, the example and the panel of each command of `app`.

    Args:
        app: Typer app whose commands are registered.
        prefix: Text that precedes each command name, such as "retrieval ".
    """
    panels = {name: panel for panel, names in PANELS.items() for name in names.split()}
    for each in app.registered_commands:
        name = str(each.name or getattr(each.callback, "__name__", ""))
        # Lines of a paragraph are joined, so they fit any terminal.
        paragraphs = (getdoc(each.callback) or "").split("\n\n")
        each.help = "\n\n".join(" ".join(text.split()) for text in paragraphs)
        if example := EXAMPLES.get(prefix + name):
            each.epilog = f"Example: {example}"
        if not prefix:
            each.rich_help_panel = panels.get(name)
