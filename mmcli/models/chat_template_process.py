"""Renders one chat template: a small program of its own, so that what comes with a checkpoint can be stopped.

stdin: a JSON object with `template` (Jinja source) and `variables`; stdout: one with `text`, or `error` (a sentence).
It is started by its path and imports nothing of this project, so that it starts in a tenth of a second.

A template is a stranger's program. Jinja's sandbox keeps it from Python's insides, but not from running for ever or
filling the memory. Here the system stops it, where it can limit processes, and lets it open no file and start nothing.
The settings, filters and functions are those of transformers' `render_jinja_template`.
"""

import contextlib
import html  # noqa: F401 (Jinja, MarkupSafe and Python fetch these when they first need them, which is too late here)
import json
import pprint  # noqa: F401
import sys
import textwrap  # noqa: F401
import time
from datetime import datetime
from html import entities  # noqa: F401
from typing import Any, NoReturn

import jinja2.constants  # noqa: F401
import jinja2.debug  # noqa: F401
from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST = 1_000_000  # characters of a rendered text: some ten times what the model reads
LONGEST_ERROR = 300  # characters
MEMORY = 1 << 29  # bytes of address space
SECONDS = 2  # of computing

# What Python looks up by name when a template first asks for it.
for _codec in ("ascii", "latin-1", "unicode_escape", "utf-8", "utf-16", "utf-32", "idna", "punycode"):
    "".encode(_codec)
datetime.now().strftime("%A %B %c %x %X %p")


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
    limits = {"AS": MEMORY, "CPU": int(time.process_time()) + SECONDS, "FSIZE": 0, "NOFILE": 3, "NPROC": 0, "CORE": 0}
    for name, most in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def answer(asked: dict[str, Any]) -> dict[str, str]:
    """The text of a template, or what is wrong with it in a few words."""
    try:
        return {"text": render(asked["template"], asked["variables"])}
    except TemplateSyntaxError as error:
        words = f"line {error.lineno}: {error.message}"
    except TemplateError as error:
        words = str(error.message or type(error).__name__)
    except MemoryError:
        words = "it takes too much memory"
    except Exception as error:  # a template can raise whatever Python raises
        words = f"{type(error).__name__}: {error}"
    return {"error": words if len(words) <= LONGEST_ERROR else f"{words[:LONGEST_ERROR]}…"}


def main() -> None:
    """Read what is asked, and answer."""
    asked = json.loads(sys.stdin.buffer.read())
    limit()
    try:
        reply = json.dumps(answer(asked))
    except Exception as error:  # of a template's own error, whose words take too much
        reply = json.dumps({"error": f"it fails in more words than there is room for ({type(error).__name__})"})
    sys.stdout.write(reply)


if __name__ == "__main__":
    main()
