"""Reading text in images: what is asked, and who is refused."""

from types import SimpleNamespace

import pytest

from mmcli.errors import ModelError
from mmcli.models.family import Capabilities
from mmcli.models.prompts import READING_PROMPTS, fill_prompt
from mmcli.tasks.read import ReadRequest


def processor(**able):
    return SimpleNamespace(
        capabilities=Capabilities(images=True, **able),
        grammar=None,
        task_prompt=lambda task, words: fill_prompt(
            READING_PROMPTS | {"read:boxes": "ocr with boxes"}, task, words, "M"
        ),
    )


def test_the_prompt_says_whether_places_are_wanted():
    reads = processor(reads_text=True, reads_regions=True)
    assert ReadRequest().prompt_for(reads) == "ocr"
    assert ReadRequest(boxes=True).prompt_for(reads) == "ocr with boxes"
    assert ReadRequest(boxes=True, prompt="mine").prompt_for(reads) == "mine"


@pytest.mark.parametrize(
    "able, boxes, message",
    [
        ({}, False, "m cannot read: it was not taught to. Use .*paligemma2"),
        ({}, True, "m cannot read"),
        ({"reads_text": True}, True, "m reads text, but does not tell where it stands. Leave out --boxes"),
    ],
)
def test_a_model_that_cannot_read_is_refused(able, boxes, message):
    with pytest.raises(ModelError, match=message):
        ReadRequest(boxes=boxes).require(processor(**able), "m")


def test_a_model_that_can_read_is_asked():
    ReadRequest().require(processor(reads_text=True), "m")
    ReadRequest(boxes=True).require(processor(reads_text=True, reads_regions=True), "m")
    ReadRequest(prompt="what is written here?").require(processor(), "m")


def test_reading_is_a_task_of_those_that_read():
    assert Capabilities(images=True, reads_text=True).tasks == ("caption", "read", "chat")
