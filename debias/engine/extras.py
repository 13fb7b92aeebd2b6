"""Imports packages of the extras of this library."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any


def installed(module: str, extra: str) -> Any:
    """Imports a module that an extra of this library installs.

    Raises:
        ModuleNotFoundError: The module is not installed. The message names the extra.

    >>> installed("no_such_module", "trees")
    Traceback (most recent call last):
    ModuleNotFoundError: no_such_module is needed: pip install 'debias-ranking[trees]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is needed: pip install 'debias-ranking[{extra}]'"
        ) from error


def is_installed(module: str) -> bool:
    """Whether a module can be imported; the function does not import it.

    >>> is_installed("json"), is_installed("no_such_module")
    (True, False)
    """
    return find_spec(module) is not None
