"""What a command line gives, taken as it is where there is nothing to convert.

Newer versions of Typer have pydantic convert every value, text and what is not given too. Importing that takes longer
than all that comes before a command.
"""

import inspect
import re
from collections.abc import Callable
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

# In the word that stands for a value, what must have a name. A path of no letters would be the folder one is in.
_NAMED = {"ADAPTER", "DATA", "FILE", "FOLDER", "HOST", "LABEL", "LIST", "MODEL"}
_NAMED |= {"NAME", "PATH", "REPO", "RESULTS", "REV"}
_TEXT = ({str}, {str, NoneType}, {list[str]}, {list[str], NoneType})


def leave_alone(params: list[Any], function: Callable | None) -> None:
    """Have those of a command's `params` left alone that are text in the signature of its `function`, or not given."""
    signature = inspect.signature(function).parameters if function else {}
    for param in params:
        known = signature.get(param.name)
        parts = _parts(known.annotation) if known else set()
        param.process_value = partial(_processed, param, param.process_value, parts)


def _parts(annotation: Any) -> set[Any]:
    """The types of a union, or the one that is no union; none where a parser of ours makes the value."""
    plain, *settings = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if any(getattr(setting, "parser", None) for setting in settings):
        return set()
    return set(get_args(plain)) if get_origin(plain) in (Union, UnionType) else {plain}


def _fault(parts: set[Any], value: Any) -> str | None:
    """What is wrong with a text that should be a number or one of several words; None where that is not known."""
    [kind, *others] = parts - {NoneType} or {str}
    if others or not isinstance(value, str):
        return None
    if get_origin(kind) is Literal:
        return f"{value!r} is none of {', '.join(map(str, get_args(kind)))}."
    if kind not in (int, float):
        return None
    try:
        kind(value)
    except ValueError:
        return f"{value!r} is no {'whole number' if kind is int else 'number'}."
    return None


def _convert(param: Any, convert: Callable, parts: set[Any], ctx: Any, value: Any) -> Any:
    """The converted value. A text that cannot be converted is told in the same words by each version of Typer."""
    try:
        return convert(ctx, value)
    except typer.BadParameter as error:
        fault = _fault(parts, value)
        if fault is None:
            raise
        raise typer.BadParameter(fault, ctx=ctx, param=param) from error


def _processed(param: Any, convert: Callable, parts: set[Any], ctx: Any, value: Any) -> Any:
    """What Typer's `process_value` gives, which is `convert`, without calling it where it changes nothing."""
    several = param.multiple or param.nargs == -1
    source = ctx.get_parameter_source(param.name)
    given = value is not None and (source is None or source.name != "DEFAULT")
    if given and "" in (value if several else [value]) and _NAMED & set(re.findall(r"\w+", param.metavar or "")):
        raise typer.BadParameter("it is empty; look for an unset variable on the command line.", ctx=ctx, param=param)
    if (given and parts not in _TEXT) or (param.required and param.value_is_missing(value)):
        return _convert(param, convert, parts, ctx, value)
    if several:
        value = list(value or ())
    return param.callback(ctx, param, value) if param.callback else value
