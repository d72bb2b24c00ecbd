"""How much a caption tells, and how many answers are followed for it."""

from types import SimpleNamespace

import pytest

from mmcli.errors import ModelError, UsageError
from mmcli.models.family import Capabilities
from mmcli.tasks.caption import CaptionRequest
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.detect import DetectRequest
from mmcli.tasks.settings import image_settings


def loaded(**able):
    return SimpleNamespace(processor=SimpleNamespace(capabilities=Capabilities(images=True, **able), grammar=None))


def test_the_detail_is_asked_of_those_that_have_a_prompt_for_it():
    assert [CaptionRequest(detail=one).asked for one in (None, "low", "high")] == [
        "caption", "caption:low", "caption:high"
    ]  # fmt: skip
    CaptionRequest(detail="low").require(loaded(details=("low", "high")).processor, "m")
    with pytest.raises(UsageError, match="m knows no captions of medium detail. Its captions are .* low or high"):
        CaptionRequest(detail="medium").require(loaded(details=("low", "high")).processor, "m")
    with pytest.raises(UsageError, match="Leave it out: it has one length"):
        CaptionRequest(detail="low").require(loaded().processor, "m")


@pytest.mark.parametrize(
    "fields", [{"detail": "huge"}, {"detail": "low", "prompt": "x"}, {"beams": 2, "temperature": 1.0}]
)
def test_what_contradicts_itself_is_refused(fields):
    with pytest.raises(UsageError):
        CaptionRequest(**fields)


@pytest.mark.parametrize(
    "fields, caption, detect",
    [
        ({}, 4, 3),
        ({"prompt": "mine"}, 3, 3),
        ({"temperature": 0.5}, 1, 1),
        ({"beams": 2}, 2, 2),
    ],
)
def test_how_many_answers_are_followed(fields, caption, detect):
    model = loaded(beams=3, caption_beams=4)
    assert CaptionRequest(**fields).beams_for(model) == caption
    assert DetectRequest(**fields).beams_for(model) == detect


def test_beams_that_were_named_are_among_the_settings():
    assert [image_settings(CaptionRequest(beams=n)).beams for n in (None, 1, 5)] == [None, 1, 5]


def test_everything_is_asked_of_those_that_find_everything():
    finder = loaded(objects=True, finds_all=True).processor
    assert DetectRequest(every=True).asked == "detect:all"
    DetectRequest(every=True).require(finder, "m")
    with pytest.raises(UsageError, match="m finds what is named, so --all cannot be used. Name objects"):
        DetectRequest(every=True).require(loaded(objects=True).processor, "m")


def test_questions_are_asked_of_those_that_answer_them():
    with pytest.raises(ModelError, match="m answers no questions. It can do mmcli caption and mmcli read."):
        ChatRequest(words="why?").require(loaded(questions=False, reads_text=True).processor, "m")
