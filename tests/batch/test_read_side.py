"""To what size pictures are read: whatever a picture is read for, and whenever, the model sees the same."""

import pytest
from picture_files import scene

from mmcli.batch.runner import run
from mmcli.cli.attachments import load_attachment
from mmcli.media.sources import IMAGE_EXTENSIONS, expand
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
        loaded.processor, "inputs", lambda pictures, prompts: seen.extend(pictures) or inputs(pictures, prompts)
    )
    [outcome] = run([source], CaptionRequest(max_tokens=1), lambda: loaded, model="tiny")
    assert (outcome.record.width, outcome.record.height) == size
    assert [picture.size for [picture] in seen] == [read]
    assert load_attachment(source).content.image.size == read
