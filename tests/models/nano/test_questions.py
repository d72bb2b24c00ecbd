"""Nano answers the kinds of question it was taught, asked in people's words, and no others."""

import random

import numpy as np
import pytest

from mmcli.errors import ModelError
from mmcli.hub.resolve import resolve
from mmcli.models.nano import NanoConfig
from mmcli.models.nano.questions import EXAMPLES, taught
from mmcli.models.nano.words import known
from mmcli.training.recipes.nano import prompts
from mmcli.training.recipes.nano.annotations import Photo

LABELS = NanoConfig.from_json(resolve("nano").config).things


@pytest.mark.parametrize(
    ("asked", "as_taught"),
    [
        ("Is there a cat?", "is there a cat?"),
        ("are there any dogs in this photo", "is there a dog?"),
        ("Do you see an elephant?", "is there an elephant?"),
        ("Can you see people here?", "is there a person?"),
        ("How many sofas are there?", "how many couches are there?"),
        ("How many people are in the picture?", "how many people are there?"),
        ("how many cats", "how many cats are there?"),
        ("Where's the traffic light?", "where is the traffic light?"),
        ("Which animal is in the picture?", "what animal is this?"),
        ("What is this?", "what is in the picture?"),
        ("What’s in the image?", "what is in the picture?"),
        ("what is the main subject?", "what is the main thing in the picture?"),
    ],
)
def test_a_question_is_put_in_the_words_it_was_taught_in(asked, as_taught):
    assert taught(asked, LABELS) == as_taught


@pytest.mark.parametrize(
    "asked",
    [
        "What is the woman wearing?",
        "why?",
        "What colour is the car?",
        "How many people are wearing a red hat today?",
        "Write a poem about the cat",
        "How many cats and dogs?",
        "Is there a cat or a dog?",
        "Is there no cat?",
        "What does the sign say?",
        "",
    ],
)
def test_other_questions_are_refused_with_what_can_be_asked(asked):
    expected = r'cannot answer that question. It answers only .*, such as "is there a cat\?"'
    with pytest.raises(ModelError, match=expected):
        taught(asked, LABELS)


def test_a_question_about_a_thing_that_is_not_known_says_so():
    with pytest.raises(ModelError, match='nano does not know "unicorn"'):
        taught("is there a unicorn?", LABELS)


def test_examples_are_answered():
    assert all(taught(example, LABELS) for example in EXAMPLES)


def test_every_question_that_training_asks_is_answered():
    """Whoever teaches another kind of question has to declare it."""
    kinds = set()
    for seed in range(2000):
        rng = random.Random(seed)
        label = rng.choice([thing for thing in LABELS if thing not in ("bag", "shoe")])
        box = np.array([0.1, 0.1, 0.4, 0.5])
        boxes = [prompts.Shown(label, box, -1, False, box)] * rng.choice((1, 1, 2))
        photo = Photo("", "", 1, 1, "coco", "train", (), (), [], frozenset(), ("zebra", "boat"), frozenset(), {}, [])
        pair = prompts.answer(prompts.Seen(photo, False, True, boxes), rng, ["zebra", "boat"])
        if pair is not None and pair[1] != prompts.UNKNOWN:  # those are refused before they are asked
            kinds.add(pair[0].split()[0])
            assert taught(pair[0], LABELS)
    assert {"is", "do", "how", "what", "which", "where"} <= kinds


@pytest.mark.parametrize(
    ("word", "thing"),
    [
        ("cat", "cat"), ("Cat", "cat"), ("cats", "cat"), ("a  cat", "cat"), ("people", "person"), ("buses", "bus"),
        ("wine glasses", "wine glass"), ("sofas", "couch"), ("aeroplane", "airplane"), ("skis", "skis"),
        ("puppy", None), ("man", None), ("unicorn", None), ("", None), ("cat food", None),
    ],
)  # fmt: skip
def test_plurals_and_other_names_of_the_same_thing_are_known(word, thing):
    assert known(word, LABELS) == thing


def test_every_thing_is_known_by_its_own_name_and_its_plural():
    assert all(known(thing, LABELS) == thing and known(thing.upper(), LABELS) == thing for thing in LABELS)
    assert len(set(LABELS)) == len(LABELS)
