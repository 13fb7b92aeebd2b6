"""`debias export`: the ranker of a trained folder in a format to serve."""

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from debias.commands.screen import AsJson, messages, print_json

Trained = Annotated[Path, typer.Argument(help="Folder that `debias train` wrote.")]


def export(
    folder: Trained,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="NAME.keras, NAME.onnx or a folder.")
    ],
    format: Annotated[
        str | None,
        typer.Option(help="keras, saved_model or onnx; by default as the name ends."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Writes the relevance-only model: features in, scores out, for any list length."""
    with messages():
        report = report_of(folder)
        from debias.models.export import export as write
        from debias.models.export import format_of

        made = write(
            ranker_of(folder),
            out,
            format,  # type: ignore[arg-type]
            features=report["features"],
            overwrite=force,
        )
        format = format or format_of(out)
    if json:
        print_json(
            {"path": str(made), "format": format, "features": report["features"]}
        )
    else:
        typer.echo(f"{report['model']} written to {made} ({format})")


def report_of(folder: Path) -> dict[str, Any]:
    """The report of a trained folder.

    Raises:
        ValueError: The folder is none, or its training did not finish.
    """
    path = folder / "report.json"
    if not path.exists():
        begun = (folder / "train.json").exists()
        raise ValueError(
            f"{folder}: "
            + (
                "the training did not finish; give its command again"
                if begun
                else "is no folder that debias train wrote"
            )
        )
    return json_.loads(path.read_text(encoding="utf-8"))


def ranker_of(folder: Path) -> Any:
    """The ranker of a trained folder."""
    import keras

    import debias.layers
    import debias.models  # noqa: F401  registers what the file holds

    return keras.models.load_model(folder / "ranker.keras")
