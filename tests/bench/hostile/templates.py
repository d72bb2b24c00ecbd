"""Chat templates without end, or that reach for what is not theirs or fail in odd ways, through `chat`."""

import random
import shutil
from pathlib import Path

from bench.hostile import checkpoints
from bench.hostile.command import command
from bench.hostile.damage import damage

SOUND = "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content[0].text }}{% endfor %}"

# Expressions, one a line. First what is without end, in time or in memory,
ENDLESS = r"""
10 ** (10 ** 10)
9 ** 9 ** 9
'a' * 10 ** 9
'a' * 10 ** 12
[0] * 10 ** 9
range(10 ** 9) | list
range(99999) | sum
'%999999999d' | format(1)
'{:>999999999}'.format(1)
'a'.ljust(10 ** 9)
'a'.center(10 ** 10)
'a' | center(10 ** 9)
('a' * 99999) | replace('a', 'b' * 99999)
'a'.join(['b' * 99999] * 99999)
('x ' * 999999) | wordwrap(1)
lipsum(n=10 ** 6)
lipsum(n=20, max=10 ** 8)
(range(99999) | list) | batch(1) | list | pprint
'a'.zfill(10 ** 9)
(1, 2) * 10 ** 9
'<a>' * 10 ** 7 | striptags
('a' * 10 ** 6) | urlize
2 ** 999999 | string
(2 ** 30) ** 9999999
'a'.expandtabs(10 ** 9)
'\t'.expandtabs(10 ** 9)
'ab' | indent(10 ** 9)
range(99999) | map('string') | join(',' * 99999)
(range(9999) | list) | permutations
dict(a='b' * 10 ** 8) | tojson
10 ** 5000 | tojson
1 / 0
0.1 ** -9999
"""
# then what reaches for things that are not a template's,
REACHING = r"""
''.__class__
''.__class__.__mro__[1].__subclasses__()
cycler.__init__.__globals__.os.popen('id').read()
'' | attr('__class__')
'' | attr('format')('{0.__class__}')
'{0.__class__.__init__.__globals__}'.format(cycler)
'{a.__class__}'.format_map({'a': 1})
namespace.__init__.__globals__
self.__init__.__globals__
self._TemplateReference__context
raise_exception.__globals__
strftime_now.__globals__
strftime_now.__closure__
messages.append(1)
messages[0].update({})
messages.clear()
[1].append(2)
joiner.__init__.__globals__['os']
lipsum.__globals__.os.environ
''.mro()
(''|attr('__class__'))|attr('__base__')
[''] | map(attribute='__class__') | list
[''] | groupby('__class__')
[''] | selectattr('__class__') | list
[''] | sort(attribute='__class__')
{'a': ''} | xmlattr
bos_token.__doc__
(messages | first).items.__self__
((x for x in []) | attr('gi_frame'))
caller.__closure__
loop.__init__
''.encode.__call__
"""
# then what ends in odd ways.
ODD = r"""
raise_exception('no ' * 10 ** 6)
raise_exception(messages)
raise_exception()
raise_exception('\x1b[2J\r\n\x00')
raise_exception(range)
raise_exception(('a' * 10 ** 9))
nothing.at.all
messages[99].role
undefined()
'\ud800'
'\x00\x1b]0;title\x07\u202e'
strftime_now('%' * 99999)
strftime_now(3)
strftime_now('%Y' * 10 ** 6)
none + 1
'a' + 1
'%s %s' % 'a'
'{}{}'.format(1)
{}[[]]
[][0]
'a' | int | abs | round(99)
1e999 | int
'nan' | float | int
messages | tojson(indent=10 ** 8)
messages | tojson(separators=3)
'a'.encode('idna')
'a'.encode('no such')
'a' | nofilter
'a' is notest
varargs
(1).to_bytes(10 ** 9, 'big')
'a'.translate({97: 'b' * 10 ** 7})
'é'.encode('utf-7')
"""
EXPRESSIONS = [line for line in (ENDLESS + REACHING + ODD).splitlines() if line]

# `{}` stands for the place of an expression.
BLOCKS = (
    "{{% for a in range(99999) %}}{{% for b in range(99999) %}}{}{{% endfor %}}{{% endfor %}}",
    "{{% for a in range(99999) %}}{{% for b in range(99999) %}}{{% set c = {} %}}{{% endfor %}}{{% endfor %}}",
    "{{% macro f(n) %}}{{{{ f(n) }}}}{{{{ {} }}}}{{% endmacro %}}{{{{ f(1) }}}}",
    "{{% macro f(n) %}}{{% if n %}}{{{{ f(n - 1) }}}}{{{{ f(n - 1) }}}}{{% endif %}}{{% endmacro %}}{{{{ f(60) }}}}{}",
    "{{% for a in messages recursive %}}{{{{ loop(messages) }}}}{{% endfor %}}{}",
    "{{% set n = namespace(x='a') %}}{{% for i in range(99) %}}{{% set n.x = n.x ~ n.x %}}{{% endfor %}}{{{{ {} }}}}",
    "{{% set n = namespace(x=1) %}}{{% for i in range(99) %}}{{% set n.x = [n.x, n.x] %}}{{% endfor %}}{{{{ n.x }}}}{}",
    "{{% include '/etc/passwd' %}}{}",
    "{{% import 'os' as os %}}{}",
    "{{% extends 'x' %}}{}",
    "{{% from 'x' import y %}}{}",
    "{{% set messages = {} %}}{{{{ messages }}}}",
    "{{% filter upper %}}{{{{ {} }}}}{{% endfilter %}}",
    "{{% raw %}}{}{{% endraw %}}",
    "{{% call(x) cycler({}) %}}{{% endcall %}}",
    "{{% block a %}}{{{{ self.a() }}}}{{% endblock %}}{}",
    "{{% generation %}}{{{{ {} }}}}",
    "{{% set a, b = {} %}}",
    "{{% if {} %}}a{{% else %}}b{{% endif %}}",
    "{{% for x in {} %}}{{{{ x }}}}{{% endfor %}}",
    "{{% break %}}{}",
    "{{% trans %}}{}{{% endtrans %}}",
    "{{% do messages.append(1) %}}{}",
    "{{% autoescape true %}}{{{{ {} }}}}{{% endautoescape %}}",
)
SHAPES = (
    "(" * 100_000,
    "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "{{ " + "-" * 200_000 + "1 }}",
    "{% if 1 %}" * 5000,
    "{{ 'a' }}" * 100_000,
    "{#" * 100_000,
    "{{ " + "[" * 90 + "]" * 90 + " }}",
    "{{ " + " + ".join(["1"] * 50_000) + " }}",
    "{{ a" + ".a" * 100_000 + " }}",
    "{{ 'a' " + "| upper" * 20_000 + " }}",
    "{% raw %}" + "a" * 900_000,
    "a" * 999_999,
    "a" * 1_000_001,
    "\0",
    "",
    "{{",
    "{%",
    "{{ '",
    "{% set x = " + "9" * 100_000 + " %}{{ x }}",
    "{% macro f(" + ",".join(f"a{i}" for i in range(5000)) + ") %}{% endmacro %}",
    "{% elif %}",
    "{{ 1 if }}",
    "{% for %}",
    "# line\n" * 100_000,
)


def prepare() -> None:
    """Write the one checkpoint that the templates are put into."""
    checkpoints.prepare("gemma3n-text")


def make(rng: random.Random, folder: Path) -> Path:
    """A Gemma 3n whose chat template is hostile."""
    model = folder / "model"
    shutil.copytree(checkpoints.base("gemma3n-text"), model)
    way = rng.random()
    if way < 0.5:
        source = "{{ " + rng.choice(EXPRESSIONS) + " }}"
    elif way < 0.8:
        source = rng.choice(BLOCKS).format(rng.choice(EXPRESSIONS))
    elif way < 0.9:
        source = rng.choice(SHAPES)
    else:
        source = damage(SOUND.encode(), rng).decode("utf-8", "replace")
    if rng.random() < 0.3:
        source = SOUND + source
    (model / "chat_template.jinja").write_text(source, "utf-8", "replace")
    return model


def exercise(model: Path) -> str:
    """Ask it something."""
    return command("chat", "-m", "Who?", "--max-tokens", "4", "--model", model)
