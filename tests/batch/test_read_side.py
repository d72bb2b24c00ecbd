"""To what size images are read: whatever an image is read for, and whenever, the model sees the same."""

from dataclasses import replace

import pytest
from image_files import scene

from mmcli.batch.images import run
from mmcli.media.sources import IMAGE_EXTENSIONS, expand
from mmcli.tasks.attachments import load_attachment
from mmcli.tasks.caption import CaptionRequest

LARGEST = 896  # pixels: the side of the largest square that a published checkpoint looks at


@pytest.mark.parametrize(
    ("size", "read"),
    [
        ((2 * LARGEST, 2 * LARGEST), (LARGEST, LARGEST)),  # a half is still enough
        ((2 * LARGEST - 2, 2 * LARGEST), (2 * LARGEST - 2, 2 * LARGEST)),  # and here no longer
        ((3600, 1800), (1800, 900)),
        ((1600, 600), (1600, 600)),
    ],
)
def test_no_side_falls_below_the_largest_square_that_a_model_looks_at(tmp_path, monkeypatch, loaded, size, read):
    path = tmp_path / "a.jpg"
    scene(*size).save(path, quality=80)
    [source] = expand([path], extensions=IMAGE_EXTENSIONS)
    seen = []
    inputs = loaded.processor.inputs
    monkeypatch.setattr(
        loaded.processor, "inputs", lambda images, prompts: seen.extend(images) or inputs(images, prompts)
    )
    [outcome] = run([source], CaptionRequest(max_tokens=1), lambda: loaded, model="tiny")
    assert (outcome.record.width, outcome.record.height) == size
    assert [image.size for [image] in seen] == [read]
    able = loaded.processor.capabilities
    for attachment in (load_attachment(source, able=lambda: able), load_attachment(source)):
        [image], _ = attachment.parts(loaded.processor, "tiny")
        assert image.size == read


@pytest.mark.parametrize("side", [300, None])
@pytest.mark.parametrize("known", [True, False], ids=["known", "known once it is loaded"])
def test_the_side_is_the_models_own(tmp_path, monkeypatch, loaded, side, known):
    able = replace(loaded.processor.capabilities, min_read_side=side)
    monkeypatch.setattr(loaded.processor, "capabilities", able)
    names = [tmp_path / f"{i}.jpg" for i in range(3)]
    for name in names:
        scene(1300, 700).save(name, quality=80)
    [*sources] = expand(names, extensions=IMAGE_EXTENSIONS)
    seen = []
    inputs = loaded.processor.inputs
    monkeypatch.setattr(
        loaded.processor, "inputs", lambda images, prompts: seen.extend(images) or inputs(images, prompts)
    )
    outcomes = list(
        run(sources, CaptionRequest(max_tokens=1), lambda: loaded, model="tiny", able=lambda: able if known else None)
    )
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert [image.size for [image] in seen] == [(650, 350) if side else (1300, 700)] * 3
