"""Boxes, quads and polygons of an answer are those of transformers' `post_process_generation`."""

import random
import re

import florence2_folders as folders
import pytest
from transformers import Florence2Processor

from mmcli.engine.search import Search
from mmcli.hub.image_settings import ImageSettings
from mmcli.hub.tokenizer import Tokenizer
from mmcli.models.florence2.config import Florence2Config
from mmcli.models.florence2.processor import Florence2Processor as OurProcessor
from mmcli.models.florence2.prompts import TASKS, UNNAMED
from mmcli.types import Token

SIZES = ((701, 333), (97, 1203))  # no bin's middle falls on a whole pixel, where float32 may round either way
TOKENIZER = folders.tiny_tokenizer()
MARKS = {name: TOKENIZER.token_to_id(name) for name in ("<sep>", "<poly>", "</poly>")}
LABELS = ("cat", " red ball", "it", "person < 1", "café", "a\nb")


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Florence2Processor:
    return folders.write_checkpoint(tmp_path_factory.mktemp("florence2"), folders.tiny_reference())


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> OurProcessor:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    TOKENIZER.save(str(path))
    config = Florence2Config.from_hf(folders.tiny_config().to_dict())
    return OurProcessor(config, ImageSettings(96), Tokenizer.open(path), Search(), frozenset({folders.EOS}))


def words(text: str) -> list[int]:
    return TOKENIZER.encode(text).ids


def locations(draw: random.Random, count: int) -> list[int]:
    return [folders.LOC + draw.randrange(1000) for _ in range(count)]


def answer(draw: random.Random, kind: str) -> list[int]:
    """Objects as the model writes them, now and then broken."""
    ids: list[int] = []
    for _ in range(draw.randrange(1, 6)):
        ids += words(draw.choice(LABELS)) if draw.random() < 0.8 else []
        if kind == "polygons":
            closed = draw.random() < 0.5
            for _ in range(draw.randrange(1, 3)):
                ids += [MARKS["<poly>"]] if closed else []
                for part in range(draw.randrange(1, 4)):
                    ids += [MARKS["<sep>"]] if part else []
                    ids += locations(draw, draw.choice((2, 5, 6, 8, 11)))
                ids += [MARKS["</poly>"]] if closed else []
        else:
            ids += locations(draw, draw.choice((3, 4, 5, 8, 9)) if kind == "boxes" else draw.choice((7, 8, 8, 9)))
    return ids if draw.random() < 0.7 else ids[: draw.randrange(len(ids) + 1)]


def parse(ours: OurProcessor, task: str, ids: list[int], size: tuple[int, int]):
    prompt = task + ("the cat" if TASKS[task].takes_words else "")
    grammar = ours.grammar_for(prompt)
    found = grammar.parse([Token(id, -1.0) for id in ids], ours.decode).objects
    return grammar, found


def post_process(reference, task: str, ids: list[int], size: tuple[int, int]):
    text = reference.batch_decode([[folders.BOS, *ids, folders.EOS]], skip_special_tokens=False)[0]
    return reference.post_process_generation(text, task=task, image_size=size)[task]


def whole(values) -> list[int]:
    """The reference cuts pixels' fractions off."""
    return [int(value) for value in values]


def named(labels: list[str], places: list) -> list[tuple[str, list]]:
    """Their places with labels. What stands in front of malformed ones takes the letters of a mark for a label."""
    words = [re.sub(r".*(loc_\d+|/?poly|sep)>", "", label).strip() for label in labels]
    return [(label, place) for label, place in zip(words, places, strict=True) if label]


def ascii_only(text: str) -> str:
    return text.encode("ascii", "ignore").decode()


@pytest.mark.parametrize(
    "task",
    ["<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<CAPTION_TO_PHRASE_GROUNDING>"]
    + ["<OPEN_VOCABULARY_DETECTION>"],
)
@pytest.mark.parametrize("size", SIZES)
def test_boxes(reference, ours, task, size):
    draw, count = random.Random(1), 0
    for _ in range(80):
        ids = answer(draw, "boxes")
        theirs = post_process(reference, task, ids, size)
        labels = theirs.get("labels", theirs.get("bboxes_labels"))
        grammar, found = parse(ours, task, ids, size)
        mine = [(ascii_only(one.label), whole(grammar.box(one.loc, *size))) for one in found]
        boxes = named(labels, theirs["bboxes"]) if TASKS[task].labelled else [("", box) for box in theirs["bboxes"]]
        boxes = [pair for pair in boxes if not TASKS[task].names or pair[0] not in UNNAMED]
        # A box that ends where it begins, or before, is no object of ours.
        bins = [(label, box) for label, box in boxes if box[0] < box[2] and box[1] < box[3]]
        thin = [pair for pair in mine if pair[1][0] == pair[1][2] or pair[1][1] == pair[1][3]]
        assert [pair for pair in mine if pair not in thin] == bins
        count += len(bins)
    assert count > 25


@pytest.mark.parametrize("size", SIZES)
def test_quads(reference, ours, size):
    draw, count = random.Random(2), 0
    for _ in range(80):
        ids = answer(draw, "quads")
        theirs = post_process(reference, "<OCR_WITH_REGION>", ids, size)
        grammar, found = parse(ours, "<OCR_WITH_REGION>", ids, size)
        expected = named(theirs["labels"], theirs["quad_boxes"])
        assert [(one.label, whole(grammar.points(one.quad, *size))) for one in found] == expected
        count += len(found)
    assert count > 50


@pytest.mark.parametrize(
    "task", ["<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_SEGMENTATION>", "<OPEN_VOCABULARY_DETECTION>"]
)
@pytest.mark.parametrize("size", SIZES)
def test_polygons(reference, ours, task, size):
    draw, count = random.Random(3), 0
    for _ in range(80):
        ids = answer(draw, "polygons")
        if task == "<OPEN_VOCABULARY_DETECTION>" and MARKS["<poly>"] not in ids:
            continue
        theirs = post_process(reference, task, ids, size)
        outlines = theirs["polygons"]
        if TASKS[task].labelled:
            outlines = [polygons for _, polygons in named(theirs["polygons_labels"], outlines)]
        grammar, found = parse(ours, task, ids, size)
        mine = [[whole(grammar.points(one, *size)) for one in object_.polygons] for object_ in found]
        # Fewer than three points enclose nothing.
        expected = [[polygon for polygon in polygons if len(polygon) >= 6] for polygons in outlines]
        assert mine == [polygons for polygons in expected if polygons]
        count += len(found)
    assert count > 50


def test_texts_are_the_references(reference, ours):
    ids = words("what is ") + locations(random.Random(4), 3) + [MARKS["<sep>"]] + words("é <")
    assert ours.decode([folders.BOS, *ids, folders.EOS]) == post_process(reference, "<CAPTION>", ids, (10, 10))
