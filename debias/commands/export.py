"""`debias export`: writes a trained ranker in a serving format."""

from pathlib import Path
from typing import Annotated

import typer

from debias.commands.evaluate import Folder
from debias.commands.inputs import Force, options
from debias.commands.places import check_free
from debias.commands.screen import AsJson, print_json, say, waiting


@options()
def export(
    folder: Folder,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Output path. A Keras ranker is written to NAME.keras, NAME.onnx or "
            "a SavedModel folder. A tree ranker is written to NAME.onnx, NAME.txt or "
            "NAME.json; `debias distill` makes a tree ranker of a Keras ranker.",
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            help="Format of a Keras ranker: keras, saved_model or onnx. Format of a "
            "tree ranker: onnx, lightgbm, xgboost, or ltr (for search engines). The "
            "default depends on the extension of the output path."
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="For ONNX only: use one named input per feature, with categories as "
            "text.",
        ),
    ] = False,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Exports a ranker, which scores the items of a list of any length."""
    from debias.artifacts import RANKED, TREES, ranker_of, report_of
    from debias.models.export import export as write
    from debias.models.export import format_of
    from debias.models.tree_exports import tree_format

    report = report_of(folder, RANKED)
    if out.is_file() or (out / "saved_model.pb").exists():
        check_free(out, force)
    ranker = ranker_of(folder)
    with waiting("exporting"):
        made = write(
            ranker,
            out,
            format,  # type: ignore[arg-type]
            features=report["features"],
            raw=raw,
            overwrite=force,
        )
    named = tree_format if (folder / TREES).exists() else format_of
    format = format or named(out)
    found = {"path": str(made), "format": format, "features": report["features"]}
    if json:
        print_json(found)
    else:
        say(f"{report['model']} written to {made} ({format})")
