"""`debias`, or `python -m debias`: from a click log to a ranker without its bias."""

import typer

from debias.commands.demo import demo
from debias.commands.diagnose import diagnose
from debias.commands.evaluate import evaluate
from debias.commands.export import export
from debias.commands.importing import import_events
from debias.commands.inspect import inspect
from debias.commands.judge import judge
from debias.commands.plan import plan
from debias.commands.propensities import propensities
from debias.commands.rank import rank
from debias.commands.retrieval import app as retrieval
from debias.commands.screen import Version
from debias.commands.serve import serve
from debias.commands.start import quiet_start, stoppable
from debias.commands.train import train
from debias.commands.weights import weights

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="From a click log to a ranker without its bias.",
)
COMMANDS = (
    *(demo, inspect, diagnose, plan, propensities, judge, weights),
    *(train, evaluate, export, rank, serve),
)
for command in COMMANDS:
    app.command()(command)
app.command("import")(import_events)
app.add_typer(retrieval, name="retrieval")


@app.callback()
def start(context: typer.Context, version: Version = False) -> None:
    quiet_start()
    context.with_resource(stoppable())


if __name__ == "__main__":
    app(prog_name="python -m debias")
