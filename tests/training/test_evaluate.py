"""What is measured of a model's answers about real pictures."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

import mmcli
from mmcli.errors import InputError, ModelError
from mmcli.example import Example, Exchange, LabelledObject
from mmcli.hub.known import AUDIO_MODEL
from mmcli.models.objects_in_text import with_objects
from mmcli.training.evaluate import Measures, evaluate
from mmcli.training.metrics.cider import cider
from mmcli.training.targets import targets

EXAMPLES = Path(__file__).parents[2] / "examples"
CAT = LabelledObject("cat", (0.0, 0.0, 0.911, 1.0))  # as a person would draw it
CAN = frozenset({"cat", "person"})


@pytest.fixture(scope="module")
def nano():
    return mmcli.load()


def pictured(name: str, *objects: LabelledObject, labels=CAN, task="detect") -> Example:
    return Example(task, name, (EXAMPLES / name,), objects=objects, exhaustive=frozenset(labels))


def test_boxes(nano):
    records = []
    found = evaluate(nano, [pictured("cat.jpg", CAT), pictured("coffee.jpg")], each=records.append)
    assert found.values["AP50"] == pytest.approx(1.0) and found.values["AP"] > 0.8
    assert found.main == "AP50" and found.value == found.values["AP50"] and not found.lower_is_better
    assert found.counts == {"detect": 2, "failed": 0} and [one.task for one in records] == ["detect"] * 2
    wrong = evaluate(nano, [pictured("cat.jpg", LabelledObject("person", (0.9, 0.0, 1.0, 0.1)))])
    assert wrong.value == 0.0 < found.value


def test_places_in_a_suffix_are_boxes(nano):
    text = "<loc0000><loc0000><loc1023><loc0932> cat"
    example = Example("detect", "x", (EXAMPLES / "cat.jpg",), exchanges=(Exchange("detect cat", text),))
    assert with_objects(example).objects[0].box == pytest.approx((0, 0, 932 / 1023, 1))
    assert evaluate(nano, [example]).value == pytest.approx(1.0)
    nothing = Example("detect", "x", exchanges=(Exchange("detect cat ; dog", ""),))
    assert with_objects(nothing).exhaustive == {"cat", "dog"} and with_objects(nothing).objects == ()


def test_captions_and_questions(nano):
    place, texts = (EXAMPLES / "cat.jpg",), ("A cat lies on a blanket.", "a grey cat")
    captions = [Example("caption", "x", place, exchanges=(Exchange(None, text),)) for text in texts]
    question = Exchange("answer en how many cats are there?", "1.")
    chat = Example("chat", "z", place, exchanges=(question, Exchange(question.prompt, "two")))
    records = []
    found = evaluate(nano, [*captions, chat], each=records.append)
    assert found.values["exact match"] == 0.5 and found.main == "CIDEr-D"
    assert found.counts == {"caption": 1, "chat": 2, "failed": 0}  # captions of one picture are its references
    assert found.value == pytest.approx(cider([records[0].text], [list(texts)])) and found.value > 0


def test_questions_of_a_conversation_are_asked_and_taught_as_chat_asks_them(nano):
    place, asked = (
        (EXAMPLES / "cat.jpg",),
        (Exchange("Is there a cat?", "yes"), Exchange("answer en what is it?", "no")),
    )
    chat = Example("chat", "z", place, exchanges=asked, questions=True)
    records = []
    assert evaluate(nano, [chat], each=records.append).values["exact match"] == 0.5
    prompts = ["answer en is there a cat?", "answer en what is it?"]
    assert [record.prompt for record in records] == prompts
    assert records[0].text == nano.chat("Is there a cat?", str(place[0])).text == "yes"
    assert [target.prompt for target in targets(nano.loaded, chat)] == prompts
    other = replace(chat, exchanges=(Exchange("What is it made of?", "fur"),))  # nano refuses it: --prompt asks it
    assert [target.prompt for target in targets(nano.loaded, other)] == ["what is it made of?"]


def test_transcripts():
    said = (
        "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
    )
    example = Example("transcribe", "x", audio=(EXAMPLES / "jfk.flac",), exchanges=(Exchange(None, said),))
    found = evaluate(mmcli.load(AUDIO_MODEL), [example])
    assert found.main == "WER" and found.lower_is_better and found.value <= 1 / 22


def test_a_damaged_picture_is_counted_and_the_others_are_measured(nano, tmp_path):
    (tmp_path / "x.jpg").write_text("no picture")
    broken = Example("detect", "x", (tmp_path / "x.jpg",), objects=(CAT,), exhaustive=CAN)
    found = evaluate(nano, [pictured("cat.jpg", CAT), broken])
    assert found.value == pytest.approx(1.0) and found.counts == {"detect": 1, "failed": 1}


def test_what_cannot_be_measured_is_said(nano):
    with pytest.raises(InputError, match="There are no examples"):
        evaluate(nano, [])
    speech = Example("transcribe", "x", audio=(EXAMPLES / "jfk.flac",), exchanges=(Exchange(None, "x"),))
    with pytest.raises(ModelError):
        evaluate(nano, [speech])
    assert math.isnan(Measures({}, "AP50", {}).value)
