"""Renders one chat template: a small program of its own, so that what comes with a checkpoint can be stopped.

stdin: a JSON object with `template` (Jinja source) and `variables`; stdout: one with `text`, or `error` (a sentence).
It is started by its path and imports nothing of this project, so that it starts in a tenth of a second.

A template is a stranger's program. Jinja's sandbox keeps it from Python's insides, but not from running for ever or
filling the memory. Here the system stops it, where it can limit processes, and lets it open no file and start nothing.
The settings, filters and functions are those of transformers' `render_jinja_template`.
"""

import encodings.unicode_escape  # noqa: F401 (Jinja and Python fetch these when they first need them: too late here)
import json
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any, NoReturn

import jinja2.debug  # noqa: F401
from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST = 4_000_000  # characters of a rendered text
MEMORY = 1 << 29  # bytes of address space
SECONDS = 5  # of computing


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks for training what a model wrote; here it is mere text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(template: str, variables: dict[str, Any]) -> str:
    """The text of a template. Raises TemplateError and, as a template is a program, nearly everything else."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    pieces, length = [], 0
    for piece in environment.from_string(template).generate(variables):
        length += len(piece)
        if length > LONGEST:
            raise TemplateError("it writes without end")
        pieces.append(piece)
    return "".join(pieces)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Unlike Jinja's own filter, this escapes nothing for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def limit() -> None:
    """Take from this process what rendering does not need, as far as the system knows such limits."""
    try:
        import resource
    except ImportError:  # Windows; the caller's clock remains
        return
    limits = {"AS": MEMORY, "CPU": SECONDS, "FSIZE": 0, "NOFILE": 3, "NPROC": 0, "CORE": 0}
    for name, most in limits.items():
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def main() -> None:
    """Read what is asked, and answer."""
    asked = json.loads(sys.stdin.buffer.read())
    limit()
    try:
        answer = {"text": render(asked["template"], asked["variables"])}
    except TemplateSyntaxError as error:
        answer = {"error": f"line {error.lineno}: {error.message}"}
    except TemplateError as error:
        answer = {"error": str(error.message or type(error).__name__)}
    except MemoryError:
        answer = {"error": "it takes too much memory"}
    except Exception as error:  # a template can raise whatever Python raises
        answer = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
