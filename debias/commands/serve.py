"""`debias serve`: retrieval and ranking over HTTP."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from debias.commands import inputs
from debias.commands.mirror import fetched
from debias.commands.screen import FAILED
from debias.commands.start import quiet_start

if TYPE_CHECKING:
    from debias.serve.running import Tls

RANKERS = (".onnx", ".keras", ".trees")  # suffixes of files with a ranker

_access = partial(typer.Option, rich_help_panel="Who may connect")


class Access(NamedTuple):
    """Access to the service: host names, token and certificate."""

    host: str
    names: list[str]
    token: str | None
    certfile: Path | None
    keyfile: Path | None
    ca_certs: Path | None

    @staticmethod
    def of(
        host: Annotated[
            str,
            _access(
                help="Address to listen on. The default accepts only "
                "connections from this machine."
            ),
        ] = "127.0.0.1",
        allow_host: Annotated[
            list[str] | None,
            _access(
                help="Host name that clients may use in addition to --host. May be "
                "repeated. '*' allows any host name."
            ),
        ] = None,
        token_file: Annotated[
            Path | None,
            _access(
                help="File with a bearer token. All paths except /live and /ready "
                "then require this token. The environment variable DEBIAS_TOKEN can "
                "hold the token instead."
            ),
        ] = None,
        ssl_certfile: Annotated[
            Path | None, _access(help="PEM file with the certificate, for HTTPS.")
        ] = None,
        ssl_keyfile: Annotated[
            Path | None,
            _access(
                help="PEM file with the private key, if the certificate file does not "
                "contain it."
            ),
        ] = None,
        ssl_ca_certs: Annotated[
            Path | None,
            _access(
                help="PEM file with CA certificates. Clients must present a "
                "certificate that one of these CAs signed."
            ),
        ] = None,
    ) -> "Access":
        """Reads the options.

        Raises:
            ValueError: The token is invalid.
        """
        token = _token(token_file, os.environ.get("DEBIAS_TOKEN"))
        files = ssl_certfile, ssl_keyfile, ssl_ca_certs
        return Access(host, list(allow_host or ()), token, *files)

    def tls(self) -> "Tls":
        """TLS settings, with the key's password from DEBIAS_SSL_KEYFILE_PASSWORD."""
        from debias.serve.running import Tls

        password = os.environ.get("DEBIAS_SSL_KEYFILE_PASSWORD")
        return Tls(self.certfile, self.keyfile, password, self.ca_certs)


@inputs.options(access=Access.of)
def serve(
    versions: Annotated[
        str,
        typer.Argument(
            help="Published versions or a ranker: a folder, a file, or an s3:// or "
            "gs:// URL. A ranker is the output of `debias train` or `debias export`. "
            "The service switches to new versions by itself."
        ),
    ],
    access: Access,
    ranker: Annotated[
        Path | None,
        typer.Option(
            help="Ranker that answers /rank and /recommend, for versions that contain "
            "no ranker. An .onnx file loads fastest."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of worker processes, which share the memory of a version.",
        ),
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of threads that compute answers, per process. The default is "
            "the number of cores, but at most 4.",
        ),
    ] = None,
    body: Annotated[
        float, typer.Option(min=0.001, help="Largest request body, in megabytes.")
    ] = 4.0,
    seconds: Annotated[
        float,
        typer.Option(min=0.01, help="Time limit of a request, in seconds."),
    ] = 2.0,
    access_log: Annotated[
        str | None,
        typer.Option(
            help="File that gets one line of JSON per request. Use - for standard "
            "output."
        ),
    ] = None,
) -> None:
    """Serves retrieval over HTTP, and also ranking if there is a ranker.

    Published versions answer POST /retrieve. Versions with a ranker also answer POST
    /rank and /recommend. A ranker without versions answers only POST /rank. POST
    /explain says why an item was returned. The path / is a page to try the service, and
    /docs documents the interface. /metrics has counters for Prometheus, and /health
    gives the served version. /live and /ready are liveness and readiness probes. If a
    worker dies, the service restarts it on the last good version. The environment
    variable DEBIAS_SSL_KEYFILE_PASSWORD holds the password of an encrypted key.
    """
    for option, value in (("--body", body), ("--seconds", seconds)):
        if not value < 1e6:  # NaN fails here, although it passes the lower bound
            raise ValueError(f"{option} must be below 1,000,000, got {value}")
    from debias.engine.extras import installed

    running = installed("debias.serve.running", "serve")
    from debias.serve.guards import hosts_of

    hosts = hosts_of(access.host, access.names)
    alone = _ranker(versions)
    if alone is not None and ranker is not None:
        raise ValueError(f"--ranker: {versions} is a ranker itself; leave out --ranker")
    application = running.Application(
        versions if alone is None else None,
        alone or ranker,
        int(body * 1e6),
        seconds,
        threads or min(4, os.cpu_count() or 1),
        hosts,
        access.token,
        quiet_start,
    )
    if access_log not in (None, "-"):
        Path(access_log).open("a").close()  # fails now if it is not writable
    served = running.run(
        application, access.host, port, workers, access.tls(), access_log
    )
    if not served:
        raise typer.Exit(FAILED)


def _ranker(path: str) -> Path | None:
    """The path of a ranker: a folder of debias train, or an export.

    None if the path holds no ranker. A ranker in an object store is fetched.

    Raises:
        ValueError: The path has the ending of an export, and does not exist.
    """
    from debias.data.stores import located, store_url

    place = located(path)
    if place.suffix in RANKERS:
        found = place.is_file()
    else:
        names = {each.name for each in place.iterdir()} if place.is_dir() else set()
        trained = "train.json" in names and "learner" not in names
        found = trained or "saved_model.pb" in names
    url = store_url(path)
    if not found:
        if place.suffix in RANKERS and not place.exists():
            raise ValueError(f"{path}: does not exist; debias export writes rankers")
        return None
    return Path(path) if url is None else fetched(url)


def _token(file: Path | None, variable: str | None) -> str | None:
    """The token from the file, or else from the variable, or None."""
    if file is None and variable is None:
        return None
    where = "DEBIAS_TOKEN" if file is None else str(file)
    if file is not None and not file.is_file():
        raise ValueError(f"--token-file {file}: does not exist, or is not a file")
    text = variable or "" if file is None else file.read_text("utf-8", "replace")
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{where}: must hold a token of printable ASCII without blanks"
        )
    return token
