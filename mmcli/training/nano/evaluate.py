"""Measure a model on the check pictures: `python -m mmcli.training.nano.evaluate --data FOLDER --model nano`.

Boxes: average precision at overlap 0.5 for each class with at least ten check boxes, asked one class a prompt on every
picture that has it and on others that surely lack it, next to the teacher's boxes on the same pictures.
False boxes: prompts for absent classes that give a box. Masks: mean overlap on things whose box was found.
Captions: CIDEr-D against people's sentences, and how often the main thing is named.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from PIL import Image

from mmcli.decode import Token
from mmcli.decode.locations import decode_box, pixel_box
from mmcli.decode.segments import ParsedObject, parse
from mmcli.engine.generate import generate
from mmcli.hub.load import Loaded, load
from mmcli.hub.resolve import resolve
from mmcli.output.masks import paste_mask
from mmcli.training.nano import masks
from mmcli.training.nano.annotations import COCO_CLASSES, Photo, Thing, overlap, read_photos
from mmcli.training.nano.cider import cider
from mmcli.training.nano.packing import COMMON

Question = tuple[Photo, str]
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


class Judge:
    """A loaded model, the check pictures, and what each prompt gave."""

    def __init__(self, loaded: Loaded, photos: list[Photo], data: Path, batch: int):
        self.loaded, self.photos, self.data, self.batch = loaded, photos, data, batch
        self.archives = {name: ZipFile(data / name) for name in {p.archive for p in photos}}

    def picture(self, photo: Photo) -> Image.Image:
        with self.archives[photo.archive].open(photo.file) as file:
            return Image.open(file).convert("RGB")

    def ask(self, questions: list[Question], max_tokens: int) -> Iterator[tuple[Question, list[Token]]]:
        for start in range(0, len(questions), self.batch):
            part = questions[start : start + self.batch]
            pictures = [[self.picture(photo)] for photo, _ in part]
            inputs = self.loaded.processor.inputs(pictures, [prompt for _, prompt in part])
            answers: list[list[Token]] = [[] for _ in part]
            stop = self.loaded.processor.stop_ids
            for events in generate(self.loaded.model, inputs, stop_ids=stop, max_tokens=max_tokens):
                for event in events:
                    if event.id not in stop:
                        answers[event.row].append(Token(event.id, event.logprob))
            yield from zip(part, answers, strict=True)

    def objects(self, questions: list[Question]) -> Iterator[tuple[Question, list[ParsedObject]]]:
        processor = self.loaded.processor
        for question, tokens in self.ask(questions, 160):
            yield question, parse(tokens, processor.vocabulary, processor.decode).objects


def box_questions(photos: list[Photo], label: str, rng: random.Random, most: int = 120) -> list[Photo]:
    """Pictures with hand-drawn boxes of the class, and others that surely lack it."""
    there = [p for p in photos if any(t.label == label and t.by_hand for t in p.things)]
    lacking = [p for p in photos if p not in there and (label in p.absent or label in p.complete)]
    return there + rng.sample(lacking, min(most, len(lacking)))


def average_precision(guesses: list[tuple[float, int, np.ndarray]], truth: dict[int, list[np.ndarray]]) -> float:
    """All-point average precision at overlap 0.5. guesses: score, picture, box; truth: picture → boxes."""
    taken = {picture: [False] * len(boxes) for picture, boxes in truth.items()}
    hits = []
    for _, picture, box in sorted(guesses, key=lambda g: -g[0]):
        over = [overlap(box, t) for t in truth.get(picture, [])]
        best = int(np.argmax(over)) if over else -1
        hit = best >= 0 and over[best] >= 0.5 and not taken[picture][best]
        if hit:
            taken[picture][best] = True
        hits.append(hit)
    total = sum(len(boxes) for boxes in truth.values())
    if not hits or not total:
        return 0.0
    recall = np.cumsum(hits) / total
    precision = np.maximum.accumulate((np.cumsum(hits) / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(np.sum(np.diff(np.concatenate(([0.0], recall))) * precision))


def measure_boxes(judge: Judge, seed: int) -> dict:
    count = Counter(t.label for p in judge.photos for t in p.things if t.by_hand)
    rng = random.Random(seed)
    asked = {label: box_questions(judge.photos, label, rng) for label, n in count.most_common() if n >= 10}
    questions = [(p, f"detect {label}") for label, photos in asked.items() for p in photos]
    found: dict[str, list] = {label: [] for label in asked}
    for (photo, prompt), objects in judge.objects(questions):
        label = prompt.removeprefix("detect ")
        for o in objects:
            box = np.array(decode_box(o.loc, photo.width, photo.height))
            found[label].append((o.score, id(photo), box))
    result = {}
    for label, photos in asked.items():
        size = {id(p): np.array([p.width, p.height] * 2) for p in photos}
        hand = {
            id(p): [np.array(t.box) * size[id(p)] for t in p.things if t.label == label and t.by_hand] for p in photos
        }
        teacher = [(g["score"], id(p), np.array(g["box"])) for p in photos for g in p.teacher if g["label"] == label]
        guesses = found[label]
        result[label] = {
            "boxes": count[label],
            "ap50": round(average_precision(guesses, hand), 3),
            "recall": round(_recall(guesses, hand), 3),
            "teacher": round(average_precision(teacher, hand), 3) if label in COCO_CLASSES else None,
        }
    return result


def _recall(guesses: list, truth: dict) -> float:
    total = sum(len(boxes) for boxes in truth.values())
    met = sum(
        any(overlap(g[2], t) >= 0.5 for g in guesses if g[1] == key) for key, boxes in truth.items() for t in boxes
    )
    return met / max(total, 1)


def measure_false(judge: Judge, seed: int) -> dict:
    rng = random.Random(seed)
    questions: list[tuple[str, Question]] = []
    for photo in judge.photos:
        any_class = [label for label in photo.absent if label in COCO_CLASSES]
        common = [label for label in any_class if label in COMMON]
        for kind, labels, n in (("any of 80", any_class, 4), ("common", common, 3)):
            questions += [(kind, (photo, f"detect {label}")) for label in rng.sample(labels, min(n, len(labels)))]
    false: Counter = Counter()
    for (kind, _), (_, objects) in zip(questions, judge.objects([q for _, q in questions]), strict=True):
        false[kind] += bool(objects)
    asked = Counter(kind for kind, _ in questions)
    return {kind: {"prompts": n, "with boxes": round(false[kind] / n, 4)} for kind, n in asked.items()}


def measure_masks(judge: Judge) -> dict:
    """Overlap with masks drawn by hand, and with those the class maps give; in the things' own boxes where found."""
    truth = masks.collect(judge.photos, judge.data)
    labels = {}
    for photo in judge.photos:
        for i, thing in enumerate(photo.things):
            if thing.mask >= 0:
                labels.setdefault((id(photo), thing.label), (photo, []))[1].append((thing, i in photo.polygons))
    questions = [(photo, f"segment {label}") for (_, label), (photo, _) in labels.items()]
    scores: dict[str, list[float]] = {}
    decoder = judge.loaded.mask_vqvae()
    for (photo, prompt), objects in judge.objects(questions):
        label = prompt.removeprefix("segment ")
        for thing, by_hand in labels[(id(photo), label)][1]:
            value = _mask_overlap(photo, thing, truth[thing.mask], objects, decoder)
            if value is not None:
                scores.setdefault(f"{label}, {'by hand' if by_hand else 'class map'}", []).append(value)
    return {k: {"masks": len(v), "iou": round(float(np.mean(v)), 3)} for k, v in sorted(scores.items()) if len(v) >= 5}


@torch.inference_mode()
def _mask_overlap(photo: Photo, thing: Thing, truth: np.ndarray, objects: list[ParsedObject], decoder) -> float | None:
    """None where no box of the answer meets the thing's, or the one that does has no mask."""
    width, height = photo.width, photo.height
    box = np.array(thing.box) * ([width, height] * 2)
    boxes = [decode_box(o.loc, width, height) for o in objects]
    over = [overlap(np.array(b), box) for b in boxes]
    if not over or max(over) < 0.5:
        return None
    best = int(np.argmax(over))
    if objects[best].seg is None:
        return None
    codes = torch.tensor([objects[best].seg], device=next(decoder.parameters()).device)
    guess = paste_mask(
        decoder.decode(codes)[0].float().cpu().numpy(), pixel_box(boxes[best], width, height), width, height
    )
    real = paste_mask(truth.astype(np.float32) / 127.5 - 1, pixel_box(tuple(box), width, height), width, height)
    return float((guess & real).sum() / max((guess | real).sum(), 1))


def measure_captions(judge: Judge) -> dict:
    texts = {id(q[0]): judge.loaded.processor.decode([t.id for t in tokens]).strip()
             for q, tokens in judge.ask([(p, "caption en") for p in judge.photos], 48)}  # fmt: skip
    told = [p for p in judge.photos if p.captions]
    named, wrong = [], []
    for photo in judge.photos:
        main = main_thing(photo)
        if main is not None:
            ok = any(re.search(rf"\b{re.escape(w)}(s|es)?\b", texts[id(photo)]) for w in ALSO.get(main, [main]))
            named.append(ok)
            if not ok:
                wrong.append(f"{main}: {texts[id(photo)]}")
    return {
        "cider": round(cider([texts[id(p)] for p in told], [list(p.captions) for p in told]), 3),
        "pictures with sentences": len(told),
        "main thing named": round(float(np.mean(named)), 3),
        "pictures with a main thing": len(named),
        "examples": [texts[id(p)] for p in judge.photos[:: max(1, len(judge.photos) // 12)]],
        "missed": wrong[:12],
    }


def main_thing(photo: Photo) -> str | None:
    """The class that takes the largest area, by hand-drawn boxes, else by the teacher's sure ones; never clothes."""
    things = [t for t in photo.things if t.by_hand] or photo.things
    if photo.source == "ccp":
        return "person"
    area: Counter = Counter()
    for t in things:
        area[t.label] += (t.box[2] - t.box[0]) * (t.box[3] - t.box[1])
    return area.most_common(1)[0][0] if area else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="use only every n-th check picture")
    parser.add_argument("--only", default="boxes,false,masks,captions")
    args = parser.parse_args()
    photos = [p for p in read_photos(args.data) if p.split == "check"][:: args.every]
    judge = Judge(load(resolve(args.model, download=False), args.device, args.dtype), photos, args.data, args.batch)
    parts = args.only.split(",")
    result: dict = {}
    if "boxes" in parts:
        result["boxes"] = measure_boxes(judge, args.seed)
        result["mean ap50"] = round(float(np.mean([r["ap50"] for r in result["boxes"].values()])), 3)
        both = [r for r in result["boxes"].values() if r["teacher"] is not None]
        result["mean ap50, classes the teacher knows"] = round(float(np.mean([r["ap50"] for r in both])), 3)
        result["teacher's mean ap50"] = round(float(np.mean([r["teacher"] for r in both])), 3)
    if "false" in parts:
        result["false boxes"] = measure_false(judge, args.seed)
    if "masks" in parts:
        result["masks"] = measure_masks(judge)
    if "captions" in parts:
        result["captions"] = measure_captions(judge)
    for key, value in result.items():
        print(key, json.dumps(value, ensure_ascii=False, indent=None if not isinstance(value, dict) else 1))


if __name__ == "__main__":
    main()
