"""OmniLMM against what its reference made of the very same folders: prompts, soft tokens, greedy answers."""

import json
from pathlib import Path

import pytest
import torch
from command import mmcli
from omnilmm_folders import CONFIGS, image, write_folder, write_pickles

from mmcli.engine.generate import generate
from mmcli.engine.sampling import Sampling
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.models.omnilmm.layout import IMAGE_TOKEN
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.conversation import Conversation
from mmcli.types import Turn

REFERENCE = json.loads((Path(__file__).parent.parent / "omnilmm_reference.json").read_text())
CASES = [(seed, name) for seed, cases in REFERENCE.items() for name in cases]
ONE_TURN = [(seed, name) for seed, name in CASES if len(REFERENCE[seed][name]["turns"]) == 1 and name != "placed"]
STEPS = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint a seed, in the published layout."""
    found = {}
    for seed in CONFIGS:
        folder = found[str(seed)] = tmp_path_factory.mktemp(f"omnilmm{seed}")
        write_folder(folder, seed)
    return found


@pytest.fixture(scope="module")
def models(folders):
    return {seed: load(resolve(str(folder)), "cpu", torch.float32) for seed, folder in folders.items()}


def turns_of(case: dict) -> list[Turn]:
    """The recorded turns: the image stands where <image> does, else in front of the first question."""
    turns = []
    for place, turn in enumerate(case["turns"]):
        before, mark, after = turn["content"].partition("<image>")
        parts = [before, image(*case["image"]), after] if mark else [turn["content"]]
        if place == 0 and case["image"] and not mark:
            parts = [image(*case["image"]), *parts]
        turns.append(Turn("model" if turn["role"] == "assistant" else "user", tuple(parts)))
    return turns


def inputs_of(loaded, case: dict):
    turns = turns_of(case)
    images = [part for turn in turns for part in turn.images()]
    return loaded.processor.text_inputs(loaded.processor.apply_chat_template(turns), images)


def answers(loaded, inputs) -> list[list[int]]:
    stop = loaded.processor.stop_ids
    steps = generate(loaded.model, inputs, stop_ids=stop, max_tokens=STEPS, sampling=Sampling())
    events = [event for step in steps for event in step]
    return [[event.id for event in events if event.row == row] for row in range(len(inputs.tokens))]


@pytest.mark.parametrize("seed, name", CASES)
def test_prompts_and_greedy_answers_are_those_of_the_reference(models, seed, name):
    loaded, case = models[seed], REFERENCE[seed][name]
    inputs = inputs_of(loaded, case)
    place = loaded.processor.tokenizer.token_to_id("<im_patch>")
    assert [place if id == IMAGE_TOKEN else id for id in inputs.tokens[0].tolist()] == case["prompt"]
    assert answers(loaded, inputs) == [case["answer"]]


@pytest.mark.parametrize("seed", REFERENCE)
@torch.inference_mode()
def test_soft_tokens_are_those_of_the_reference(models, seed):
    case = REFERENCE[seed]["wide"]
    found = models[seed].model.soft_tokens(inputs_of(models[seed], case))
    torch.testing.assert_close(found, torch.tensor(case["soft"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", REFERENCE)
def test_a_batch_equals_its_singles(models, seed):
    loaded, cases = models[seed], [REFERENCE[seed][name] for at, name in ONE_TURN if at == seed]
    seen = [[image(*case["image"])] if case["image"] else [] for case in cases]
    inputs = loaded.processor.inputs(seen, [case["turns"][0]["content"] for case in cases])
    assert not inputs.valid.all()
    assert answers(loaded, inputs) == [case["answer"] for case in cases]


@pytest.mark.parametrize("seed", REFERENCE)
@torch.inference_mode()
def test_cached_steps_have_the_logits_of_reading_all_anew(models, seed):
    loaded, case = models[seed], REFERENCE[seed]["wide"]
    inputs = inputs_of(loaded, case)
    model, length = loaded.model, inputs.tokens.shape[1]
    cache = model.new_cache(1, length + 8)
    logits = model.prefill(inputs, cache)
    for step in range(8):
        said = torch.tensor([case["answer"][: step + 1]])
        logits = model.step(said[:, -1], cache)
        hidden = torch.cat((model.embed(inputs), model.decoder.embed(said)), dim=1)
        count = hidden.shape[1]
        back = torch.arange(count)[:, None] - torch.arange(count)
        near = back < (model.decoder.config.window or count)
        masks = [(seen & (back >= 0))[None, None] for seen in (back == back, near)]
        anew = model.decoder(hidden, torch.arange(count)[None], masks[0], None, masks[1])
        torch.testing.assert_close(logits, model.decoder.logits(anew[:, -1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", REFERENCE)
def test_a_conversation_whose_cache_is_kept_answers_as_one_read_at_once(models, seed):
    """The model's own first answer stands between the questions, letter by letter as it wrote it."""
    loaded, case = models[seed], REFERENCE[seed]["wide"]
    conversation = Conversation(loaded)
    first = conversation.ask(ChatRequest(prompt=case["turns"][0]["content"], max_tokens=STEPS), [image(*case["image"])])
    assert list(first.ids) == case["answer"]
    second = conversation.ask(ChatRequest(prompt="who is it?", max_tokens=STEPS))
    rest = loaded.processor.text_inputs("</s>\n<|user|>\nwho is it?</s>\n<|assistant|>\n").tokens
    whole = inputs_of(loaded, case)
    row = torch.cat((whole.tokens, torch.tensor([case["answer"]]), rest), dim=1)
    valid = torch.ones_like(row, dtype=torch.bool)
    anew = type(whole)(row, valid, whole.images)
    assert [list(second.ids)] == answers(loaded, anew)


OPTIONS = ("--json", "--token-ids", "--dtype", "float32", "--device", "cpu", "--max-tokens", STEPS)


def asked(folder: Path, case: dict, place: Path):
    """`mmcli chat` with a recorded question."""
    seen = []
    if case["image"]:
        seen = [place / "image.png"]
        image(*case["image"]).save(seen[0])
    return mmcli("chat", *seen, "--model", folder, "--message", case["turns"][0]["content"], *OPTIONS)


@pytest.mark.parametrize("seed, name", [("1", "tall"), ("2", "wide"), ("2", "text")])
def test_chat_writes_the_tokens_of_the_reference(folders, tmp_path, seed, name):
    done = asked(folders[seed], REFERENCE[seed][name], tmp_path)
    assert done.code == 0, done.err
    assert [record["token_ids"] for record in done.records] == [REFERENCE[seed][name]["answer"]]


def test_weights_in_pickles_answer_the_same_and_the_way_to_safetensors_is_told(tmp_path):
    """As the published repository may have them."""
    write_pickles(tmp_path, 2)
    done = asked(tmp_path, REFERENCE["2"]["wide"], tmp_path)
    assert done.code == 0, done.err
    assert [record["token_ids"] for record in done.records] == [REFERENCE["2"]["wide"]["answer"]]
    assert done.err.count("mmcli models convert") == 1


def test_captions_do_not_depend_on_the_batch(folders, tmp_path):
    for seed, size in enumerate([(1, 1), (30, 400), (50, 37)]):
        image(*size, seed).save(tmp_path / f"{seed}.png")

    def captions(batch: int) -> list[list[int]]:
        done = mmcli("caption", tmp_path, "--model", folders["1"], "--batch-size", batch, *OPTIONS)
        assert done.code == 0, done.err
        return [record["token_ids"] for record in done.records]

    assert captions(1) == captions(3)


def test_a_question_is_about_one_image(folders, tmp_path):
    for seed in range(2):
        image(9, 9, seed).save(tmp_path / f"{seed}.png")
    done = mmcli("chat", tmp_path / "0.png", tmp_path / "1.png", "--model", folders["2"], "--message", "who")
    assert done.code == 2 and "about one picture at a time" in done.err


def test_inspect_draws_every_stage(folders):
    done = mmcli("inspect", folders["1"])
    assert done.code == 0, done.err
    for line in ("image · squeeze", "vision · EVA-02", "64 × 48", "resampler · cross-attention", "decoder · Mistral"):
        assert line in done.out
