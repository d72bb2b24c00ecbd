"""MiniCPM-V against its published code, whose answers on the same small folders were recorded, and against itself.

The code of OpenBMB/MiniCPM-V-2, -Llama3-V-2_5 and -V-2_6 ran with transformers 4.40, timm 0.9.10 and float32; 2.5 with
`batch_vision_input` off. For 1.0 it was its `modeling_minicpmv.py`
(github.com/dubai03nsr/multimodal-contrastive-decoding, whose changes do not touch what was used), with OmniLMM's
resampler, which it shares, and 2.0's decoder. No class of transformers reads these checkpoints.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import minicpmv_folders as folders
import pytest
import torch
from command import mmcli
from minicpmv_published import BYTES, PUBLISHED, WIDE
from places import stages_of

from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs
from mmcli.hub.resolve import resolve
from mmcli.hub.weights import place
from mmcli.models.load import build_empty, load
from mmcli.models.loaded import Loaded
from mmcli.models.minicpmv import FAMILY, MiniCPMVConfig
from mmcli.models.minicpmv.model import PLACE
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.conversation import Conversation
from mmcli.types import Turn

RECORDED = json.loads((Path(__file__).parents[1] / "minicpmv_recorded.json").read_text())["answers"]
LEFT, CATS = "what is on the left?", "how many cats are there?"
STEPS = 16
ONE_IMAGE = sorted(name for name in RECORDED["2.0 1"] if name[0].isdigit())


@dataclass(frozen=True)
class Case:
    """A folder of one version and seed as mmcli loads it, and what the published code gave for it."""

    version: str
    folder: Path
    loaded: Loaded
    recorded: dict[str, dict]

    def read(self, turns: list[Turn]) -> Inputs:
        images = [image for turn in turns for image in turn.images()]
        return self.loaded.processor.text_inputs(self.loaded.processor.apply_chat_template(turns), images)

    def assert_recorded(self, name: str, turns: list[Turn]) -> None:
        inputs, wanted = self.read(turns), self.recorded[name]
        assert [0 if id == PLACE else id for id in inputs.tokens[0].tolist()] == wanted["prompt"]  # 0 is <unk>
        with torch.inference_mode():
            logits = self.loaded.model.prefill(inputs, self.loaded.model.new_cache(1, inputs.tokens.shape[1]))[0]
        assert logits[: len(wanted["logits"])].tolist() == pytest.approx(wanted["logits"], abs=2e-4)
        steps = generate(self.loaded.model, inputs, stop_ids=self.loaded.processor.stop_ids, max_tokens=STEPS)
        assert [event.id for [event] in steps] == wanted["answer"]


@pytest.fixture(scope="module", params=sorted(RECORDED))
def case(request, tmp_path_factory) -> Case:
    version, seed = request.param.split()
    folder = folders.write_folder(tmp_path_factory.mktemp("minicpmv"), version, int(seed))
    return Case(version, folder, load(resolve(str(folder)), "cpu", torch.float32), RECORDED[request.param])


@pytest.fixture(scope="module", params=["1.0 1", "2.0 1", "2.6 1"])
def first(request, tmp_path_factory) -> Case:
    """One of each kind of layout, for what is no matter of numbers."""
    version, seed = request.param.split()
    folder = folders.write_folder(tmp_path_factory.mktemp("minicpmv"), version, int(seed))
    return Case(version, folder, load(resolve(str(folder)), "cpu", torch.float32), RECORDED[request.param])


# -- the published code --------------------------------------------------------------------------------------------


def test_questions_about_images_of_any_shape_are_read_and_answered_as_by_the_reference(case):
    for name in ONE_IMAGE:
        width, height = map(int, name.split("x"))
        case.assert_recorded(name, [Turn("user", (folders.image(width, height), LEFT))])


def test_text_alone_several_turns_images_and_a_system_text_too(case):
    case.assert_recorded("text", [Turn("user", (LEFT,))])
    image, tall = folders.image(90, 70), folders.image(30, 400)
    more = (tall,) if case.version == "2.6" else ()
    turns = [Turn("user", (image, LEFT)), Turn("model", ("a cat",)), Turn("user", (*more, CATS))]
    case.assert_recorded("turns", turns)
    if case.version == "2.6":
        case.assert_recorded("two images", [Turn("user", (image, tall, LEFT))])
    if case.version not in folders.OLD:
        system = [Turn("system", ("hello world",)), Turn("user", (folders.image(56, 56), LEFT))]
        case.assert_recorded("system", system)


# -- batches and caches --------------------------------------------------------------------------------------------


def test_a_batch_of_unlike_images_equals_its_rows(first, our_answer):
    images = [[folders.image(90, 70)], [], [folders.image(30, 400)], [folders.image(1, 1)]]
    prompts = [LEFT, CATS, "a cat", "hello world, what is it?"]
    together = our_answer(first.loaded, images, prompts, STEPS)
    rows = zip(images, prompts, strict=True)
    assert together == [our_answer(first.loaded, [own], [prompt], STEPS)[0] for own, prompt in rows]
    assert len({tuple(row) for row in together}) == 4


def test_every_step_has_the_logits_of_reading_all_anew(first):
    inputs = first.read([Turn("user", (folders.image(90, 70), LEFT))])
    model, written = first.loaded.model, [7, 90, 200]
    with torch.inference_mode():
        cache = model.new_cache(1, inputs.tokens.shape[1] + len(written))
        logits = [model.prefill(inputs, cache), *(model.step(torch.tensor([id]), cache) for id in written)]
        for count, step in enumerate(logits):
            tokens = torch.cat((inputs.tokens, torch.tensor([written[:count]], dtype=torch.long)), 1)
            whole = replace(inputs, tokens=tokens, valid=torch.ones_like(tokens, dtype=torch.bool))
            anew = model.prefill(whole, model.new_cache(1, tokens.shape[1]))
            torch.testing.assert_close(step, anew, rtol=1e-4, atol=1e-4)


def test_a_conversation_that_keeps_its_cache_answers_as_one_read_anew(first, monkeypatch):
    """The tokens that were read, with the answers between, make one row: it is read once more from the start."""
    conversation, model = Conversation(first.loaded), first.loaded.model
    row: list[int] = []
    seen: list[torch.Tensor] = []
    prefill = model.prefill

    def listen(inputs, cache):
        row[cache.length :] = inputs.tokens[0].tolist()
        seen.extend(inputs.images)
        return prefill(inputs, cache)

    def ask(words, *images):
        said = conversation.ask(ChatRequest(words=words, max_tokens=STEPS), images)
        row.extend(said.ids)
        return said

    monkeypatch.setattr(model, "prefill", listen)
    ask(LEFT, folders.image(90, 70))
    before = len(row)
    more = [folders.image(30, 400)] if first.version == "2.6" else []
    last = ask(CATS, *more)
    read = row[: len(row) - len(last.ids)]
    monkeypatch.undo()
    assert row[: before - 1] == read[: before - 1]  # nothing was read again
    tokens = torch.tensor([read])
    whole = Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), tuple(seen))
    steps = generate(model, whole, stop_ids=first.loaded.processor.stop_ids, max_tokens=STEPS)
    events = [event for [event] in steps if event.id not in first.loaded.processor.stop_ids]
    assert list(last.ids) == [event.id for event in events]
    assert [token.logprob for token in last.tokens] == pytest.approx([event.logprob for event in events], abs=1e-3)


# -- commands --------------------------------------------------------------------------------------------------------


def run(case: Case, command: str, *arguments) -> list[list[int]]:
    options = ("--model", case.folder, "--dtype", "float32", "--device", "cpu", "--json", "--token-ids")
    done = mmcli(command, *arguments, *options, "--max-tokens", STEPS)
    assert done.code == 0, done.err
    return [record["token_ids"] for record in done.records]


def test_chat_gives_the_tokens_of_the_reference(first, tmp_path):
    folders.image(90, 70).save(tmp_path / "cut.png")
    folders.image(56, 56).save(tmp_path / "whole.png")
    folders.image(30, 400).save(tmp_path / "tall.png")
    asked = "-m", LEFT
    for name, wanted in (("cut", "90x70"), ("whole", "56x56"), ("tall", "30x400")):
        assert run(first, "chat", tmp_path / f"{name}.png", *asked) == [first.recorded[wanted]["answer"]]
    assert run(first, "chat", *asked) == [first.recorded["text"]["answer"]]
    if first.version == "2.6":
        both = tmp_path / "cut.png", tmp_path / "tall.png"
        assert run(first, "chat", *both, *asked) == [first.recorded["two images"]["answer"]]


def test_an_image_with_alpha_is_read_as_the_one_it_shows(first, tmp_path):
    image = folders.image(90, 70)
    image.save(tmp_path / "plain.png")
    image.putalpha(255)
    image.save(tmp_path / "alpha.png")
    plain, alpha = run(first, "caption", tmp_path / "plain.png", tmp_path / "alpha.png")
    assert plain == alpha


def test_captions_do_not_depend_on_the_batch(first, tmp_path):
    for name, size in {"a": (90, 70), "b": (30, 400), "c": (1, 1)}.items():
        folders.image(*size).save(tmp_path / f"{name}.png")
    assert run(first, "caption", tmp_path, "--batch-size", 1) == run(first, "caption", tmp_path, "--batch-size", 3)


def test_2_0_answers_about_one_image(tmp_path, tmp_path_factory):
    folder = folders.write_folder(tmp_path_factory.mktemp("minicpmv"), "2.0")
    for name in "ab":
        folders.image(9, 9).save(tmp_path / f"{name}.png")
    done = mmcli("chat", tmp_path / "a.png", tmp_path / "b.png", "-m", LEFT, "--model", folder)
    assert done.code == 2 and "answers questions about one picture at a time, but 2 were given" in done.err


def test_inspect_draws_every_stage(first):
    done = mmcli("inspect", first.folder)
    assert done.code == 0, done.err
    decoder = {"1.0": "MiniCPM", "2.0": "MiniCPM", "2.6": "Qwen2"}[first.version]
    square = first.version == "1.0"
    for line in (
        f"image · {'squeeze' if square else 'slices'}",
        "vision · SigLIP",
        "resampler · cross-attention",
        f"decoder · {decoder}",
        f"{'' if square else 'S × '}4 × 256",
    ):
        assert line in done.out


# -- published sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", PUBLISHED)
def test_published_sizes_have_the_published_names_and_shapes(version):
    raw = PUBLISHED[version]
    config = MiniCPMVConfig.from_hf(raw)
    ours = build_empty(FAMILY, config).state_dict()
    published = {place(FAMILY.rules(config), name)[1]: shape for name, shape in folders.shapes(raw).items()}
    assert published == {name: tuple(tensor.shape) for name, tensor in ours.items()}
    count = sum(tensor.numel() for tensor in ours.values())
    assert sum(stage.parameters for stage in stages_of(FAMILY, config)) == count
    assert count * WIDE[version] == BYTES[version]
