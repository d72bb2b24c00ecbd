"""Numbers of pixels against transformers' own steps, and what files may say about them."""

import json

import foreign  # noqa: F401 (before transformers)
import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import normalize, rescale

from mmcli.errors import ModelError
from mmcli.hub.fields import Fields
from mmcli.hub.pixel_values import ABSENT, PixelValues, image_fields


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("factor", [1 / 255, 0.00392156862745098, 0.1])
def test_numbers_are_those_of_the_reference_bit_for_bit(factor):
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    image = noise(31, 17)
    expected = normalize(rescale(np.asarray(image), factor), mean, std).transpose(2, 0, 1)
    ours = PixelValues(factor, mean, std).of(image)
    assert ours.dtype == expected.dtype == np.float32 and np.array_equal(ours, expected)


def test_steps_may_be_left_out():
    image = noise(3, 2)
    raw = Fields({"do_rescale": False, "do_normalize": False}, "here", ABSENT)
    assert np.array_equal(PixelValues.read(raw).of(image), np.asarray(image, np.float32).transpose(2, 0, 1))


def test_an_image_in_other_colours_is_an_error():
    with pytest.raises(ValueError, match="RGB"):
        PixelValues().of(Image.new("L", (2, 2)))


def test_settings_stand_in_either_file(tmp_path):
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        image_fields(tmp_path, ABSENT)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": 0.1}))
    assert PixelValues.read(image_fields(tmp_path, ABSENT)).mean == (0.1, 0.1, 0.1)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"image_mean": [0.2, 0.3, 0.4]}}))
    assert PixelValues.read(image_fields(tmp_path, ABSENT)) == PixelValues(mean=(0.2, 0.3, 0.4))


@pytest.mark.parametrize(
    ("key", "value"), [("image_std", 0), ("image_mean", [1, 2]), ("rescale_factor", "x"), ("do_rescale", 1)]
)
def test_what_makes_no_sense_is_named(key, value):
    with pytest.raises(ModelError, match=key):
        PixelValues.read(Fields({key: value}, "here", ABSENT))
