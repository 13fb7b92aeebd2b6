"""The folder of a resumable run, with the options and the final report."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from debias.commands.places import check_writable

OURS = (  # patterns of names
    "train.json",
    "checkpoint*.npz",  # of each start
    "candidates",
    "passes",
    "losses.json",
    "trials",
    "choice.json",
    "learner",
    "model.keras",  # of earlier versions
    "ranker.keras",
    "ranker.trees",
    "report.json",
)


def finished(
    folder: Path,
    asked: dict[str, Any],
    force: bool,
    keys: tuple[str, ...] = ("model",),
) -> dict[str, Any] | None:
    """The report of a finished run; None if the run is new or incomplete.

    Raises:
        ValueError: The folder is read-only, it holds another run or other files, or the
            report lacks one of `keys`.
    """
    from debias.artifacts import plan_of, report_of
    from debias.data.records import plain

    plan = folder / "train.json"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; choose another name for the folder")
    strange = sorted({*folder.glob("*")}.difference(*map(folder.glob, OURS)))
    if strange and not plan.exists():
        raise ValueError(f"{folder}: holds {strange[0].name}; choose a new folder")
    if force or not plan.exists():
        check_writable(plan)
        return None
    there = plan_of(folder, ("model",))
    if there["model"] == asked["model"]:  # other models have other options
        there = plan_of(folder, tuple(asked))
    if there != plain(asked):
        raise ValueError(
            f"{folder}: holds another run, with {_difference(there, plain(asked))}; "
            "choose a new folder or --force"
        )
    return report_of(folder, keys) if (folder / "report.json").exists() else None


@contextmanager
def started(folder: Path, asked: dict[str, Any], force: bool) -> Iterator[None]:
    """Context manager that locks the folder of a run for this process.

    An interrupted run with the same options resumes. The options are written to the
    file `train.json` of the folder. `force` first removes the files of another run. A
    run that fails with a ValueError before its first checkpoint leaves the folder free,
    or removes the folder if it was new.

    Raises:
        ValueError: Another process trains in the folder.
    """
    from debias.data.files import alone

    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        _start(folder, asked, force)
        try:
            yield
        except ValueError:  # the options were refused
            plan = folder / "train.json"
            if [*folder.iterdir()] == [plan]:  # there is nothing to resume
                plan.unlink()
                if new:
                    folder.rmdir()
            raise


def _start(folder: Path, asked: dict[str, Any], force: bool) -> None:
    from debias.data.records import plain, read_record, write_record

    plan, report = folder / "train.json", folder / "report.json"
    try:
        same = plan.exists() and read_record(plan, ()) == plain(asked)
    except ValueError:  # a damaged plan is replaced if forced
        same = False
    if force and not (same and not report.exists()):
        for name in reversed(OURS):  # the report first: without it, a run is unfinished
            for path in folder.glob(name):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_record(plan, asked)


def _difference(there: Any, here: Any, name: str = "") -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}, key=lambda key: (key != "model", key)):
            if there.get(key) != here.get(key):
                if name == "contents":
                    return f"different contents of the {key}"
                return _difference(there.get(key), here.get(key), key)
    return f"{name} {there} where this has {here}"


def peak_memory() -> float:
    """Peak memory of this process in GB, or nan if unknown."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, `getrusage` also counts the parent process
        found = status.read_text(encoding="ascii").split("VmHWM:")
        return int(found[1].split()[0]) * 1024 / 1e9
    if os.name == "nt":
        return float("nan")
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
