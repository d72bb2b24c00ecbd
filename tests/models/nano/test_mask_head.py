"""While a mask is written the head adds what the box shows, on small random weights."""

from dataclasses import replace

import torch

from mmcli.engine.inputs import Inputs, pad_left
from mmcli.models.nano import Nano, NanoConfig

LOCATED = {  # room for the places and codes that a mask is made of
    "image_size": 128, "feature_size": 64, "proposals": 6, "image_token": 1240, "loc_token": 40, "seg_token": 1064,
    "pad_token": 0, "eos_token": 1, "bos_token": 2, "finding_tokens": [16, 17], "first_words": [0, 0],
    "later_words": [0, 0], "class_tokens": [[3 + i % 17] for i in range(80)],
    "decoder": {
        "vocabulary": 1248, "width": 32, "depth": 2, "mlp_width": 48, "heads": 4, "key_heads": 2, "head_width": 8,
    },
}  # fmt: skip


def test_while_a_mask_is_written_the_head_adds_to_the_logits_of_each_code():
    """After the fourth place and each code but the last, for that place of the box; never else."""
    torch.manual_seed(3)
    config = NanoConfig.from_json(LOCATED)
    model = Nano(config).eval()
    pixels = torch.rand(2, 3, 128, 128)
    soft = [config.image_token] * config.soft_tokens
    inputs = Inputs(*pad_left([soft + [2, 17, 8], soft + [2, 16, 8]], 0), tuple(pixels))
    box = (100, 200, 700, 900)  # y0, x0, y1, x1
    answer = [*(40 + v for v in box), *(1064 + i for i in range(16)), 9, *(40 + v for v in box)]
    added = []
    with torch.inference_mode():
        cache = model.new_cache(2, inputs.tokens.shape[1] + len(answer))
        seen = model.look(pixels)
        model.prefill(replace(inputs, context=seen), cache)
        read = cache.context.read
        cache.context.read = lambda *rest: added.append(read(*rest)) or added[-1]
        for token in answer:
            model.step(torch.tensor([token, token]), cache)
        corners = torch.tensor([[200, 100, 900, 700]]) / 1023
        words = model.asked_words(torch.tensor([[2, 17, 8]]))
        own = model.tower.mask_logits(seen.planes.of(torch.tensor([0])), corners, words)[0]
    assert own.shape == (16, 128) and own.std(0).all()
    for i in range(16):
        torch.testing.assert_close(added[3 + i][0], own[i], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(added[-1][0], own[0], atol=1e-5, rtol=1e-4)  # the next object's box
    assert all(not added[i][0].any() for i in (0, 1, 2, 19, 20, 21, 22, 23))
    assert not torch.stack([logits[1] for logits in added]).any(), "detect writes no masks"


def test_boxes_that_are_known_beforehand_show_what_they_do_as_they_are_written():
    torch.manual_seed(3)
    config = NanoConfig.from_json(LOCATED)
    model = Nano(config).eval()
    soft = [config.image_token] * config.soft_tokens
    inputs = Inputs(*pad_left([soft + [2, 17, 8], soft + [2, 17, 8, 9]], 0))
    boxes = [(100, 200, 700, 900), (0, 0, 500, 300)]  # y0, x0, y1, x1
    logits = []
    with torch.inference_mode():
        seen = model.look(torch.rand(2, 3, 128, 128))
        for context in (seen.about([1, 0]), seen.about([1, 0], boxes)):
            cache = model.new_cache(2, inputs.tokens.shape[1] + 20)
            model.prefill(replace(inputs, context=context), cache)
            answers = [[40 + place for place in box] + [1064 + i for i in range(16)] for box in boxes]
            logits.append(torch.stack([model.step(torch.tensor(tokens), cache) for tokens in zip(*answers)]))  # noqa: B905
    torch.testing.assert_close(*logits)
    assert (logits[0][3:18, :, 1064:1192].std() > 0).all()
