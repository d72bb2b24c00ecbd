"""The bundled model's parts on small random weights: what must hold whatever was learned."""

import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nano_models import CONFIG, SMALL, answers, batch_of
from PIL import Image
from places import stages_of
from safetensors.torch import save_file

from mmcli.engine.inputs import Inputs
from mmcli.errors import ModelError, UsageError
from mmcli.hub.resolve import open_folder, resolve
from mmcli.layers.fusing import fuse
from mmcli.models.load import load
from mmcli.models.nano import FAMILY, Nano, NanoConfig
from mmcli.models.nano.config import CLASSES
from mmcli.models.nano.efficientnet_lite import EfficientNetLite, SameConv
from mmcli.models.nano.model import AT_ONCE
from mmcli.models.nano.picodet import BINS, NECK, STRIDES, PicoDet, ShuffleBlock, detections, proposals

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def model() -> Nano:
    torch.manual_seed(1)
    return Nano(CONFIG).eval()


def test_a_batch_with_padding_answers_as_its_singles_do(model):
    pixels = torch.rand(3, 3, 128, 128)
    prompts = [[2, 5, 6, 7, 8], [2, 9], [2, 10, 11, 12]]
    singles = [answers(model, batch_of([p], pixels[i : i + 1]))[0] for i, p in enumerate(prompts)]
    assert answers(model, batch_of(prompts, pixels)) == singles


@torch.inference_mode()
def test_channels_are_shuffled_where_they_lie():
    """What comes out has its channels innermost as well: convolutions would have it copied, else."""
    torch.manual_seed(0)
    block = ShuffleBlock(16, 8).eval()
    x = torch.randn(2, 16, 6, 6)
    past, worked = x.chunk(2, 1)
    y = block.pw(worked)
    y = block.out(block.se(torch.cat((y, block.dw(y)), 1)))
    found = block(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, torch.stack((past, y), 2).flatten(1, 2))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_cache_changes_nothing(model):
    """Writing token by token equals reading prompt and answer so far in one go under the same mask."""
    pixels = torch.rand(1, 3, 128, 128)
    prompt, written = [2, 5, 6], [7, 8, 9]
    inputs = batch_of([prompt], pixels)
    with torch.inference_mode():
        cache = model.new_cache(1, inputs.tokens.shape[1] + 3)
        steps = [model.prefill(inputs, cache)] + [model.step(torch.tensor([t]), cache) for t in written]
        whole = torch.cat((inputs.tokens, torch.tensor([written])), 1)
        x = model.embed(Inputs(whole, torch.ones_like(whole, dtype=torch.bool), tuple(pixels)))
        length, prefix = whole.shape[1], inputs.tokens.shape[1]
        order = torch.arange(length)
        mask = (order[None, :] < prefix) | (order[None, :] <= order[:, None])
        mask[:prefix, prefix:] = False
        mask[: CONFIG.soft_tokens, CONFIG.soft_tokens :] = False
        hidden = model.decoder(x, order[None], mask[None, None])
        for i, logits in enumerate(steps):
            expected = model.decoder.logits(hidden[:, prefix - 1 + i])
            torch.testing.assert_close(logits[:, :56], expected[:, :56], atol=1e-4, rtol=1e-4)


def test_the_image_is_read_the_same_whatever_is_asked(model):
    """Soft tokens do not see the prompt: their keys in the cache are equal for two prompts of one length."""
    pixels = torch.rand(1, 3, 128, 128)
    stores = []
    for prompt in ([2, 5, 6], [2, 30, 9]):
        inputs = batch_of([prompt], pixels)
        with torch.inference_mode():
            cache = model.new_cache(1, inputs.tokens.shape[1])
            model.prefill(inputs, cache)
        stores.append(cache.store[..., : CONFIG.soft_tokens, :])
    torch.testing.assert_close(stores[0], stores[1])


def test_the_image_token_and_filler_rows_are_never_written(model):
    with torch.inference_mode():
        inputs = batch_of([[2, 5]], torch.rand(1, 3, 128, 128))
        logits = model.prefill(inputs, model.new_cache(1, 64))
    assert torch.isinf(logits[:, CONFIG.image_token :]).all() and torch.isfinite(logits[:, : CONFIG.image_token]).all()


def test_padding_of_halving_convolutions_is_tensorflows(model):
    """For a 4-pixel row, kernel 3 and stride 2 pad one pixel on the right only: outputs start at pixels 0 and 2."""
    conv = SameConv(1, 1, 3, 2)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.zero_()
        row = torch.tensor([1.0, 10.0, 100.0, 1000.0]).expand(1, 1, 4, 4)
        out = conv(row)[0, 0]
    assert out[0].tolist() == [333.0, 3300.0]  # three rows of 1+10+100 and of 100+1000 (+0)


def test_the_feature_tower_gives_strides_4_8_16_and_32():
    with torch.no_grad():
        maps = EfficientNetLite()(torch.zeros(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(24, 16, 16), (48, 8, 8), (120, 4, 4), (352, 2, 2)]


def test_the_detector_gives_four_strides_also_where_sides_are_odd():
    with torch.no_grad():
        features, raw = PicoDet()(torch.zeros(1, 3, 416, 416))
    assert [m.shape[-1] for m in features] == [52, 26, 13, 7]
    assert all(m.shape[1] == CLASSES + 4 * BINS for m in raw)


def fake_maps(things: list[tuple[int, int, int, int, float]], side: int = 128) -> tuple[list, list]:
    """Head outputs in which `things` (level, row, column, class, logit) stand out; every side is 2 strides away."""
    raw = [torch.full((1, CLASSES + 4 * BINS, side // s, side // s), -9.0) for s in STRIDES]
    for level, row, column, label, logit in things:
        raw[level][0, label, row, column] = logit
        for edge in range(4):
            raw[level][0, CLASSES + edge * BINS + 2, row, column] = 60.0
    return raw, [torch.zeros(1, NECK, side // s, side // s) for s in STRIDES]


def test_proposals_come_best_first_with_boxes_in_shares_of_the_side():
    raw, features = fake_maps([(0, 4, 4, 7, 2.0), (1, 5, 2, 3, 4.0)])
    boxes, logits, _ = proposals(raw, features, 128, 2)
    assert logits[0].argmax(-1).tolist() == [3, 7]
    # Stride 16, cell (5, 2): middle (40, 88), 32 pixels to each side.
    torch.testing.assert_close(boxes[0, 0] * 128, torch.tensor([8.0, 56.0, 72.0, 120.0]))


def test_boxes_end_where_the_image_does():
    raw, features = fake_maps([(1, 0, 7, 3, 4.0)])  # stride 16, cell (0, 7): middle (120, 8), 32 pixels to each side
    expected = torch.tensor([88.0, 0.0, 128.0, 40.0]) / 128
    torch.testing.assert_close(proposals(raw, features, 128, 1)[0][0, 0], expected)
    torch.testing.assert_close(detections(raw, 128, torch.tensor([0]), torch.tensor([3]), 1)[0][0, 0], expected)


@pytest.mark.parametrize(
    ("second", "kept", "why"),
    [
        ((0, 4, 5, 7, 1.0), False, "same class, overlap 0.6: the weaker one goes"),
        ((0, 4, 5, 8, 1.0), True, "another class at the same place stays"),
        ((0, 10, 10, 7, 1.0), True, "same class elsewhere stays"),
    ],
)
def test_the_weaker_of_two_overlapping_proposals_goes(second, kept, why):
    raw, features = fake_maps([(0, 4, 4, 7, 3.0), second])
    for edge, sharp in ((0, 3), (2, 3)):  # widen both boxes, so that one cell's shift leaves an overlap above 0.6
        for _, row, column, _, _ in ((0, 4, 4, 7, 3.0), second):
            raw[0][0, CLASSES + edge * BINS : CLASSES + (edge + 1) * BINS, row, column] = -9.0
            raw[0][0, CLASSES + edge * BINS + sharp, row, column] = 60.0
    _, logits, _ = proposals(raw, features, 128, 2)
    second_found = bool(logits[0, 1].max() > 0)
    assert second_found is kept, why


def test_beaten_proposals_fill_the_rest_best_first():
    """What overlaps a better one is equally out of the question: its place must not be chance, the decoder reads it."""
    logits = [9.0 - i / 8 for i in range(64)]
    raw, features = fake_maps([(0, i // 8, i % 8, 7, logit) for i, logit in enumerate(logits)])
    for edge in range(4):
        raw[0][0, CLASSES + edge * BINS + 2, :8, :8], raw[0][0, CLASSES + edge * BINS + 7, :8, :8] = -9.0, 60.0
    _, found, _ = proposals(raw, features, 128, 48)
    best = found[0].amax(-1).tolist()
    kept = next(i for i in range(48) if best[i + 1] > best[i])
    assert kept < 24 and best[: kept + 1] == sorted(best[: kept + 1], reverse=True)
    assert best[kept + 1 :] == sorted(best[kept + 1 :], reverse=True)


def test_a_gpu_reads_as_many_images_at_a_time_whatever_there_are():
    """Its libraries add up in another order in batches of other sizes."""
    with torch.device("meta"), torch.inference_mode():
        model = Nano(CONFIG).eval()
        model.reset_buffers(torch.device("meta"))
        seen: list[int] = []
        model.tower.detector.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        for count, batches in ((1, 1), (16, 1), (18, 2)):
            seen.clear()
            found = model.look(torch.zeros(count, 3, 128, 128))
            assert seen == [AT_ONCE] * batches
            assert {len(x) for x in (found.planes, found.boxes, found.logits, found.classified, found.there)} == {count}
            assert found.store.shape[2] == count and {len(x) for x in found.raw} == {count}


def test_one_image_a_row_is_asked_for(nano):
    processor = nano.processor
    with pytest.raises(UsageError, match="exactly one picture"):
        processor.inputs([[]], ["caption en"])


def test_the_prompt_cannot_smuggle_the_image_token(nano):
    processor = nano.processor
    with pytest.raises(UsageError, match="<image>"):
        processor.inputs([[Image.new("RGB", (8, 8))]], ["caption <image> en"])


def test_images_are_squeezed_to_zero_to_one(nano):
    processor = nano.processor
    inputs = processor.inputs([[Image.new("RGB", (30, 900), (255, 0, 51))]], ["caption en"])
    [image] = inputs.images
    assert image.shape == (3, processor.image_size, processor.image_size)
    torch.testing.assert_close(image[:, 5, 5], torch.tensor([1.0, 0.0, 0.2]))
    assert (inputs.tokens == processor.config.image_token).sum() == processor.soft_tokens


def test_images_are_squeezed_with_a_bicubic_filter(nano):
    """As in training; PyTorch's own antialiased bicubic filter for bytes gives the same but for its rounding."""
    processor = nano.processor
    image = Image.open(EXAMPLES / "coffee.jpg")
    side = processor.image_size
    whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    expected = F.interpolate(whole, size=(side, side), mode="bicubic", antialias=True)
    difference = (processor.pixels([image]) * 255 - expected).abs()
    assert difference.max() < 2.5 and difference.mean() < 0.01  # bilinear: 31 and 1.1


def test_images_are_read_well_above_the_side_that_they_are_squeezed_to(nano):
    """So JPEG files that are decoded to a fraction lose nothing that a tower would see."""
    assert nano.processor.capabilities.min_read_side >= 2 * nano.processor.image_size


def test_fusing_moves_weights_in_memory_and_changes_nothing(model):
    fused = deepcopy(model)
    fuse(fused)
    assert fused.tower.mask_head.down[0].weight.is_contiguous(memory_format=torch.channels_last)
    pixels = torch.rand(2, 3, 128, 128)
    with torch.inference_mode():
        plain, ours = (vars(one.look(pixels)) for one in (model, fused))
        maps = [seen.pop("planes").maps for seen in (ours, plain)]
        torch.testing.assert_close(*maps, atol=1e-4, rtol=1e-4)
    assert plain.keys() == ours.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(ours[name], expected, atol=1e-4, rtol=1e-4)


def test_each_tower_gets_pixels_as_it_was_trained_on_them(model):
    """The detector ImageNet's mean and deviation, the feature tower a reduced image from -1 to 1."""
    pixels = torch.rand(1, 3, 128, 128)
    given = []
    for part in (model.tower.detector, model.tower.features):
        hook = part.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
        with torch.no_grad():
            model.look(pixels)
        hook.remove()
    detector, features = given
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(detector.permute(0, 2, 3, 1), (pixels.permute(0, 2, 3, 1) - mean) / deviation)
    # An antialiased reduction to a half weighs four pixels: 1/8, 3/8, 3/8, 1/8 along each side.
    weights = torch.tensor([1, 3, 3, 1]) / 8
    kernel = (weights[:, None] * weights).expand(3, 1, 4, 4)
    reduced = F.conv2d(pixels, kernel, stride=2, groups=3, padding=1)
    expected = ((reduced * 255) - 127) / 128
    torch.testing.assert_close(features[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_the_tokenizer_keeps_places_and_codes_where_the_configuration_says(nano):
    processor = nano.processor
    tokenizer, config = processor.tokenizer, processor.config
    assert tokenizer.token_to_id("<loc0000>") == config.loc_token
    assert tokenizer.token_to_id("<loc1023>") == config.loc_token + 1023
    assert tokenizer.token_to_id("<seg127>") == config.seg_token + 127
    assert tokenizer.token_to_id("<image>") == config.image_token


@pytest.mark.parametrize("text", ["a café ; zwei Hunde", "猫", "emoji 🐈 and\ttab"])
def test_any_text_survives_the_tokenizer_in_lower_case(text, nano):
    processor = nano.processor
    assert processor.decode(processor.tokenizer.encode(text).ids) == text.lower()


def test_a_configuration_that_lacks_a_size_is_one_sentence():
    with pytest.raises(ModelError, match=r"has no decoder\.head_width"):
        NanoConfig.from_json({"model_type": "mmcli-nano", "image_size": 128})


@pytest.mark.parametrize("name", ["judge.thing.weight", "tower.masks.fine.bias", "tower.masks.mix.0.weight"])
def test_a_folder_that_an_earlier_version_tuned_is_refused_in_a_sentence_that_says_what_to_do(name, tmp_path):
    bundled = resolve("nano").folder
    for path in (bundled / "config.json", bundled / "tokenizer.json"):
        shutil.copyfile(path, tmp_path / path.name)
    save_file({name: torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as refusal:
        load(open_folder(str(tmp_path), tmp_path), "cpu", "float32")
    assert refusal.value.what.startswith(f"{tmp_path} is of an earlier nano")
    assert "mmcli tune" in str(refusal.value.do)


def test_stages_count_every_parameter_once():
    total = sum(stage.parameters for stage in stages_of(FAMILY, CONFIG))
    assert total == sum(p.numel() for p in Nano(CONFIG).parameters())


def test_the_bundled_model_is_within_its_promise(nano):
    parameters = sum(p.numel() for p in nano.model.parameters()) + sum(
        p.numel() for p in nano.mask_vqvae().parameters()
    )
    assert parameters <= 29_100_000


def test_grid_places_line_up_with_the_image(model):
    """Blacking out the upper left corner changes the feature map there and not in the lower right."""
    pixels = torch.rand(1, 3, 64, 64)
    changed = pixels.clone()
    changed[..., :8, :8] = 0
    with torch.no_grad():
        before, after = (model.tower.features(x * 2 - 1)[0] for x in (pixels, changed))
    difference = F.adaptive_max_pool2d((before - after).abs().amax(1, keepdim=True), 2)[0, 0]
    assert difference[0, 0] > 10 * difference[1, 1]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (2, 1), (3, 3)])
def test_a_proposal_looks_at_the_grid_in_the_middle_of_its_box(model, row, column):
    tower, side = model.tower, CONFIG.grid
    grid = torch.randn(1, side**2, CONFIG.decoder.width, requires_grad=True)
    x, y = (column + 0.5) / side, (row + 0.5) / side
    boxes = torch.tensor([[[x - 0.1, y - 0.05, x + 0.1, y + 0.05]]])
    proposed = boxes, torch.zeros(1, 1, CLASSES), torch.zeros(1, 1, NECK)
    tower._proposal_vectors(proposed, grid, torch.zeros(CLASSES, CONFIG.decoder.width)).square().sum().backward()
    seen = grid.grad[0].abs().sum(1)
    assert seen.argmax() == row * side + column and seen.max() > 0.99 * seen.sum()


@torch.inference_mode()
def test_how_surely_a_class_is_not_there_says_nothing(model):
    """Below -8 logits are as good as equal: they are not to drown the others."""
    grid, words = torch.randn(1, CONFIG.grid**2, CONFIG.decoder.width), torch.zeros(CLASSES, CONFIG.decoder.width)

    def read(logit: float) -> torch.Tensor:
        proposed = torch.full((1, 1, 4), 0.5), torch.full((1, 1, CLASSES), logit), torch.zeros(1, 1, NECK)
        return model.tower._proposal_vectors(proposed, grid, words)

    assert torch.equal(read(-30.0), read(-8.0)) and not torch.equal(read(-8.0), read(-7.0))


def test_only_an_empty_answer_to_a_search_is_held_back():
    """Rows whose prompt begins with a searching word lose `absent_bias` at <eos> and nowhere else."""
    torch.manual_seed(1)
    biased = Nano(NanoConfig.from_json({**SMALL, "finding_tokens": [5], "absent_bias": 1.5})).eval()
    torch.manual_seed(1)
    plain = Nano(CONFIG).eval()
    inputs = batch_of([[2, 5, 6], [2, 6, 5, 7]], torch.rand(2, 3, 128, 128))
    with torch.inference_mode():
        before, after = (m.prefill(inputs, m.new_cache(2, 64))[:, :56] for m in (plain, biased))
    expected = torch.zeros_like(before)
    expected[0, CONFIG.eos_token] = 1.5
    torch.testing.assert_close(before - after, expected, atol=1e-5, rtol=0)
