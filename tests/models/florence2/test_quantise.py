"""What Florence-2 computes in on a CPU where nobody says: bfloat16, int8 products of its tower, or float32."""

import florence2_folders as folders
import pytest
import torch
from support import random_image

from mmcli.engine.collect import complete
from mmcli.hub.resolve import resolve
from mmcli.layers.int8 import Int8Linear, PackedInt8Linear
from mmcli.models.florence2 import model as florence2
from mmcli.models.load import load
from mmcli.tasks.settings import dtype_of

IMAGES = [[random_image(1, 31, 200)], [random_image(2)], [random_image(3, 90, 20)]]
PROMPTS = ["<CAPTION>", "<OD>", "dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("florence2")
    folders.write_checkpoint(folder, folders.tiny_reference())
    return folder


@pytest.fixture
def cpu(monkeypatch):
    """Lets a CPU be one that has int8 products, bfloat16, both or neither."""

    def settle(*, int8: bool, bfloat16: bool) -> None:
        monkeypatch.setattr(florence2, "int8_pays", lambda: int8)
        monkeypatch.setattr(florence2, "bfloat16_pays", lambda: bfloat16)

    return settle


def opened(folder, dtype="auto"):
    return load(resolve(str(folder)), "cpu", dtype)


def first_logits(loaded) -> torch.Tensor:
    inputs = loaded.processor.inputs(IMAGES, PROMPTS).to(torch.device("cpu"), loaded.dtype)
    with torch.inference_mode():
        return loaded.model.prefill(inputs, loaded.model.new_cache(len(IMAGES), 8)).float()


def answers(loaded, images, prompts) -> list[tuple[int, ...]]:
    inputs = loaded.processor.inputs(images, prompts)
    return [said.ids for said in complete(loaded.model, inputs, stop_ids=frozenset(), max_tokens=6, beams=3)]


def test_the_tower_is_in_int8_where_the_cpu_has_no_bfloat16(folder, cpu):
    cpu(int8=True, bfloat16=False)
    loaded = opened(folder)
    assert loaded.quantised and dtype_of(loaded) == "int8" and not opened(folder, "float32").quantised
    shorter = [name for name, part in loaded.model.named_modules() if isinstance(part, Int8Linear | PackedInt8Linear)]
    blocks = 2 * sum(stage.depth for stage in loaded.config.vision.stages)
    assert len(shorter) == 4 * blocks and all(name.startswith("vision.") for name in shorter)


def test_int8_rounds_hardly_more_than_bfloat16(folder, cpu):
    cpu(int8=True, bfloat16=False)
    exact = first_logits(opened(folder, "float32"))
    near, far = ((first_logits(opened(folder, dtype)) - exact).norm() / exact.norm() for dtype in ("auto", "bfloat16"))
    assert 0 < near < 2.5 * far < 0.2  # so narrow layers average little out


def test_rows_of_a_batch_are_singles_in_int8_too(folder, cpu):
    cpu(int8=True, bfloat16=False)
    loaded = opened(folder)
    alone = [answers(loaded, [images], [prompt])[0] for images, prompt in zip(IMAGES, PROMPTS, strict=True)]
    assert answers(loaded, IMAGES, PROMPTS) == alone


def test_all_is_in_bfloat16_where_the_cpu_multiplies_it(folder, cpu):
    cpu(int8=True, bfloat16=True)
    loaded = opened(folder)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.dtype == torch.bfloat16 and not loaded.quantised and dtype_of(loaded) == "bfloat16"
    assert len(answers(loaded, IMAGES, PROMPTS)[0]) > 1


def test_nothing_changes_where_the_cpu_has_neither(folder, cpu):
    cpu(int8=False, bfloat16=False)
    loaded = opened(folder)
    assert not loaded.quantised and dtype_of(loaded) == "float32"
    assert torch.equal(first_logits(loaded), first_logits(opened(folder, "float32")))
