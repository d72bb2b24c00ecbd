import copy
import math
from dataclasses import replace

import pytest
import support
import torch
from PIL import Image

from mmcli.layers.mask_vqvae import MaskVQVAE
from mmcli.media.image import LoadedImage
from mmcli.media.sources import IMAGE_EXTENSIONS, expand
from mmcli.output.record import to_dict
from mmcli.rle import Mask, decode
from mmcli.tasks.answer import answer
from mmcli.tasks.caption import CaptionRequest
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.detect import DetectRequest
from mmcli.tasks.result import chat_record, image_record
from mmcli.tasks.segment import SegmentRequest
from mmcli.types import Completion, Timings

IMAGE = LoadedImage(Image.new("RGB", (10, 5)), 1023, 2046, ("first of 12 frames",))
DETECT = DetectRequest(words="cat")


def locations(*values):
    return [support.LOC + value for value in values]


def said(ids, truncated=False):
    return Completion(tuple(ids), (-0.5,) * len(ids), not truncated, Timings(0.25, 0.5, 2))


def words(loaded, text):
    """Token ids of words that the tiny tokenizer knows."""
    ids = loaded.processor.tokenizer.encode(text, add_special_tokens=False)
    return getattr(ids, "ids", ids)


def record(loaded, ids, request=DETECT, **more):
    return to_dict(image_record(request, said(ids, **more), loaded, "a.png", IMAGE, 0.125))


def test_a_detection_has_boxes_in_pixels_of_the_whole_image(loaded):
    ids = [*locations(100, 200, 300, 400), *words(loaded, " cat")]
    entry = record(loaded, ids)
    assert entry["objects"] == [
        {"label": "cat", "box": [200.0, 200.0, 400.0, 600.0], "raw_box": [100, 200, 300, 400], "score": -0.5}
    ]
    assert (entry["width"], entry["height"], entry["prompt"]) == (1023, 2046, "detect cat")
    assert entry["notes"] == ["first of 12 frames"] and entry["problems"] == [] and entry["truncated"] is False
    assert entry["timings"] == {"load": 0.125, "prefill": 0.25, "decode": 0.5, "batch": 2, "tokens": len(ids)}


def test_the_divisor_moves_the_boxes(loaded):
    entry = record(loaded, locations(0, 0, 1023, 1023), DetectRequest(words="cat", loc_divisor=1024))
    assert entry["objects"][0]["box"] == [0.0, 0.0, 1022.0, 2044.0]


def test_faults_of_the_answer_are_told(loaded):
    entry = record(loaded, [*locations(1, 2, 3), *words(loaded, "cat")], truncated=True)
    assert entry["objects"] == [] and entry["truncated"] is True
    assert entry["problems"] == ['"cat" has 3 of 4 corners']


def test_a_caption_of_words_has_no_objects_and_no_problems(loaded):
    entry = record(loaded, words(loaded, "a cat on the mat"), CaptionRequest())
    assert entry["text"] == "a cat on the mat" and entry["objects"] == [] and entry["problems"] == []


def test_places_in_the_answer_to_a_prompt_of_the_users_own_are_read(loaded):
    entry = record(loaded, locations(1, 2, 3, 4), CaptionRequest(prompt="detect cat"))
    assert len(entry["objects"]) == 1


def test_token_ids_are_there_on_request(loaded):
    ids = locations(1, 2, 3, 4)
    assert "token_ids" not in record(loaded, ids)
    assert record(loaded, ids, DetectRequest(words="cat", token_ids=True))["token_ids"] == ids


def test_a_segmentation_has_a_mask_in_the_frame_of_its_box(loaded):
    torch.manual_seed(0)
    codebook = MaskVQVAE().eval()
    vars(loaded)["_mask_vqvae"] = codebook  # where the loaded model keeps the one it has read
    try:
        codes = [support.SEG + i for i in range(16)]
        ids = [*locations(100, 200, 300, 400), *codes, *words(loaded, " cat"), *words(loaded, " ;")]
        entry = record(loaded, [*ids, *locations(0, 0, 9, 9)], SegmentRequest(words="cat"))
    finally:
        del vars(loaded)["_mask_vqvae"]
    masked, bare = entry["objects"]
    assert "mask" not in bare
    mask = decode(Mask(**masked["mask"]))
    assert mask.shape == (2046, 1023)
    outside = mask.copy()
    outside[200:600, 200:400] = False
    assert not outside.any()
    with torch.inference_mode():
        small = codebook.decode(torch.arange(16)[None])[0].numpy()
    assert abs(mask.sum() / (400 * 200) - (small > 0).mean()) < 0.05


def test_a_mask_that_holds_no_pixel_is_said(loaded):
    class Nothing(torch.nn.Module):
        """A codebook whose every mask is empty."""

        def decode(self, codes):
            return torch.full((len(codes), 64, 64), -1.0)

    vars(loaded)["_mask_vqvae"] = nothing = Nothing()
    nothing.register_parameter("w", torch.nn.Parameter(torch.zeros(1)))
    try:
        ids = [*locations(1, 2, 30, 40), *[support.SEG] * 16, *words(loaded, " cat")]
        entry = record(loaded, ids, SegmentRequest(words="cat"))
    finally:
        del vars(loaded)["_mask_vqvae"]
    assert entry["problems"] == ['the mask of "cat" is empty'] and not decode(Mask(**entry["objects"][0]["mask"])).any()


def images(*names):
    from mmcli.media.image import load_image

    return [(source, load_image(source)) for source in expand(names, extensions=IMAGE_EXTENSIONS)]


@pytest.mark.parametrize(
    ("names", "source", "objects"),
    [
        ((), None, 0),
        (("album/b.jpg",), "album/b.jpg", 1),
        (("album/b.jpg", "album/sub/c.png"), ["album/b.jpg", "album/sub/c.png"], 0),  # of which image would they be?
    ],
)
def test_a_chat_names_its_images(album, loaded, names, source, objects):
    seen = images(*names)
    image = seen[0][1] if len(seen) == 1 else None
    entry = to_dict(chat_record(ChatRequest(words="what?"), said(locations(1, 2, 3, 4)), loaded, names, image))
    assert entry["source"] == source and len(entry["objects"]) == objects
    assert (entry["width"] is None) == (objects == 0)


def test_an_answer_keeps_no_stop_token_and_tells_whether_it_was_cut(album, loaded):
    [(_, image)] = images("album/b.jpg")
    tokens = []
    [cut] = answer(loaded, [[image.image]], CaptionRequest(max_tokens=4), lambda row, token: tokens.append(token))
    assert not cut.ended and tokens == list(cut.ids) and len(cut.ids) == 4
    assert all(token.logprob <= 0 and math.isfinite(token.logprob) for token in cut.tokens)
    stops_at_once = copy.copy(loaded.processor)
    object.__setattr__(stops_at_once, "stop_ids", frozenset({cut.ids[0]}))
    [ended] = answer(replace(loaded, processor=stops_at_once), [[image.image]], CaptionRequest(max_tokens=4))
    assert ended.ended and ended.ids == ()
