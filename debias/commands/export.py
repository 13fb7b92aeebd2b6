"""`debias export`: the ranker of a trained folder in a format to serve."""

from pathlib import Path
from typing import Annotated

import typer

from debias.commands.evaluate import Folder
from debias.commands.inputs import Force, options
from debias.commands.screen import AsJson, print_json, say


@options()
def export(
    folder: Folder,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="NAME.keras, NAME.onnx or a folder.")
    ],
    format: Annotated[
        str | None,
        typer.Option(help="keras, saved_model or onnx; by default as the name ends."),
    ] = None,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Writes the relevance-only model: features in, scores out, for any list length."""
    from debias.artifacts import RANKED, load_keras, report_of
    from debias.models.export import export as write
    from debias.models.export import format_of

    report = report_of(folder, RANKED)
    made = write(
        load_keras(folder / "ranker.keras"),
        out,
        format,  # type: ignore[arg-type]
        features=report["features"],
        overwrite=force,
    )
    format = format or format_of(out)
    found = {"path": str(made), "format": format, "features": report["features"]}
    if json:
        print_json(found)
    else:
        say(f"{report['model']} written to {made} ({format})")
