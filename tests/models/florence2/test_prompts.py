"""Tasks by their tokens, by commands, and by sentences."""

import pytest

from mmcli.errors import UsageError
from mmcli.models.florence2.prompts import COMMANDS, TASKS, sentence_of, task_of


@pytest.mark.parametrize("token", TASKS)
def test_a_task_is_known_by_its_token_and_by_its_sentence(token):
    task = TASKS[token]
    sentence = sentence_of(f"{token} a cat " if task.takes_words else token)
    assert sentence == task.sentence.replace("{}", "a cat")
    assert task_of(token + ("a cat" if task.takes_words else "")) is task_of(sentence)
    assert (task_of(sentence).kind, task_of(sentence).labelled) == (task.kind, task.labelled)


def test_what_is_no_task_is_read_as_it_stands():
    assert sentence_of("what is it? {}") == "what is it? {}"
    assert task_of("what is it?").kind == "boxes or polygons"


def test_words_of_the_user_may_hold_braces():
    assert sentence_of("<OPEN_VOCABULARY_DETECTION>{0} {}") == "Locate {0} {} in the image."


def test_a_task_without_words_stands_alone():
    with pytest.raises(UsageError, match="Nothing can stand beside <OD> in a prompt. Ask <OD> alone"):
        sentence_of("<OD> cat")


def test_every_command_is_a_task():
    assert set(COMMANDS.values()) <= set(TASKS)
