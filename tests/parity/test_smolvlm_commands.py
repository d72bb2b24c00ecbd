"""`mmcli chat` and `mmcli caption` with SmolVLM folders that transformers wrote: the reference's tokens."""

from pathlib import Path

import pytest
import smolvlm_folders as folders
from command import mmcli
from PIL import Image
from smolvlm_pairs import STEPS, Pair, make_pair, say
from support import odd_images, random_image

from mmcli.models.smolvlm.prompts import task_prompt
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.conversation import Conversation


@pytest.fixture(scope="module", params=["idefics3", "smolvlm"])
def pair(request, tmp_path_factory) -> Pair:
    return make_pair(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return odd_images(tmp_path_factory.mktemp("files"), width=90)


def run(pair: Pair, command: str, *arguments) -> list[list[int]]:
    options = ("--model", pair.folder, "--dtype", "float32", "--device", "cpu", "--json", "--token-ids")
    done = mmcli(command, *arguments, *options, "--max-tokens", STEPS)
    assert done.code == 0, done.err
    return [record["token_ids"] for record in done.records]


def expected(pair: Pair, *messages: dict) -> list[int]:
    """The greedy answer of transformers without the token that ends it."""
    ids = pair.tokens(*messages, steps=STEPS)
    return ids[:-1] if ids[-1] == folders.END else ids


@pytest.mark.parametrize("names", [["wide"], ["tall", "clear", "dot"], []], ids=str)
def test_questions_about_images_and_about_none(pair, files, names):
    paths = [files[name] for name in names]
    question = "what is on the left?"
    answer = expected(pair, say("user", *map(Image.open, paths), question))
    assert run(pair, "chat", *paths, "-m", question) == [answer]


def test_captions_alone_and_in_a_batch(pair, files):
    names = files["wide"], files["clear"]
    words = task_prompt("caption", "")
    answers = [expected(pair, say("user", Image.open(name), words)) for name in names]
    assert answers[0] != answers[1]
    assert run(pair, "caption", *names, "--batch-size", 1) == run(pair, "caption", *names, "--batch-size", 2) == answers


def test_a_second_turn_keeps_the_cache_and_is_the_references(pair, monkeypatch):
    conversation, read = Conversation(pair.ours, "be kind"), []
    prefill = pair.ours.model.prefill
    monkeypatch.setattr(
        pair.ours.model, "prefill", lambda inputs, cache: (read.append(inputs), prefill(inputs, cache))[1]
    )
    messages = [say("system", "be kind")]
    for images, words in [
        ([random_image(1, 90, 37)], "what is it?"),
        ([], "say it again"),
        ([random_image(2)], "a cat"),
    ]:
        messages.append(say("user", *images, words))
        said = conversation.ask(ChatRequest(words=words, max_tokens=STEPS), images)
        assert list(said.ids) == expected(pair, *messages)
        messages.append(say("assistant", pair.ours.processor.decode(said.ids).lstrip()))
    assert [len(inputs.images) for inputs in read] == [1, 0, 1]  # nothing is looked at twice
    assert not (read[1].tokens == folders.IMAGE).any() and read[1].tokens.shape[1] < read[0].tokens.shape[1] / 2 + STEPS
