"""How nano is taught: several questions about one image, each seeing the image and itself alone.

What the decoder makes of an image decides how it classifies the detector's proposals, and that was calibrated for the
classes that it knew. So training is held to leave that as it was (feature distillation, in the manner of learning
without forgetting; Li & Hoiem, arXiv:1606.09282): what is new is learned in the words about the image.
"""

import copy
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmcli.decode import CODES, CORNERS, MASK_CODES
from mmcli.decode.locations import encode_box, not_empty
from mmcli.errors import InputError
from mmcli.example import Example, LabelledObject
from mmcli.models.location_answers import exchanges
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.finding import MOST_OBJECTS
from mmcli.models.nano.labels import LABELS
from mmcli.models.nano.mask_planes import MaskPlanes
from mmcli.models.nano.model import Nano
from mmcli.models.nano.processor import NanoProcessor
from mmcli.models.nano.words import known
from mmcli.models.nano.writing import box_of
from mmcli.models.object_text import codes_of
from mmcli.models.objects_in_text import with_objects
from mmcli.models.teaching import Batch, Row, Teaching, open_images, seen_mask

if TYPE_CHECKING:
    from mmcli.engine.model import GenerativeModel
    from mmcli.models.loaded import Loaded

MOST_ABSENT = 2  # labels that are asked for in vain, of one image
MOST_ASKED = 4  # … that it shows and that are asked for at one time, where rows are varied: the others another time
SMALLEST_CUT = 0.6  # share of an image's sides that is shown
LEAST_LEFT = 0.5  # share of an object's area that must be inside of what is shown; less of it is not asked for
KEPT = 1.0  # weight of leaving the image's states as they were
LONGEST_LABEL = 60  # characters


class NanoTeaching(Teaching):
    """An image is one row: its soft tokens, and a question for each label."""

    adapted = ("attention.q", "attention.k", "attention.v", "attention.out", "mlp.gate", "mlp.up", "mlp.down")
    head = ("tower.grid_in.", "tower.proposal_", "tower.mask_head.")
    frozen = ("tower.detector.", "tower.features.", "classifier.")
    shared = False  # it is small
    rate = 2e-4
    lora_rate = 1e-3

    def configured(self, raw: dict[str, Any], labels: Iterable[str]) -> dict[str, Any]:
        """The labels that are new stand behind those that nano was taught before."""
        before = list(raw.get("things", LABELS))
        new = dict.fromkeys(plain for label in labels if (plain := _plain(label)) and known(plain, before) is None)
        return {**raw, "things": [*before, *new]} if new else raw

    def rows(self, loaded: "Loaded", example: Example, rng: random.Random, *, vary: bool = False) -> Sequence[Row]:
        """As `Teaching.rows`; varied images are cut and mirrored."""
        processor = cast(NanoProcessor, loaded.processor)  # the family's own
        images = open_images(example, processor.capabilities.min_read_side)
        if len(images) != 1:
            raise InputError(f"{example.where} has {len(images)} images, but this model reads exactly one at a time")
        image = images[0]
        example = with_objects(example)
        finds = example.task in ("detect", "segment")
        if finds and vary:
            image, example = _varied(image, example, rng)
        most = MOST_ASKED if vary else len(example.objects)
        asked = self._objects(loaded, example, rng, most) if finds else self._texts(loaded, example)
        if not asked:
            raise InputError(f"{example.where} asks for nothing", "Name what is to be found, or give an answer")
        soft = processor.soft_tokens
        tokens, question = [loaded.config.image_token] * soft, [0] * soft
        prefix, learned = [True] * soft, [False] * soft
        for number, (prompt, answer) in enumerate(asked, start=1):
            tokens += [*prompt, *answer]
            prefix += [True] * len(prompt) + [False] * len(answer)
            learned += [False] * len(prompt) + [True] * len(answer)
            question += [number] * (len(prompt) + len(answer))
        pixels = processor.pixels([image])[0]
        return [Row(tuple(tokens), tuple(learned), tuple(prefix), tuple(question), images=(pixels,))]

    def _texts(self, loaded: "Loaded", example: Example) -> list[tuple[list[int], list[int]]]:
        processor = cast(NanoProcessor, loaded.processor)
        return [
            (processor.prompt_tokens(prompt), [*processor.text_ids(answer), loaded.config.eos_token])
            for prompt, answer in exchanges(loaded, example)
        ]

    def _objects(
        self, loaded: "Loaded", example: Example, rng: random.Random, most: int
    ) -> list[tuple[list[int], list[int]]]:
        """A question for each label that the image shows, `most` of them, and for some that it does not."""
        processor, config = cast(NanoProcessor, loaded.processor), cast(NanoConfig, loaded.config)
        found: dict[str, list[LabelledObject]] = {}
        for one in example.objects:
            label = known(_plain(one.label), config.things)
            if label is None:
                raise InputError(f"{example.where} has the label {one.label!r}, which is no short name", "Rename it")
            found.setdefault(label, []).append(one)
        absent = {known(_plain(label), config.things) for label in example.exhaustive} - found.keys() - {None}
        names = sorted(cast(set[str], absent))
        vain = rng.sample(names, min(len(names), MOST_ABSENT))
        there = list(found) if len(found) <= most else rng.sample(list(found), most)
        asked = []
        for label in [*there, *vain]:
            prompt = processor.prompt_tokens(f"detect {label}")
            asked.append((prompt, self._answer(loaded, label, found.get(label, ()))))
        if example.task == "segment":
            for label in there:
                for one in [one for one in found[label] if one.mask is not None][:MOST_OBJECTS]:
                    prompt = processor.prompt_tokens(f"segment {label}")
                    asked.append((prompt, self._answer(loaded, label, [one], masks=True)))
        return asked

    def _answer(
        self, loaded: "Loaded", label: str, objects: Sequence[LabelledObject], masks: bool = False
    ) -> list[int]:
        """The tokens of boxes, large ones first, with their mask codes if asked for, and the end."""
        processor, config = cast(NanoProcessor, loaded.processor), cast(NanoConfig, loaded.config)
        largest = sorted(objects, key=lambda one: -(one.box[2] - one.box[0]) * (one.box[3] - one.box[1]))
        ids: list[int] = []
        for one in largest[:MOST_OBJECTS]:
            loc = not_empty(encode_box(one.box, 1, 1))
            ids += processor.text_ids(" ;") if ids else []
            ids += [config.loc_token + value for value in loc]
            if masks and one.mask is not None:
                ids += [config.seg_token + code for code in codes_of(one.mask, one.box, loaded.mask_vqvae())]
            ids += processor.text_ids(f" {label}")
        return [*ids, config.eos_token]

    # -- the model ---------------------------------------------------------------------------------------------------

    def begin(self, model: "GenerativeModel") -> None:
        """Keep the model as it was, to compare with."""
        own = cast(Nano, model)
        before = copy.deepcopy(own).eval().requires_grad_(False)
        object.__setattr__(own, "before", before)  # no part of the model: neither trained nor saved

    def states(self, model: "GenerativeModel", batch: Batch) -> Tensor:
        """As `Teaching.states`; behind each state stand the mask head's logits of codes: [B, T, D + 128]."""
        own = cast(Nano, model)
        soft, planes = _read(own, torch.stack(batch.inputs.images))
        tokens = batch.inputs.tokens
        is_image = tokens == own.image_token
        x = own.decoder.embed(tokens.masked_fill(is_image, 0))
        x = x.masked_scatter(is_image[..., None], soft.to(x.dtype))
        hidden = own.decoder(x, _positions(batch, own.config), seen_mask(batch))
        return torch.cat((hidden, _code_logits(own, planes, batch).to(hidden.dtype)), -1)

    def logits(self, model: "GenerativeModel", states: Tensor) -> Tensor:
        """As `Teaching.logits`."""
        own = cast(Nano, model)
        hidden, codes = states.split((states.shape[-1] - MASK_CODES, MASK_CODES), -1)
        logits = super().logits(own, hidden)
        first = own.config.seg_token
        return logits + F.pad(codes.to(logits.dtype), (first, logits.shape[-1] - first - MASK_CODES))

    def further_loss(self, model: "GenerativeModel", batch: Batch, states: Tensor) -> Tensor | None:
        """How far the states of the images are from what they were, for each row in shares of their size."""
        own: Any = model
        before = getattr(own, "before", None)
        if before is None:
            return None
        soft = own.config.soft_tokens
        with torch.no_grad():
            vectors, _ = _read(before, torch.stack(batch.inputs.images))
            places = torch.arange(soft, device=vectors.device).expand(len(vectors), -1)
            mask = torch.ones(len(vectors), 1, soft, soft, dtype=torch.bool, device=vectors.device)
            wanted = before.decoder(vectors, places, mask)
        hidden = states[:, :soft, :-MASK_CODES]
        return KEPT * (hidden - wanted).square().mean((1, 2)).div(wanted.square().mean((1, 2))).sum()


def _read(own: Nano, pixels: Tensor) -> tuple[Tensor, MaskPlanes]:
    with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        found, raw = own.tower.detect(pixels)  # never trained, and in full precision: boxes are copied from it
        proposed = own.tower.propose(raw, found)
    return own.tower.read(pixels, found, proposed, own.class_words())


def _positions(batch: Batch, config: NanoConfig) -> Tensor:
    """Every question begins right behind the image: [B, T]."""
    question = batch.question
    places = torch.arange(question.shape[1], device=question.device).expand_as(question)
    begins = torch.where(F.pad(question[:, :-1], (1, 0)) != question, places, 0).cummax(1).values
    return torch.where(question > 0, config.soft_tokens + places - begins, places)


def _code_logits(own: Nano, planes: MaskPlanes, batch: Batch) -> Tensor:
    """What is added to the logits of codes, at the tokens that one follows: [B, T, 128]."""
    config, tokens = own.config, batch.inputs.tokens
    is_code = (tokens >= config.seg_token) & (tokens < config.seg_token + MASK_CODES)
    added = planes.maps.new_zeros(*tokens.shape, MASK_CODES)
    starts = (is_code & ~F.pad(is_code[:, :-1], (1, 0))).nonzero().tolist()
    for row, first in starts:
        box = box_of(tokens[row : row + 1, first - CORNERS : first] - config.loc_token)
        asked = batch.prefix[row] & (batch.question[row] == batch.question[row, first])
        words = own.asked_words(tokens[row : row + 1, asked])
        logits = own.tower.mask_logits(planes.of(torch.tensor([row], device=tokens.device)), box, words)
        places = torch.tensor([row]), torch.arange(first - 1, first - 1 + CODES)
        added = added.index_put(places, logits[0].to(added.dtype))
    return added


def _plain(label: str) -> str:
    """A label as nano lists it; "" for one that is no short name."""
    plain = " ".join(label.lower().split())
    return "" if ";" in plain or len(plain) > LONGEST_LABEL else plain


def _varied(image: Image.Image, example: Example, rng: random.Random) -> tuple[Image.Image, Example]:
    """A part of the image, in half of the cases mirrored, and its objects there; with masks it stays as it is."""
    if any(one.mask is not None for one in example.objects):
        return image, example
    width, height = (rng.uniform(SMALLEST_CUT, 1.0) for _ in range(2))
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    mirrored = rng.random() < 0.5
    objects, cut_off = [], set()
    for one in example.objects:
        x0, x1 = (min(max((edge - x) / width, 0.0), 1.0) for edge in one.box[::2])
        y0, y1 = (min(max((edge - y) / height, 0.0), 1.0) for edge in one.box[1::2])
        area = (one.box[2] - one.box[0]) * (one.box[3] - one.box[1])
        if (x1 - x0) * (y1 - y0) * width * height < LEAST_LEFT * area or x1 <= x0 or y1 <= y0:
            cut_off.add(one.label)
            continue
        x0, x1 = (1 - x1, 1 - x0) if mirrored else (x0, x1)
        objects.append(replace(one, box=(x0, y0, x1, y1)))
    if cut_off:  # what is half there is neither there nor absent
        return image, example
    sides = image.size
    left, top = round(x * sides[0]), round(y * sides[1])
    shown = image.crop((left, top, round((x + width) * sides[0]), round((y + height) * sides[1])))
    shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else shown
    return shown, replace(example, objects=tuple(objects))
