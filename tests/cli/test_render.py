import pytest
from command import environment

from mmcli.cli.options import OutputOptions
from mmcli.cli.render import Renderer, remarks
from mmcli.errors import UsageError
from mmcli.output.schema import Record


def record(**changes):
    return Record(task="caption", source="a.png", model="nano", **changes)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (record(), []),
        (record(notes=["first of 12 frames"]), ["first of 12 frames"]),
        (record(problems=["a", "b", "c"]), ["a", "b", "c"]),
        (record(problems=list("abcde")), ["a", "b", "c", "2 more faults of the answer (--json has them)"]),
        (record(truncated=True), ["the answer was cut off; raise --max-tokens to let it end"]),
    ],
)
def test_remarks_are_what_the_text_does_not_tell(entry, expected):
    assert remarks(entry) == expected


def test_show_without_its_extra_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "textual_image", None)
    with pytest.raises(UsageError, match=r"pip install 'mmcli\[show\]'"):
        Renderer(environment(stdout_tty=True), OutputOptions(show=True), None, several=False)


def test_show_is_passed_over_where_the_output_is_no_terminal():
    renderer = Renderer(environment(), OutputOptions(show=True), None, several=False)
    assert not renderer.show and not renderer.needs_image
