"""`mmcli chat`, `caption` and `inspect` with folders of Llama 3.2 Vision that transformers wrote: the same tokens."""

from pathlib import Path

import mllama_folders as folders
import pytest
from command import mmcli
from mllama_pairs import STEPS, Pair, make_pair, say
from PIL import Image
from places import stages_of
from support import random_image

from mmcli.errors import ModelError
from mmcli.models.mllama.prompts import task_prompt
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.conversation import Conversation


@pytest.fixture(scope="module", params=[1, 2])
def pair(request, tmp_path_factory) -> Pair:
    return make_pair(request.param, tmp_path_factory.mktemp("mllama"))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    images = {"wide": random_image(1, 90, 37), "tall": random_image(2, 31, 200), "dot": Image.new("RGB", (1, 1))}
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in images}


def run(pair: Pair, command: str, *arguments):
    options = ("--model", pair.folder, "--dtype", "float32", "--device", "cpu", "--json", "--token-ids")
    done = mmcli(command, *arguments, *options, "--max-tokens", STEPS)
    assert done.code == 0, done.err
    return done


def expected(pair: Pair, *messages: dict) -> list[int]:
    """The greedy answer of transformers without the token that ends it."""
    return unended(pair.tokens(*messages, steps=STEPS))


def unended(ids: list[int]) -> list[int]:
    return ids[:-1] if ids[-1] in (folders.EOT, folders.END_OF_TEXT) else ids


@pytest.mark.parametrize("names", [["wide"], ["tall", "dot"], []], ids=str)
def test_questions_about_images_and_about_none(pair, files, names):
    paths = [files[name] for name in names]
    question = "what is on the left?"
    done = run(pair, "chat", *paths, "-m", question)
    [record] = done.records
    assert record["token_ids"] == expected(pair, say("user", *map(Image.open, paths), question))
    said = "trained on prompts about one picture; this one is about 2, and the answer may mix them up"
    assert done.err.count(said) == (len(names) > 1) and any(said in note for note in record["notes"]) == (
        len(names) > 1
    )


def test_captions_alone_and_in_a_batch(pair, files):
    names = files["wide"], files["tall"]
    words = task_prompt("caption", "", instruct=True)
    answers = [expected(pair, say("user", Image.open(name), words)) for name in names]
    assert answers[0] != answers[1]
    for size in (1, 2):
        records = run(pair, "caption", *names, "--batch-size", size).records
        assert [record["token_ids"] for record in records] == answers


TURNS = [
    ([random_image(1, 90, 37)], "what is it?"),
    ([], "say it again"),
    ([], "who is here?"),
    ([random_image(2)], "a cat"),
    ([], "are you kind?"),
]


def test_turns_are_the_references_and_nothing_is_looked_at_twice_but_for_a_new_image(pair, monkeypatch):
    """The second image changes what the text before it looks at, so there the conversation is read anew."""
    conversation, read, messages = Conversation(pair.ours), [], []
    prefill, row = pair.ours.model.prefill, []

    def reading(inputs, cache):
        row[cache.length :] = inputs.tokens[0].tolist()
        read.append(inputs)
        return prefill(inputs, cache)

    monkeypatch.setattr(pair.ours.model, "prefill", reading)
    for images, words in TURNS:
        messages.append(say("user", *images, words))
        said = conversation.ask(ChatRequest(words=words, max_tokens=STEPS), images)
        assert list(said.ids) == unended(pair.written(pair.inputs_of(row, *messages)))
        messages.append(say("assistant", pair.ours.processor.decode(said.ids)))
        row += said.ids
    assert [len(inputs.images) for inputs in read] == [1, 0, 0, 2, 0]
    assert all(inputs.tokens.shape[1] < read[0].tokens.shape[1] + STEPS for inputs in (read[1], read[2], read[4]))


def test_an_image_that_comes_late_is_seen_by_what_stands_before_it_as_in_the_reference(pair):
    conversation = Conversation(pair.ours, "")
    first = conversation.ask(ChatRequest(words="hello", max_tokens=STEPS))
    words = pair.ours.processor.decode(first.ids)
    second = conversation.ask(ChatRequest(words="what is it?", max_tokens=STEPS), [random_image(3)])
    messages = say("user", "hello"), say("assistant", words), say("user", random_image(3), "what is it?")
    assert list(first.ids) == expected(pair, messages[0])
    assert list(second.ids) == expected(pair, *messages)


def test_a_template_that_refuses_is_one_sentence(pair):
    conversation = Conversation(pair.ours, "be kind")
    assert conversation.ask(ChatRequest(words="hello", max_tokens=2)).ids
    with pytest.raises(ModelError, match="images do not go with a system message"):
        conversation.ask(ChatRequest(words="what is it?", max_tokens=2), [random_image(3)])


def test_inspect_shows_stages_and_counts(pair):
    done = mmcli("inspect", pair.folder)
    assert done.code == 0, done.err
    for words in ("Llama 3.2 Vision", "cross-attention", "4 × 3 × 28 × 28", "gated layers", "4 × 17 × 128"):
        assert words in done.out, words
    count = sum(parameter.numel() for parameter in pair.reference.parameters())
    config = pair.ours.config
    assert sum(stage.parameters for stage in stages_of(pair.ours.family, config)) == count


def test_a_checkpoint_that_goes_on_with_a_text_answers_every_question_alone(tmp_path, files):
    pair = make_pair(1, tmp_path, template=None)
    text = "<|image|><|begin_of_text|>This picture shows"
    inputs = pair.processor(
        images=[[Image.open(files["wide"])]], text=[text], add_special_tokens=False, return_tensors="pt"
    )
    answer = [id for id in pair.written(dict(inputs)) if id not in (folders.EOT, folders.END_OF_TEXT)]
    assert [record["token_ids"] for record in run(pair, "caption", files["wide"]).records] == [answer]
    done = mmcli("chat", "--model", tmp_path, "-m", "hello", "--system", "be kind")
    assert done.code == 3 and "answers every question alone" in done.err
