"""Operators of PyTorch that are not public: another version or build may lack them, or have others of the same name."""

from collections.abc import Callable

from mmcli.errors import raise_if_interrupted


def succeeds(trial: Callable[[], bool]) -> bool:
    """What `trial` finds out with such an operator: False where there is none that takes what it is given."""
    try:
        return trial()
    except (RuntimeError, AttributeError, TypeError) as error:
        raise_if_interrupted(error)
        return False
