"""What a command line gives, taken as it is where there is nothing to convert.

Newer versions of Typer have pydantic convert every value, text and what is not given too. Importing that takes longer
than all that comes before a command.
"""

import inspect
from collections.abc import Callable
from functools import partial
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

_TEXT = ({str}, {str, NoneType}, {list[str]}, {list[str], NoneType})


def leave_alone(params: list[Any], function: Callable | None) -> None:
    """Have those of a command's `params` left alone that are text in the signature of its `function`, or not given."""
    signature = inspect.signature(function).parameters if function else {}
    for param in params:
        known = signature.get(param.name)
        text = known is not None and _is_text(known.annotation)
        param.process_value = partial(_processed, param, param.process_value, text)


def _is_text(annotation: Any) -> bool:
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    parts = {plain} if isinstance(plain, type) or get_origin(plain) is list else set(get_args(plain))
    return parts in _TEXT


def _processed(param: Any, convert: Callable, text: bool, ctx: Any, value: Any) -> Any:
    """What Typer's `process_value` gives, which is `convert`, without calling it where it changes nothing."""
    several = param.multiple or param.nargs == -1
    source = ctx.get_parameter_source(param.name)
    given = value is not None and (source is None or source.name != "DEFAULT")
    if (given and not text) or (param.required and param.value_is_missing(value)):
        return convert(ctx, value)
    if several:
        value = list(value or ())
    return param.callback(ctx, param, value) if param.callback else value
