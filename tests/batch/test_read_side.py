"""To what size images are read: whatever an image is read for, and whenever, the model sees the same."""

from dataclasses import replace

import pytest
from image_files import scene

from mmcli.batch.images import run
from mmcli.media.limits import WHOLE
from mmcli.media.sources import IMAGE_EXTENSIONS, expand
from mmcli.tasks.attachments import load_attachment
from mmcli.tasks.caption import CaptionRequest

SIDE = 896  # pixels


@pytest.mark.parametrize(
    ("side", "size", "read"),
    [
        (SIDE, (2 * SIDE, 2 * SIDE), (SIDE, SIDE)),  # a half is still enough
        (SIDE, (2 * SIDE - 2, 2 * SIDE), (2 * SIDE - 2, 2 * SIDE)),  # and here no longer
        (SIDE, (3600, 1800), (1800, 900)),
        (SIDE, (1600, 600), (1600, 600)),
        (WHOLE, (3600, 1800), (3600, 1800)),
    ],
)
def test_no_side_falls_below_that_of_the_model(tmp_path, monkeypatch, loaded, side, size, read):
    path = tmp_path / "a.jpg"
    scene(*size).save(path, quality=80)
    [source] = expand([path], extensions=IMAGE_EXTENSIONS)
    able = replace(loaded.processor.capabilities, min_read_side=side)
    monkeypatch.setattr(loaded.processor, "capabilities", able)
    seen = []
    inputs = loaded.processor.inputs
    monkeypatch.setattr(
        loaded.processor, "inputs", lambda images, prompts: seen.extend(images) or inputs(images, prompts)
    )
    [outcome] = run([source], CaptionRequest(max_tokens=1), lambda: loaded, model="tiny")
    assert (outcome.record.width, outcome.record.height) == size
    assert [image.size for [image] in seen] == [read]
    for attachment in (load_attachment(source, able=lambda: able), load_attachment(source)):
        [image], _ = attachment.parts(loaded.processor, "tiny")
        assert image.size == read


@pytest.mark.parametrize("side", [300, WHOLE])
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
    assert [image.size for [image] in seen] == [(650, 350) if side == 300 else (1300, 700)] * 3
