"""`debias serve`: retrieval and ranking over HTTP."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from debias.commands import inputs
from debias.commands.screen import FAILED
from debias.commands.start import quiet_start

if TYPE_CHECKING:
    from debias.serve.running import Tls

_access = partial(typer.Option, rich_help_panel="Who may connect")


class Access(NamedTuple):
    """Who reaches the service, under which name, and with what certificate."""

    host: str
    names: list[str]
    token: str | None
    certfile: Path | None
    keyfile: Path | None
    ca_certs: Path | None

    @staticmethod
    def of(
        host: Annotated[
            str, _access(help="Address to listen on; by default this machine only.")
        ] = "127.0.0.1",
        allow_host: Annotated[
            list[str] | None,
            _access(
                help="Name by which clients reach the service, beside --host; may be "
                "repeated. '*' for any."
            ),
        ] = None,
        token_file: Annotated[
            Path | None,
            _access(
                help="File that holds a bearer token. All paths but /live and /ready "
                "ask for it. Or set the variable DEBIAS_TOKEN."
            ),
        ] = None,
        ssl_certfile: Annotated[
            Path | None, _access(help="Certificate in PEM: serves HTTPS.")
        ] = None,
        ssl_keyfile: Annotated[
            Path | None, _access(help="Its key, unless that is in the same file.")
        ] = None,
        ssl_ca_certs: Annotated[
            Path | None,
            _access(help="PEM; clients must show a certificate signed by these."),
        ] = None,
    ) -> "Access":
        """What the options say.

        Raises:
            ValueError: The token is none.
        """
        token = _token(token_file, os.environ.get("DEBIAS_TOKEN"))
        files = ssl_certfile, ssl_keyfile, ssl_ca_certs
        return Access(host, list(allow_host or ()), token, *files)

    def tls(self) -> "Tls":
        """The certificate, as the service takes it; the password is a variable."""
        from debias.serve.running import Tls

        password = os.environ.get("DEBIAS_SSL_KEYFILE_PASSWORD")
        return Tls(self.certfile, self.keyfile, password, self.ca_certs)


@inputs.options(access=Access.of)
def serve(
    versions: Annotated[
        str,
        typer.Argument(
            help="Folder of published versions, or a URL of s3:// or gs://; new ones "
            "are taken over as they come. Or a ranker: a folder of debias train, or "
            "what debias export wrote."
        ),
    ],
    access: Access,
    ranker: Annotated[
        Path | None,
        typer.Option(
            help="A ranker, to answer /rank and /recommend of versions that hold none; "
            ".onnx loads fastest."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[
        int,
        typer.Option(min=1, help="Processes, which share the memory of a version."),
    ] = 1,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of each that compute answers.")
    ] = 4,
    body: Annotated[
        float, typer.Option(min=0.001, help="Largest request, in megabytes.")
    ] = 4.0,
    seconds: Annotated[float, typer.Option(min=0.01, help="Longest request.")] = 2.0,
    access_log: Annotated[
        str | None,
        typer.Option(
            help="File that gets a line of JSON for each request; - standard output."
        ),
    ] = None,
) -> None:
    """Answers POST /retrieve and, with a ranker, POST /rank and /recommend.

    A ranker alone answers POST /rank. POST /explain says why an item is among the
    answers. A page to try it is at /, the interface described at /docs, counters for
    Prometheus at /metrics, what is served at /health; /live and /ready are for probes.
    A worker that dies is started again on the last good version. The password of an
    encrypted key is read from DEBIAS_SSL_KEYFILE_PASSWORD.
    """
    for option, value in (("--body", body), ("--seconds", seconds)):
        if not value < 1e6:  # NaN is not, and passes the check for the least
            raise ValueError(f"{option} must be below 1,000,000, got {value}")
    running = _running()
    from debias.serve.guards import hosts_of

    hosts = hosts_of(access.host, access.names)
    alone = _is_ranker(Path(versions))
    if alone and ranker is not None:
        raise ValueError(f"--ranker: {versions} is a ranker already; give one of them")
    application = running.Application(
        None if alone else versions,
        Path(versions) if alone else ranker,
        int(body * 1e6),
        seconds,
        threads,
        hosts,
        access.token,
        quiet_start,
    )
    if access_log not in (None, "-"):
        Path(access_log).open("a").close()  # says now that it cannot be written
    served = running.run(
        application, access.host, port, workers, access.tls(), access_log
    )
    if not served:
        raise typer.Exit(FAILED)


def _is_ranker(path: Path) -> bool:
    """Whether a folder of debias train, or an export, is there."""
    if path.suffix in (".onnx", ".keras", ".trees"):
        return path.is_file()
    trained = (path / "train.json").exists() and not (path / "learner").exists()
    return trained or (path / "saved_model.pb").exists()


def _running() -> Any:
    """The module that serves, where what it needs is installed."""
    try:
        from debias.serve import running
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is needed: pip install 'debias-ranking[serve]'"
        ) from error
    return running


def _token(file: Path | None, variable: str | None) -> str | None:
    """The token of a file, else of the variable; None where neither is given."""
    if file is None and variable is None:
        return None
    where = "DEBIAS_TOKEN" if file is None else str(file)
    text = variable or "" if file is None else file.read_text("utf-8", "replace")
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{where}: must hold a token of printable ASCII without blanks"
        )
    return token
