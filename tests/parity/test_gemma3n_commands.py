"""`mmcli caption` and `mmcli chat` with a Gemma 3n folder that transformers wrote: the reference's tokens."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audio_files import wav_bytes
from command import mmcli
from gemma3n_folders import RATE, audio, write_checkpoint, write_processor
from gemma3n_models import tiny_text_reference
from PIL import Image
from support import random_image

from mmcli.engine.generate import generate
from mmcli.hub.resolve import resolve
from mmcli.media.audio import read_audio
from mmcli.media.sources import expand
from mmcli.models.gemma3n.prompts import task_prompt
from mmcli.models.load import load

pytestmark = pytest.mark.usefixtures("shallow_tower")

EXAMPLE = Path(__file__).parents[2] / "examples" / "jfk.flac"
STEPS = 16


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """wide.png, tall.png and a recording of two seconds, in a folder."""
    folder = tmp_path_factory.mktemp("files")
    random_image(1, 90, 37).save(folder / "wide.png")
    random_image(2, 31, 200).save(folder / "tall.png")
    (folder / "audio.wav").write_bytes(wav_bytes(audio(3, 2.0), RATE))
    return folder


@pytest.fixture(scope="module")
def small(gemma3n, tmp_path_factory):
    """The same checkpoint, but its processor asks for images of 128 pixels a side: the tower costs a fraction."""
    folder = tmp_path_factory.mktemp("small")
    processor = write_processor(folder, side=128)
    for path in gemma3n.folder.iterdir():
        if not (folder / path.name).exists():
            os.link(path, folder / path.name)
    return replace(gemma3n, folder=folder, processor=processor)


def samples_of(path: Path) -> np.ndarray:
    """The samples of a file as mmcli decodes it; that is tested elsewhere."""
    [source] = expand([str(path)], extensions=frozenset())
    return read_audio(source)[0]


def user(*parts) -> dict:
    return {"role": "user", "content": [part_of(part) for part in parts]}


def part_of(part) -> dict:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = "image" if isinstance(part, Image.Image) else "audio"
    return {"type": kind, kind: part}


def run(gemma3n, command, *arguments):
    options = ("--model", gemma3n.folder, "--dtype", "float32", "--device", "cpu", "--json", "--token-ids")
    done = mmcli(command, *arguments, *options, "--max-tokens", STEPS)
    assert done.code == 0, done.err
    return done.records


def expected(gemma3n, *messages: dict) -> list[int]:
    """The greedy answer of transformers without the token that ends it."""
    ids = gemma3n.tokens(*messages, steps=STEPS)
    return ids[:-1] if ids[-1] in gemma3n.reference.generation_config.eos_token_id else ids


def test_captions_are_those_of_the_reference_alone_and_in_a_batch(small, files):
    names = files / "wide.png", files / "tall.png"
    answers = [expected(small, user(Image.open(name), task_prompt("caption", ""))) for name in names]
    assert answers[0] != answers[1]
    for size in (1, 2):
        assert [record["token_ids"] for record in run(small, "caption", *names, "--batch-size", size)] == answers


def test_rows_of_unlike_lengths_are_no_trouble_in_a_batch(small, files):
    """One with an image, one with audio, one with text only."""
    loaded = load(resolve(str(small.folder)), "cpu", "float32")
    images = [[], [Image.open(files / "tall.png").convert("RGB")], []]
    prompts = ["a cat", "what is it?", "hello world, are you kind?"]
    audios = [[], [], [audio(3, 2.0)]]
    inputs = loaded.processor.inputs(images, prompts, audios)
    steps = list(generate(loaded.model, inputs, stop_ids=loaded.processor.stop_ids, max_tokens=STEPS))
    for row in range(3):
        ids = [event.id for step in steps for event in step if event.row == row]
        assert ids == small.tokens(user(*images[row], *audios[row], prompts[row]), steps=STEPS)


def test_a_question_about_an_image_and_a_recording(small, files):
    """The tower at its full size is compared in `test_mobilenet_v5.py`, pixels of that size in the processor's test."""
    question = "what is on the left, and who speaks here?"
    names = files / "tall.png", files / "audio.wav"
    [record] = run(small, "chat", *names, "-m", question)
    assert record["token_ids"] == expected(small, user(Image.open(names[0]), samples_of(names[1]), question))


@pytest.mark.parametrize("table", ["auto", "cpu", "device"])
def test_a_question_about_nothing_wherever_the_table_is(small, table):
    [record] = run(small, "chat", "-m", "hello world, are you kind?", "--table", table)
    assert record["token_ids"] == expected(small, user("hello world, are you kind?"))


def test_a_decoder_published_alone_converses_and_says_what_it_cannot(tmp_path, gemma3n, files):
    reference = tiny_text_reference(1)  # its answers are of several lengths
    processor = write_checkpoint(tmp_path, reference)
    alone = replace(gemma3n, folder=tmp_path, reference=reference, processor=processor)
    questions = ["hello world, what is it?", "who?", "a cat on the mat", "are you kind?"]
    answers = [run(alone, "chat", "-m", question)[0]["token_ids"] for question in questions]
    assert answers == [expected(alone, user(question)) for question in questions]
    assert all(answers)
    for command, path, what in (("caption", files / "wide.png", "pictures"), ("transcribe", EXAMPLE, "audio")):
        done = mmcli(command, path, "--model", tmp_path)
        assert done.code == 3 and f"takes no {what}. Use " in done.err
