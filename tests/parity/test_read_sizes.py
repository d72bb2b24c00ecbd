"""Files of images far larger than a model looks at: its numbers are those that the reference makes of all pixels."""

import florence2_folders
import gemma3n_folders
import mllama_folders
import pytest
import smolvlm_folders
import support
import torch
from PIL import Image

from mmcli.media.sources import IMAGE_EXTENSIONS, expand
from mmcli.models.gemma3n.config import Gemma3nConfig
from mmcli.models.gemma3n.processor import Gemma3nProcessor
from mmcli.models.registry import family_of
from mmcli.tasks.attachments import load_attachment

SIZES = [(1120, 1120), (1500, 450), (450, 1500)]


def florence2(folder):
    return florence2_folders.write_checkpoint(folder, florence2_folders.tiny_reference())


def mllama(folder):
    return mllama_folders.write_checkpoint(folder, mllama_folders.tiny_reference())


def paligemma(folder):
    return support.write_checkpoint(folder, support.tiny_reference(support.tiny_config(False)))


def smolvlm(folder):
    return smolvlm_folders.write_checkpoint(folder, "smolvlm", smolvlm_folders.tiny_reference("smolvlm"))


def gemma3n(folder):
    return gemma3n_folders.write_processor(folder, side=48)


def our_processor(folder):
    if not (folder / "config.json").exists():  # what Gemma 3n's processor needs of it
        raw = gemma3n_folders.ids_config()
        return Gemma3nProcessor.open(folder, Gemma3nConfig.from_hf(raw), raw)
    from mmcli.hub.resolve import resolve

    checkpoint = resolve(str(folder))
    family = family_of(checkpoint.config, checkpoint.name)
    return family.processor(folder, family.read_config(checkpoint.config), checkpoint.config)


@pytest.mark.parametrize("known", [True, False], ids=["read for the model", "read before it is known"])
@pytest.mark.parametrize("write", [florence2, gemma3n, mllama, paligemma, smolvlm])
def test_numbers_of_an_image_read_from_a_file(tmp_path, write, known):
    (tmp_path / "model").mkdir()
    reference = write(tmp_path / "model").image_processor
    ours = our_processor(tmp_path / "model")
    for number, size in enumerate(SIZES):
        path = tmp_path / f"{number}.{'png' if number == 0 else 'jpg'}"
        support.random_image(number, *size).save(path)
        [source] = expand([path], extensions=IMAGE_EXTENSIONS)
        attachment = load_attachment(source, able=lambda: ours.capabilities if known else None)
        images, _ = attachment.parts(ours, "the model")
        [numbers] = ours.inputs([images], [ours.task_prompt("caption", "")]).images
        assert torch.equal(numbers, reference([[Image.open(path)]], return_tensors="pt")["pixel_values"].squeeze())
