"""`debias`, or `python -m debias`: trains rankers on clicks, without position bias."""

import typer

from debias.commands.demo import demo
from debias.commands.diagnose import diagnose
from debias.commands.distill import distill
from debias.commands.evaluate import evaluate
from debias.commands.examples import explain
from debias.commands.export import export
from debias.commands.importing import import_events
from debias.commands.inspect import inspect
from debias.commands.judge import judge
from debias.commands.plan import plan
from debias.commands.propensities import propensities
from debias.commands.rank import rank
from debias.commands.retrieval import app as retrieval
from debias.commands.screen import Version, loading
from debias.commands.serve import serve
from debias.commands.start import quiet_start, stoppable
from debias.commands.train import train
from debias.commands.weights import weights

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Trains rankers on click logs and removes position bias.",
    epilog="Begin with: debias demo",
)
COMMANDS = (
    *(demo, inspect, diagnose, plan, train, evaluate, rank, distill, export),
    *(propensities, judge, weights, serve),
)
for command in COMMANDS:
    app.command()(command)
app.command("import")(import_events)
app.add_typer(retrieval, name="retrieval", rich_help_panel="Serve")
explain(app)
explain(retrieval, "retrieval ")


@app.callback()
def start(context: typer.Context, version: Version = False) -> None:
    quiet_start(loading)
    context.with_resource(stoppable())


if __name__ == "__main__":
    app(prog_name="python -m debias")
