"""What SmolVLM computes in on a CPU where nobody says: int8 products, bfloat16, or float32 as it is loaded."""

import pytest
import smolvlm_folders as folders
import torch
from support import random_image

from mmcli.engine.generate import generate
from mmcli.hub.resolve import resolve
from mmcli.layers.int8 import Int8Linear, PackedInt8Linear
from mmcli.layers.int8_step import StepInt8Linear
from mmcli.models.load import load
from mmcli.models.smolvlm import model as smolvlm
from mmcli.tasks.settings import dtype_of

FORMS = Int8Linear | PackedInt8Linear | StepInt8Linear
IMAGES = [[], [random_image(1, 31, 200)], [random_image(2), random_image(3, 20, 20)]]
PROMPTS = ["what is on the left?", "a cat", "hello world, are you kind?"]


@pytest.fixture(scope="module", params=[False, True], ids=["its own head", "tied"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smolvlm")
    folders.write_checkpoint(folder, "smolvlm", folders.tiny_reference("smolvlm", tied=request.param))
    return folder


@pytest.fixture
def cpu(monkeypatch):
    """Lets a CPU be one that has int8 products, bfloat16, both or neither."""

    def settle(*, int8: bool, bfloat16: bool) -> None:
        monkeypatch.setattr(smolvlm, "int8_pays", lambda: int8)
        monkeypatch.setattr(smolvlm, "bfloat16_pays", lambda: bfloat16)

    return settle


def opened(folder, dtype="auto"):
    return load(resolve(str(folder)), "cpu", dtype)


def answers(loaded, images, prompts) -> list[list[tuple[int, float]]]:
    inputs = loaded.processor.inputs(images, prompts)
    steps = generate(loaded.model, inputs, stop_ids=frozenset(), max_tokens=6)
    events = [event for step in steps for event in step]
    return [[(event.id, event.logprob) for event in events if event.row == row] for row in range(len(prompts))]


def first_logits(loaded) -> torch.Tensor:
    inputs = loaded.processor.inputs(IMAGES[2:], PROMPTS[2:]).to(torch.device("cpu"), loaded.dtype)
    with torch.inference_mode():
        logits = loaded.model.prefill(inputs, loaded.model.new_cache(1, inputs.tokens.shape[1]))
    return logits[logits > -torch.inf].float()


def test_tower_and_head_are_in_int8_where_the_cpu_has_no_bfloat16(folder, cpu):
    cpu(int8=True, bfloat16=False)
    loaded = opened(folder)
    assert loaded.quantised and dtype_of(loaded) == "int8" and not opened(folder, "float32").quantised
    shorter = [name for name, part in loaded.model.named_modules() if isinstance(part, FORMS)]
    assert len([name for name in shorter if name.startswith("vision.layers.")]) == 2 * 6
    assert [name for name in shorter if not name.startswith("vision.")] == ["decoder.head"]


def test_int8_rounds_hardly_more_than_bfloat16(folder, cpu):
    cpu(int8=True, bfloat16=False)
    exact = first_logits(opened(folder, "float32"))
    near, far = ((first_logits(opened(folder, dtype)) - exact).norm() / exact.norm() for dtype in ("auto", "bfloat16"))
    assert 0 < near < 2.5 * far < 0.1  # so narrow layers average little out


def test_rows_of_a_batch_are_singles_in_int8_too(folder, cpu):
    cpu(int8=True, bfloat16=False)
    loaded = opened(folder)
    together = answers(loaded, IMAGES, PROMPTS)
    alone = [answers(loaded, [images], [prompt])[0] for images, prompt in zip(IMAGES, PROMPTS, strict=True)]
    assert [[id for id, _ in row] for row in together] == [[id for id, _ in row] for row in alone]
    ours, theirs = ([value for row in rows for _, value in row] for rows in (together, alone))
    assert ours == pytest.approx(theirs, abs=0.05)  # sums of another order round to another of 255 steps


def test_all_is_in_bfloat16_where_the_cpu_multiplies_it(folder, cpu):
    cpu(int8=True, bfloat16=True)
    loaded = opened(folder)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.dtype == torch.bfloat16 and not loaded.quantised and dtype_of(loaded) == "bfloat16"
    assert len(answers(loaded, IMAGES, PROMPTS)[0]) == 6


def test_nothing_changes_where_the_cpu_has_neither(folder, cpu):
    cpu(int8=False, bfloat16=False)
    loaded = opened(folder)
    assert not loaded.quantised and dtype_of(loaded) == "float32"
    assert torch.equal(first_logits(loaded), first_logits(opened(folder, "float32")))
