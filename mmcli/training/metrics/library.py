"""The libraries by which answers are measured, which are an extra."""

from importlib import import_module
from types import ModuleType

from mmcli.errors import UsageError

EXTRA = "mmcli[evaluate]"


def library(name: str, what: str) -> ModuleType:
    """A library that measures `what`. Raises UsageError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        do = f"Install what it takes with: pip install '{EXTRA}'"
        raise UsageError(f"{what} is measured by {name.partition('.')[0]}, which is not installed", do) from error
