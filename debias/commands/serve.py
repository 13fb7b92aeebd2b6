"""`debias serve`: retrieval and ranking over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from debias.commands.screen import messages


def serve(
    versions: Annotated[
        Path,
        typer.Argument(
            help="Folder of published versions; new ones are taken over as they come."
        ),
    ],
    ranker: Annotated[
        Path | None,
        typer.Option(
            help="What `debias export` wrote, to answer /rank; .onnx loads fastest."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    body: Annotated[
        float, typer.Option(min=0.001, help="Largest request, in megabytes.")
    ] = 4.0,
    seconds: Annotated[float, typer.Option(min=0.01, help="Longest request.")] = 2.0,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads that compute answers.")
    ] = 4,
) -> None:
    """Answers POST /retrieve and, with --ranker, POST /rank; a page to try it is at /.

    Also /health, /metrics for Prometheus, and the interface described at /docs. There
    is no authentication: give another --host only behind something that has.
    """
    with messages():
        for option, value in (("--body", body), ("--seconds", seconds)):
            if not value < 1e6:  # NaN is not, and passes the check for the least
                raise ValueError(f"{option} must be below 1,000,000, got {value}")
        try:
            import uvicorn

            from debias.serve.app import service
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error.name} is needed: pip install 'debias-ranking[serve]'"
            ) from error
        from debias.artifacts import open_scorer

        scorer = None if ranker is None else open_scorer(ranker)
        app = service(
            versions, scorer, body=int(body * 1e6), seconds=seconds, threads=threads
        )
        uvicorn.run(app, host=host, port=port, access_log=False, ws="none")
