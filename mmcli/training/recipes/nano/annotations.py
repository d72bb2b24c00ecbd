"""Read a folder of annotated photographs and decide, image by image, what may be taught as there and as absent.

The folder holds `annotations.jsonl.gz` (a line an image: file, archive, width, height, source, split, captions,
labels, objects with boxes and maybe polygons, the classes boxed exhaustively, and a detector's boxes as `teacher`),
the same of COCO photographs with every box in `coco.jsonl.gz` (with questions and borrowed captions),
`cocomini.jsonl.gz` (with polygons), `coco-layouts.jsonl.gz` (boxes and captions without an image), the images in the
zip archives that the lines name, and `class_maps.zip` (PASCAL VOC classes, 128 × 128). There may also be more
photographs with polygons in `val2017.jsonl.gz` and `more.jsonl.gz`, and further sentences by people in
`coco-captions.jsonl`; `missing` says which of these are not there.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SURE, POSSIBLE = 0.4, 0.15  # a teacher's box above the first is there; a class with none above the second is absent
MOST_OBJECTS = 12  # of one class in one answer
MIXED = ("annotations.jsonl.gz",)
FURTHER = ("val2017.jsonl.gz", "more.jsonl.gz")
ALL = (*MIXED, "coco.jsonl.gz", "cocomini.jsonl.gz", *FURTHER)
SENTENCES = "coco-captions.jsonl"  # of COCO photographs, by coco_id
LAYOUTS = "coco-layouts.jsonl.gz"
HELD_OUT = Path(__file__).with_name("held_out.txt")  # training images kept for stopping and calibration

VOC = (
    "airplane bicycle bird boat bottle bus car cat chair cow dining-table dog horse motorcycle person potted-plant "
    "sheep couch train tv"
)
VOC20 = tuple(name.replace("-", " ") for name in VOC.split())
COCO80 = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_CLASSES = tuple(COCO80.split(","))
# Classes of which PASCAL VOC boxes few where they are not the subject.
SELDOM_BOXED = ("dining table", "chair", "potted plant", "bottle")
# Photographs that PicoDet-S was trained on, at least for the most part: it is too good there.
KNOWN_TO_DETECTOR = ("coco", "minicoco", "coco6k", "cocomini", "layout")
ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
# Sources whose subject the teacher does not know and so takes for something else.
STRANGE = {"raccoon": ANIMALS, "kangaroo": ANIMALS, "flowers": COCO_CLASSES, "clothing": COCO_CLASSES}
Box = tuple[float, float, float, float]
SMALL_WEAR = "belt hair accessories"  # labels of whole images that are no objects to point at


@dataclass
class LabelledBox:
    """One object: label, box in 0..1 of the image as (x0, y0, x1, y1), its mask's number or −1, who drew the box."""

    label: str
    box: Box
    mask: int = -1
    by_hand: bool = True


@dataclass
class Photo:
    """An image and what is known of it. `doubtful` classes are neither taught as there nor as absent."""

    file: str
    archive: str
    width: int
    height: int
    source: str
    split: str
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    objects: list[LabelledBox]
    doubtful: frozenset[str]
    absent: tuple[str, ...]
    complete: frozenset[str]  # classes of which every instance is boxed by hand
    polygons: dict[int, list]  # position in `objects` → polygons in pixels
    teacher: list[dict]  # the detector's guesses as they are: label, box in pixels, score
    questions: tuple[tuple[str, str], ...] = ()  # what people asked and answered
    borrowed: tuple[tuple[str, float], ...] = ()  # sentences of images alike, with how well eight neighbours agree


def read_photos(folder: Path, files: Sequence[str] = MIXED) -> list[Photo]:
    """All images of these files of the folder, in the order of their lines."""
    rows = [row for name in files for row in _lines(folder / name)]
    further = _lines(folder / SENTENCES) if set(files) >= set(ALL) else []  # only training reads them
    captions_by_id = {row["coco_id"]: row["captions"] for row in further}
    for row in rows:
        if row["split"] == "train" and not row["captions"]:
            row["captions"] = captions_by_id.get(row.get("coco_id"), [])
    wear = {o["label"] for row in rows if row["source"] == "ccp" for o in row["objects"]} - {"person"}
    goods = {o["label"] for row in rows for o in row["objects"]} - set(COCO_CLASSES) - wear
    return [_photo(row, wear, goods) for row in rows]


def read_layouts(folder: Path) -> list[Photo]:
    """COCO captions with the boxes of images that are not at hand: they teach which words describe which objects."""
    photos, held_out = [], set(HELD_OUT.read_text().split())
    for row in _lines(folder / LAYOUTS):
        if f"val2017_{row['coco_id']:012d}.webp" in held_out:
            continue
        objects = []
        for o in row["objects"]:
            cx, cy, w, h = o["cxcywh"]
            box = tuple(min(1.0, max(0.0, v)) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
            objects.append(LabelledBox(o["label"], box))
        labels = {t.label for t in objects}
        absent = tuple(label for label in COCO_CLASSES if label not in labels)
        photos.append(
            Photo(
                f"layout_{row['coco_id']}",
                "",
                0,
                0,
                "layout",
                "train",
                tuple(row["captions"]),
                tuple(sorted(labels)),
                objects,
                frozenset(),
                absent,
                frozenset(COCO_CLASSES),
                {},
                [],
            )  # fmt: skip
        )
    return photos


def missing(folder: Path) -> list[str]:
    """The files that a training can do without and that this folder does not have."""
    return [name for name in (*FURTHER, SENTENCES) if not (folder / name).exists()]


def split_training(photos: list[Photo]) -> tuple[list[Photo], list[Photo]]:
    """Training images: those to learn from, and those held out (the names in `held_out.txt`)."""
    names = set(HELD_OUT.read_text().split())
    train = [p for p in photos if p.split == "train"]
    return [p for p in train if p.file not in names], [p for p in train if p.file in names]


def _lines(path: Path) -> list[dict]:
    if path.name in (*FURTHER, SENTENCES) and not path.exists():
        return []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _photo(row: dict, wear: set[str], goods: set[str]) -> Photo:
    objects: list[LabelledBox]
    polygons: dict[int, list]
    size = (row["width"], row["height"]) * 2
    objects, polygons = [], {}
    crowds = {o["label"] for o in row["objects"] if o.get("crowd")} if row["split"] == "train" else set()
    for o in row["objects"]:
        if o.get("crowd") and row["split"] == "train":
            continue  # the box holds many objects
        if "mask" in o:
            polygons[len(objects)] = o["mask"]
        objects.append(LabelledBox(o["label"], _scaled(o["box"], size)))
    complete = _complete(row, wear)
    taught, doubtful = _teacher(row, objects, complete, size)
    doubtful |= crowds
    if row["source"] in ("ccp", "flickr8k", "animalpose-voc2012", "coco"):
        # Crowds: what is beyond the longest answer would be taught as absent.
        counts = {t.label: 0 for t in objects + taught}
        for t in objects + taught:
            counts[t.label] += 1
        doubtful |= {label for label, n in counts.items() if n > MOST_OBJECTS}
    objects += taught
    there = {t.label for t in objects} | doubtful | set(row["labels"])
    return Photo(
        row["file"],
        row["archive"],
        row["width"],
        row["height"],
        row["source"],
        row["split"],
        tuple(row["captions"]),
        tuple(label for label in row["labels"] if label not in SMALL_WEAR.split()),
        objects,
        frozenset(doubtful),
        tuple(sorted(_absent(row, wear, goods) - there)),
        frozenset(complete),
        polygons,
        row.get("teacher") or [],
        tuple((q["q"], q["a"]) for q in row.get("vqa", ())),
        tuple((text, agreement) for text, agreement in row.get("pseudo_captions", ())),
    )


def _scaled(box: Sequence[float], size: Sequence[int]) -> Box:
    x0, y0, x1, y1 = (v / s for v, s in zip(box, size, strict=True))
    return x0, y0, x1, y1


def _complete(row: dict, wear: set[str]) -> set[str]:
    """Classes of which every instance is boxed by hand."""
    complete: set[str] = set()
    for name in row["exhaustive"]:
        complete |= set(COCO_CLASSES) if name == "coco80" else set(VOC20) if name == "voc20" else {name}
    return complete | (wear if row["source"] == "ccp" else set())


def _teacher(
    row: dict, objects: list[LabelledBox], complete: set[str], size: Sequence[int]
) -> tuple[list[LabelledBox], set[str]]:
    """The teacher's sure boxes of classes that nobody boxed by hand, and the classes that stay in doubt."""
    wrong = set(STRANGE.get(row["source"], ()))
    hand = [(t.label, t.box) for t in objects]
    named = {label for label, _ in hand}
    kept: list[tuple[str, Box]] = []
    doubtful: set[str] = set()
    for guess in sorted(row.get("teacher") or [], key=lambda g: -g["score"]):
        label, box = guess["label"], _scaled(guess["box"], size)
        if label in wrong:
            continue
        if label in complete:
            drawn = any(name == label and overlap(box, other) > 0.5 for name, other in hand)
            if _seldom_boxed(row, label) and guess["score"] >= SURE and not drawn:
                doubtful.add(label)
            continue
        over = [(name, overlap(box, other)) for name, other in hand + kept]
        if any(value > 0.5 and name == label for name, value in over):
            continue
        if guess["score"] >= SURE and not any(value > 0.7 for _, value in over):
            kept.append((label, box))
        elif guess["score"] >= POSSIBLE and not any(value > 0.7 and n in named for n, value in over):
            doubtful.add(label)
    return [LabelledBox(label, box, by_hand=False) for label, box in kept], doubtful


def _seldom_boxed(row: dict, label: str) -> bool:
    """Whether the class may stand unboxed in a training image of PASCAL VOC, which counts as exhaustive."""
    return row["split"] == "train" and "voc20" in row["exhaustive"] and label in SELDOM_BOXED


def _absent(row: dict, wear: set[str], goods: set[str]) -> set[str]:
    """Classes that may be asked for in vain, before what is there is taken away."""
    if row.get("coco_id") and not row.get("teacher"):
        return _complete(row, wear)  # nobody else looked
    absent = set(COCO_CLASSES)
    person = any(g["label"] == "person" and g["score"] >= POSSIBLE for g in row.get("teacher") or [])
    if row["source"] == "ccp" or not (person or row["source"] in ("clothing", "humanseg")):
        absent |= wear
    if row["source"] in ("raccoon", "kangaroo", "animalpose-voc2012", "animalpose-web", "weizmann", "flickr8k"):
        absent |= goods
    return absent


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
