"""`debias`, or `python -m debias`: from a click log to a ranker without its bias."""

import logging
import os

import typer

from debias.commands.diagnose import diagnose
from debias.commands.evaluate import evaluate
from debias.commands.export import export
from debias.commands.inspect import inspect
from debias.commands.rank import rank
from debias.commands.retrieval import app as retrieval
from debias.commands.serve import serve
from debias.commands.train import train

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is loaded
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it retraces, and says so

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="From a click log to a ranker without its bias.",
)
for command in (inspect, diagnose, train, evaluate, export, rank, serve):
    app.command()(command)
app.add_typer(retrieval, name="retrieval")


if __name__ == "__main__":
    app(prog_name="python -m debias")
