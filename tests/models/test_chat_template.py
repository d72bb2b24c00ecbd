"""Chat templates: where they are found, what they may do, and how hostile ones end."""

import json
import sys
from functools import partial

import gemma3n_folders
import pytest
from jinja2.defaults import DEFAULT_FILTERS

from mmcli.errors import ModelError
from mmcli.models import chat_template as templates
from mmcli.models.chat_template import ChatTemplate, find_template
from mmcli.models.gemma3n.layout import own_layout

PLACEHOLDERS = {"image": "<image_soft_token>", "audio": "<audio_soft_token>"}


def words(text: str) -> dict:
    return {"type": "text", "text": text}


IMAGE, AUDIO = {"type": "image"}, {"type": "audio"}
CONVERSATIONS = [
    [("user", [words(" hello  world ")])],
    [("system", [words("be kind ")]), ("user", [IMAGE, words("what is it?")])],
    [("user", [IMAGE, words("\n left "), IMAGE, AUDIO, words("right")]), ("assistant", [words("a mat\n")]),
     ("user", [words("who speaks?"), AUDIO]), ("assistant", [words("you")]), ("user", [words("")])],
    [("system", [words("be kind")]), ("user", [words("a")]), ("assistant", [words("b")]), ("user", [words("c")])],
]  # fmt: skip


def messages(conversation) -> list[dict]:
    return [{"role": role, "content": content} for role, content in conversation]


def text(source: str, *turns: dict, path="chat_template.jinja", **tokens: str) -> str:
    layout = partial(own_layout, begin="<bos>", placeholders=PLACEHOLDERS)
    template = ChatTemplate(path, source, {"bos_token": "<bos>"} | tokens, "<bos>", layout)
    return template.text(list(turns) or messages(CONVERSATIONS[0]))


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_the_own_layout_is_that_of_the_published_template(conversation):
    expected = text(gemma3n_folders.TEMPLATE, *messages(conversation))
    assert text(None, *messages(conversation)) == expected


@pytest.mark.parametrize("roles", [["assistant"], ["user", "user"], ["user", "assistant", "assistant"]])
@pytest.mark.parametrize("source", [gemma3n_folders.TEMPLATE, None])
def test_turns_that_do_not_alternate_are_refused(source, roles):
    with pytest.raises(ModelError, match="take turns"):
        text(source, *messages((role, [words("x")]) for role in roles))


def test_a_text_always_begins_with_the_token_for_it():
    assert text("{{ messages[0].role }}") == "<bos>user"
    assert text("{{ bos_token }}{{ eos_token }}", eos_token="<eos>") == "<bos><eos>"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a\n{% if true %}\n  {% set x = 1 %}\nb\n{% endif %}", "a\nb\n"),  # trim_blocks and lstrip_blocks
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% generation %}said{% endgeneration %}!", "said!"),
        ("{{ {'<': 'ä'} | tojson }}", '{"<": "ä"}'),  # not escaped for HTML
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% set n = namespace(x=1) %}{% for i in [2] %}{% set n.x = i %}{% endfor %}{{ n.x }}", "2"),
        ("{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }}", "True True True"),
        ("{{ messages[0].content[0].text }}", " hello  world "),
    ],
)
def test_templates_find_what_transformers_gives_them(source, expected):
    assert text(source) == "<bos>" + expected


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{{ raise_exception('no pictures, please') }}", "no pictures, please"),
        ("{% if %}", "line 1"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),  # the conversation is not a template's to change
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}aaaa{% endfor %}{% endfor %}", "without end"),
        ("{{ 'a' * 10 ** 11 }}", "too much memory"),
        ("{{ '%99999999999d' | format(1) }}", "too much memory"),
        ("{{ range(1000000000) | list }}", "Range too big"),
    ],
)
def test_a_template_that_fails_is_one_sentence(source, complaint):
    if "memory" in complaint and sys.platform != "linux":
        pytest.skip("this system limits no process's memory")
    with pytest.raises(ModelError) as error:
        text(source)
    assert error.value.what.startswith("The chat template in chat_template.jinja cannot lay out this conversation: ")
    assert complaint in error.value.what and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 10 ** (10 ** 10) }}",  # one step, which no clock between steps would end
    ],
)
def test_a_template_that_computes_for_ever_is_stopped(source, monkeypatch):
    monkeypatch.setattr(templates, "PATIENCE", 1)
    with pytest.raises(ModelError, match="come to an end|had to be stopped"):
        text(source)


def test_the_same_words_are_laid_out_once():
    before = templates._rendered.cache_info().hits
    assert text("once {{ messages | length }}") == text("once {{ messages | length }}")
    assert templates._rendered.cache_info().hits == before + 1


def test_typed_text_is_no_template():
    turn = {"role": "user", "content": [words("{{ 7 * 7 }} {% raw %} \udc80 \"'\\")]}
    assert text("{{ messages[0].content[0].text }}", turn) == "<bos>{{ 7 * 7 }} {% raw %} \udc80 \"'\\"


def test_texts_that_begin_with_no_token_get_none():
    template = ChatTemplate("chat_template.jinja", "{{ messages[0].role }}{{ bos_token is defined }}", {})
    assert template.text(messages(CONVERSATIONS[0])) == "userFalse"


def test_without_a_template_and_a_layout_no_conversation_can_be_laid_out(tmp_path):
    with pytest.raises(ModelError, match="has no chat template"):
        ChatTemplate.open(tmp_path).text(messages(CONVERSATIONS[0]))


# -- where templates stand ---------------------------------------------------------------------------------------

NAMED = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"chat_template.jinja": "yes"}, "chat_template.jinja"),
        ({"chat_template.json": {"chat_template": "yes"}}, "chat_template.json"),
        ({"tokenizer_config.json": {"chat_template": "yes"}}, "tokenizer_config.json"),
        ({"tokenizer_config.json": {"chat_template": NAMED}}, "tokenizer_config.json"),
        ({"processor_config.json": {"chat_template": {"default": "yes", "other": "no"}}}, "processor_config.json"),
        # The order in which transformers' processor looks; the tokenizer's own is the last resort.
        ({"processor_config.json": {"chat_template": "yes"}, "chat_template.jinja": "no"}, "processor_config.json"),
        ({"chat_template.json": {"chat_template": "yes"}, "chat_template.jinja": "no"}, "chat_template.json"),
        ({"chat_template.jinja": "yes", "tokenizer_config.json": {"chat_template": "no"}}, "chat_template.jinja"),
        ({"processor_config.json": {}, "chat_template.jinja": "yes"}, "chat_template.jinja"),
    ],
)
def test_templates_are_found_where_transformers_finds_them(tmp_path, files, found):
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert find_template(tmp_path) == (tmp_path / found, "yes")


@pytest.mark.parametrize("files", [{}, {"tokenizer_config.json": {"chat_template": [{"name": "tools"}]}}])
def test_without_a_template_there_is_none(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert find_template(tmp_path)[1] is None


def test_a_template_that_is_no_text_is_a_model_error(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="chat_template.jinja cannot be read"):
        find_template(tmp_path)


# Filters with arguments, or for something else than a text; all others are given one.
FILTERS = {
    "attr": "'a' | attr('x')", "batch": "[1] | batch(2) | list", "dictsort": "{'b': 1} | dictsort", "sum": "[1] | sum",
    "format": "'%d' | format(1)", "groupby": "[{'a': 1}] | groupby('a')", "items": "{'b': 1} | items | list",
    "map": "['a'] | map('upper') | list", "max": "[1] | max", "min": "[1] | min", "abs": "-1 | abs",
    "replace": "'a' | replace('a', 'b')", "round": "1.5 | round", "slice": "[1] | slice(2) | list",
    "xmlattr": "{'b': 1} | xmlattr", "filesizeformat": "12345 | filesizeformat", "random": "['a'] | random",
}  # fmt: skip


def test_every_filter_works_within_the_limits():
    """Some fetch a module when they are first used, which a process that may open no file cannot do."""
    used = [FILTERS.get(name, f"'<b>two words</b> http://a.b' | {name}") for name in DEFAULT_FILTERS]
    used += ["lipsum()", "strftime_now('%A %d %B %c %x %X')", "'a'.encode('utf-16')", "'ß'.casefold()"]
    text("".join(f"{{{{ {expression} }}}}" for expression in used))
    assert text("{{ '<b>a</b> &amp; c' | striptags }}") == "<bos>a & c"
    assert text("{{ 'two words' | wordwrap(5) }}").split() == ["<bos>two", "words"]
    assert text("{{ {'a': 1} | pprint }}") == "<bos>{'a': 1}"


def test_an_error_is_short_and_one_line_however_long_its_words_are():
    for words in ("'no\n' * 10 ** 6", "messages | string * 99999", "range(99999) | list"):
        with pytest.raises(ModelError) as error:
            text(f"{{{{ raise_exception({words}) }}}}")
        assert len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_a_template_is_of_a_size_that_templates_have(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("a" * 1_000_001)
    with pytest.raises(ModelError, match="chat_template.jinja is larger than any template"):
        find_template(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "a" * 1_000_001}))
    with pytest.raises(ModelError, match="chat_template.json holds a template larger"):
        find_template(tmp_path)


def test_templates_whose_names_are_none_are_passed_over(tmp_path):
    several = [{"name": {}, "template": "no"}, {"name": ["default"]}, {"name": "default", "template": "yes"}]
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": several}))
    assert find_template(tmp_path)[1] == "yes"
