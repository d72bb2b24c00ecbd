"""Measure a model on the check images: `python -m mmcli.training.recipes.nano.evaluate --data FOLDER --model nano`.

Boxes, on the mixed check images: average precision at overlap 0.5 for each class with at least ten check boxes,
asked on every image that has it and on others that surely lack it, next to the teacher's boxes on the same images.
False boxes: questions for absent classes that give a box. COCO: the same on the COCO check photographs, for classes
with at least eight boxes, each asked where it is and three absent ones on every photograph, beside the detector alone
at several thresholds. Lists: objects asked together against the same objects one by one. Masks: how many of the objects
found have one, and mean overlap on objects whose box was found. Captions: CIDEr-D against people's sentences, and how
often the main object is named. Hallucination: on COCO's check photographs, captions that name a COCO object that is not
there. Likeness: CIDEr-D on those with people's sentences. Questions: VQA's, answered in the words that most people
chose.
"""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmcli.decode.locations import decode_box, pixel_box
from mmcli.decode.objects import ParsedObject
from mmcli.engine.collect import complete
from mmcli.hub.resolve import resolve
from mmcli.models.finding import FindOptions
from mmcli.models.load import load
from mmcli.models.nano.capabilities import BEAMS
from mmcli.models.nano.finding import find
from mmcli.models.nano.joining import Candidate
from mmcli.output.masks import paste_mask
from mmcli.training.metrics.cider import cider
from mmcli.training.recipes.nano import masks
from mmcli.training.recipes.nano.annotations import (
    ALL,
    COCO_CLASSES,
    MIXED,
    LabelledBox,
    Photo,
    overlap,
    read_photos,
    split_training,
)
from mmcli.training.recipes.nano.arguments import parser_of
from mmcli.training.recipes.nano.boxes import (
    SCALE,
    Answered,
    Source,
    collect,
    decoder_alone,
    detector_alone,
    image,
    joined,
    present_and_absent,
    summary,
    truth_of,
)
from mmcli.training.recipes.nano.caption_metrics import (
    CAPTION,
    measure_hallucination,
    measure_likeness,
    measure_questions,
)
from mmcli.training.recipes.nano.packing import COMMON
from mmcli.types import Completion

Question = tuple[Photo, str]  # and a prompt
COCO_FILES, MASKED_FILES = ("coco.jsonl.gz",), ("cocomini.jsonl.gz",)
PEOPLE = (
    "person people man men woman women boy boys girl girls child children kid kids baby toddler player players lady "
    "guy crowd skateboarder surfer rider cyclist biker climber hiker team group someone couple friends snowboarder "
    "skier swimmer runner dancer wrestler performer worker family adults adult toddlers babies ladies guys teenager "
    "teenagers bikers soccer basketball football baseball"
)
ALSO = {
    "person": PEOPLE.split(),
    "motorcycle": ["motorcycle", "motorbike", "dirt bike", "motocross", "bike"],
    "bicycle": ["bicycle", "bike", "cyclist"],
    "dog": ["dog", "puppy", "dogs", "puppies", "greyhound"],
    "cat": ["cat", "kitten"],
    "cow": ["cow", "cattle", "bull"],
    "couch": ["couch", "sofa"],
    "horse": ["horse", "pony"],
}


class Evaluation:
    """A loaded model, the check images, and what is asked of them."""

    def __init__(self, source: Source, photos: list[Photo], batch: int, jobs: int):
        self.source, self.photos, self.batch, self.jobs = source, photos, batch, jobs
        self.data = source.data
        self.loaded = load(resolve(source.model, download=False), source.device, source.dtype)
        self.named = {photo.file: photo for photo in photos}

    def image(self, photo: Photo) -> Image.Image:
        return image(self.data, photo)

    def collect(self, questions: list[tuple[Photo, list[str]]]) -> list[Answered]:
        return collect(self.source, questions, self.jobs)

    def joined(self, answers: list[Answered], least: float | None = None) -> list[tuple[Answered, list[Candidate]]]:
        return joined(answers, self.loaded.config.finding, least)

    def ask(self, questions: list[Question], max_tokens: int) -> Iterator[tuple[Question, Completion]]:
        for start in range(0, len(questions), self.batch):
            part = questions[start : start + self.batch]
            images = [[self.image(photo)] for photo, _ in part]
            inputs = self.loaded.processor.inputs(images, [prompt for _, prompt in part])
            stop = self.loaded.processor.stop_ids
            beams = BEAMS if part[0][1] == CAPTION else 1  # as `mmcli caption` and `mmcli chat` do
            answers = complete(self.loaded.model, inputs, stop_ids=stop, max_tokens=max_tokens, beams=beams)
            yield from zip(part, answers, strict=True)

    def answer_texts(self, questions: Sequence[Question], max_tokens: int) -> list[str]:
        """The answers as text."""
        answers = (answer for _, answer in self.ask(list(questions), max_tokens))
        return [self.loaded.processor.decode(answer.ids).strip() for answer in answers]


def box_questions(photos: list[Photo], label: str, rng: random.Random, most: int = 120) -> list[Photo]:
    """Images with hand-drawn boxes of the class, and others that surely lack it."""
    there = [p for p in photos if any(t.label == label and t.by_hand for t in p.objects)]
    lacking = [p for p in photos if p not in there and (label in p.absent or label in p.complete)]
    return there + rng.sample(lacking, min(most, len(lacking)))


def by_photo(pairs: list[tuple[Photo, str]]) -> list[tuple[Photo, list[str]]]:
    """Each photograph once, with all that is asked of it."""
    labels: dict[str, list[str]] = defaultdict(list)
    for photo, label in pairs:
        labels[photo.file].append(label)
    photos = {photo.file: photo for photo, _ in pairs}
    return [(photos[name], own) for name, own in labels.items()]


def measure_boxes(evaluation: Evaluation, seed: int) -> dict:
    count = Counter(t.label for p in evaluation.photos for t in p.objects if t.by_hand)
    rng = random.Random(seed)
    asked = {label: box_questions(evaluation.photos, label, rng) for label, n in count.most_common() if n >= 10}
    answers = evaluation.collect(by_photo([(p, label) for label, photos in asked.items() for p in photos]))
    ours = summary(evaluation.joined(answers))
    teacher = summary((one, _teacher(evaluation.named[one.photo], one.label)) for one in answers)
    classes = {
        label: {"boxes": count[label], "ap50": ours["by class"][label]}
        | {"teacher": teacher["by class"][label] if label in COCO_CLASSES else None}
        for label in asked
    }
    both = [label for label in classes if label in COCO_CLASSES]
    return {
        "by class": classes,
        **{key: value for key, value in ours.items() if key != "by class"},
        "mean ap50, classes the teacher knows": round(float(np.mean([classes[c]["ap50"] for c in both])), 3),
        "teacher's mean ap50": round(float(np.mean([classes[c]["teacher"] for c in both])), 3),
    }


def _teacher(photo: Photo, label: str) -> list[Candidate]:
    """The boxes that a photograph's line in the data gives for a class."""
    found = []
    for guess in photo.teacher:
        x0, y0, x1, y1 = (v / s * SCALE for v, s in zip(guess["box"], (photo.width, photo.height) * 2, strict=True))
        if guess["label"] == label:
            found.append(Candidate((y0, x0, y1, x1), "detector", (), 0.0, guess["score"]))
    return sorted(found, key=lambda box: -box.probability)


def measure_false(evaluation: Evaluation, seed: int) -> dict:
    rng = random.Random(seed)
    result = {}
    for kind, among, n in (("any of 80", COCO_CLASSES, 4), ("common", COMMON & set(COCO_CLASSES), 3)):
        pairs = []
        for photo in evaluation.photos:
            absent = [label for label in photo.absent if label in among]
            pairs += [(photo, label) for label in rng.sample(absent, min(n, len(absent)))]
        found = [bool(boxes) for _, boxes in evaluation.joined(evaluation.collect(by_photo(pairs)))]
        result[kind] = {"questions": len(found), "with boxes": round(float(np.mean(found)), 4)}
    return result


def coco_questions(photos: list[Photo], seed: int) -> list[tuple[Photo, list[str]]]:
    """Of each photograph its own classes among those with at least eight boxes in all, and three that it lacks."""
    count = Counter(t.label for photo in photos for t in photo.objects if t.by_hand)
    classes = [label for label in COCO_CLASSES if count[label] >= 8]
    rng = random.Random(seed)
    asked = [(photo, present_and_absent(photo, classes, 3, rng)) for photo in photos]
    return [(photo, labels) for photo, labels in asked if labels]


def measure_coco(evaluation: Evaluation, seed: int) -> dict:
    answers = evaluation.collect(coco_questions(evaluation.photos, seed))
    result = {"nano at its own limits": summary(evaluation.joined(answers))}
    for least in (0.1, 0.2, 0.3, 0.5):
        result[f"nano at {least}"] = _short(summary(evaluation.joined(answers, least)))
    result["decoder alone"] = _short(summary(decoder_alone(answers)))
    alone = {least: _short(summary(detector_alone(answers, least))) for least in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)}
    few = [figures for figures in alone.values() if figures["absent with boxes"] <= 0.03]
    best = max(few, key=lambda figures: figures["mean ap50"], default=None)
    result |= {f"detector alone at {least}": value for least, value in alone.items()}
    return result | {"detector alone, best with at most 3 % false": best}


def _short(result: dict) -> dict:
    return {key: value for key, value in result.items() if key != "by class"}


def measure_lists(evaluation: Evaluation, seed: int, most: int = 50) -> dict:
    """Eight objects of each photograph, asked one by one and in lists: the same questions, the same measure."""
    rng = random.Random(seed)
    asked = []
    for photo, own in coco_questions(evaluation.photos, seed)[:: max(1, len(evaluation.photos) // most)]:
        lacking = [label for label in COCO_CLASSES if label in photo.absent and label not in own]
        labels = [*own, *rng.sample(lacking, max(0, 8 - len(own)))][:8]
        asked.append((photo, rng.sample(labels, len(labels))))
    result = {}
    for size in (1, 2, 4, 8):
        answers = []
        for photo, labels in asked:
            for start in range(0, len(labels), size):
                part = labels[start : start + size]
                [found] = find(evaluation.loaded, [evaluation.image(photo)], part, FindOptions())
                for label in part:
                    truth = Answered(photo.file, label, [], truth_of(photo, label))
                    answers.append((truth, [o for o in found.objects if o.label == label]))
        result[f"lists of {size}" if size > 1 else "one by one"] = _short(summary(answers))
    return result


def measure_masks(evaluation: Evaluation) -> dict:
    """Overlap with masks drawn by hand, and with those the class maps give; in the objects' own boxes where found."""
    truth = masks.collect(evaluation.photos, evaluation.data)
    labels: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for photo in evaluation.photos:
        for i, obj in enumerate(photo.objects):
            if obj.mask >= 0:
                labels[photo.file][obj.label].append((obj, i in photo.polygons))
    scores: dict[str, list[float]] = {}
    decoder = evaluation.loaded.mask_vqvae()
    objects = masked = 0
    for name, own in labels.items():
        photo = evaluation.named[name]
        [found] = find(evaluation.loaded, [evaluation.image(photo)], list(own), FindOptions(masks=True))
        objects += len(found.objects)
        masked += sum(o.seg is not None for o in found.objects)
        for label, drawn in own.items():
            boxes = [o for o in found.objects if o.label == label]
            for obj, by_hand in drawn:
                value = _mask_overlap(photo, obj, truth[obj.mask], boxes, decoder)
                if value is not None:
                    scores.setdefault(f"{label}, {'by hand' if by_hand else 'class map'}", []).append(value)
    many = {kind: own for kind, own in sorted(scores.items()) if len(own) >= 5}
    overlaps = {kind: {"masks": len(own), "iou": round(float(np.mean(own)), 3)} for kind, own in many.items()}
    return overlaps | {"objects found": objects, "of them with a mask": masked}


@torch.inference_mode()
def _mask_overlap(
    photo: Photo, obj: LabelledBox, truth: np.ndarray, objects: list[ParsedObject], decoder
) -> float | None:
    """None where no box of the answer meets the object's, or the one that does has no mask."""
    width, height = photo.width, photo.height
    x0, y0, x1, y1 = obj.box
    box = x0 * width, y0 * height, x1 * width, y1 * height
    boxes = [decode_box(o.loc, width, height) for o in objects]
    over = [overlap(b, box) for b in boxes]
    if not over or max(over) < 0.5:
        return None
    best = int(np.argmax(over))
    if objects[best].seg is None:
        return None
    codes = torch.tensor([objects[best].seg], device=next(decoder.parameters()).device)
    guess = paste_mask(
        decoder.decode(codes)[0].float().cpu().numpy(), pixel_box(boxes[best], width, height), width, height
    )
    real = paste_mask(truth.astype(np.float32) / 127.5 - 1, pixel_box(box, width, height), width, height)
    return float((guess & real).sum() / max((guess | real).sum(), 1))


def measure_captions(evaluation: Evaluation) -> dict:
    captions = evaluation.answer_texts([(photo, CAPTION) for photo in evaluation.photos], 48)
    texts = {id(photo): text for photo, text in zip(evaluation.photos, captions, strict=True)}
    described = [p for p in evaluation.photos if p.captions]
    named, wrong = [], []
    for photo in evaluation.photos:
        main = main_object(photo)
        if main is not None:
            ok = any(re.search(rf"\b{re.escape(w)}(s|es)?\b", texts[id(photo)]) for w in ALSO.get(main, [main]))
            named.append(ok)
            if not ok:
                wrong.append(f"{main}: {texts[id(photo)]}")
    return {
        "cider": round(cider([texts[id(p)] for p in described], [list(p.captions) for p in described]), 3),
        "pictures with sentences": len(described),
        "main thing named": round(float(np.mean(named)), 3),
        "pictures with a main thing": len(named),
        "examples": [texts[id(p)] for p in evaluation.photos[:: max(1, len(evaluation.photos) // 12)]],
        "missed": wrong[:12],
    }


def main_object(photo: Photo) -> str | None:
    """The class that takes the largest area, by hand-drawn boxes, else by the teacher's sure ones; never clothes."""
    objects = [t for t in photo.objects if t.by_hand] or photo.objects
    if photo.source == "ccp":
        return "person"
    area: dict[str, float] = defaultdict(float)
    for t in objects:
        area[t.label] += (t.box[2] - t.box[0]) * (t.box[3] - t.box[1])
    return max(area, key=area.__getitem__) if area else None


def _measured(data: Path, files: Sequence[str], held_out: bool) -> list[Photo]:
    photos = read_photos(data, files)
    return split_training(photos)[1] if held_out else [photo for photo in photos if photo.split == "check"]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--batch", type=int, default=64, help="captions written together")
    parser.add_argument("--jobs", type=int, default=1, help="processes that look for boxes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="use only every n-th check picture")
    parser.add_argument("--held-out", action="store_true", help="measure on what training holds out, to choose by")
    parser.add_argument("--only", default="boxes,false,coco,lists,masks,captions,hallucination,likeness,questions")
    args = parser.parse_args()
    source = Source(args.model, args.data, args.device, args.dtype)
    files = (ALL,) * 3 if args.held_out else (MIXED, COCO_FILES, MASKED_FILES)
    mixed, coco, masked = (
        Evaluation(source, _measured(args.data, own, args.held_out)[:: args.every], args.batch, args.jobs)
        for own in files
    )
    measures = {
        "boxes": lambda: measure_boxes(mixed, args.seed),
        "false": lambda: measure_false(mixed, args.seed),
        "coco": lambda: measure_coco(coco, args.seed),
        "lists": lambda: measure_lists(coco, args.seed),
        "masks": lambda: measure_masks(mixed),
        "captions": lambda: measure_captions(mixed),
        "hallucination": lambda: measure_hallucination(coco.answer_texts, coco.photos),
        "likeness": lambda: measure_likeness(masked.answer_texts, masked.photos),
        "questions": lambda: measure_questions(coco.answer_texts, coco.photos),
    }
    for part in args.only.split(","):
        print(part, json.dumps(measures[part](), ensure_ascii=False, indent=1), flush=True)


if __name__ == "__main__":
    main()
