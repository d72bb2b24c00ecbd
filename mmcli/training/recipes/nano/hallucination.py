"""CHAIR (Rohrbach et al., arXiv:1809.02156): how many captions name a COCO object that is not there.

A caption's words are taken for COCO classes by name, plural or synonym; longer names go first, so that a hot dog is no
dog. "Sentences" is the share of captions with at least one such object, "named" of those with one that is there.
"""

import re
from collections.abc import Sequence

from mmcli.models.nano.words import plural
from mmcli.training.recipes.nano.annotations import COCO_CLASSES

PEOPLE = [
    "people", "man", "men", "woman", "women", "boy", "boys", "girl", "girls", "child", "children", "kid", "kids",
    "baby", "babies", "toddler", "player", "players", "lady", "ladies", "guy", "guys", "crowd", "skateboarder",
    "skateboarders", "surfer", "surfers", "rider", "riders", "cyclist", "biker", "climber", "hiker", "team", "couple",
    "friends", "snowboarder", "snowboarders", "skier", "skiers", "swimmer", "runner", "dancer", "worker", "family",
    "adult", "adults", "teenager", "teenagers", "bikers", "pitcher", "batter", "catcher", "umpire", "soldier",
    "soldiers", "policeman", "chef", "farmer",
]  # fmt: skip
SYNONYMS: dict[str, Sequence[str]] = {
    "person": PEOPLE,
    "bicycle": ("bike", "bikes"),
    "car": ("suv", "taxi", "minivan", "cars"),
    "motorcycle": ("motorbike", "motorbikes", "dirt bike", "moped", "scooter"),
    "airplane": ("plane", "planes", "jet", "jets", "aircraft", "airliner", "jetliner"),
    "boat": ("ship", "sailboat", "sailboats", "canoe", "kayak"),
    "bird": ("duck", "ducks", "goose", "geese", "seagull", "seagulls", "parrot", "owl", "eagle", "pigeon", "pigeons"),
    "cat": ("kitten", "kittens"),
    "dog": ("puppy", "puppies"),
    "horse": ("pony", "ponies"),
    "sheep": ("lamb", "lambs", "ram"),
    "cow": ("cattle", "bull", "bulls", "calf", "ox", "oxen"),
    "handbag": ("purse",),
    "suitcase": ("luggage", "suitcases"),
    "wine glass": ("wineglass",),
    "couch": ("sofa", "loveseat"),
    "potted plant": ("houseplant", "house plant"),
    "dining table": ("table", "tables", "desk", "desks"),
    "tv": ("television", "televisions", "monitor"),
    "laptop": ("computer", "computers"),
    "cell phone": ("phone", "phones", "cellphone", "smartphone"),
    "refrigerator": ("fridge",),
    "oven": ("stove",),
    "donut": ("doughnut", "doughnuts"),
    "teddy bear": ("teddy", "stuffed animal", "stuffed bear"),
    "hair drier": ("hair dryer",),
    "stop sign": (),
    "traffic light": ("stoplight", "street light"),
}
# Single words by which names of several words are known.
ALONE = {
    "hydrant": "fire hydrant", "hydrants": "fire hydrant", "meter": "parking meter", "meters": "parking meter",
    "racket": "tennis racket", "rackets": "tennis racket", "racquet": "tennis racket", "racquets": "tennis racket",
    "bat": "baseball bat", "bats": "baseball bat", "wine": "wine glass", "teddy": "teddy bear", "bear": "teddy bear",
    "bears": "teddy bear", "dog": "hot dog", "dogs": "hot dog", "potted": "potted plant", "dryer": "hair drier",
}  # fmt: skip
COLOURS = ("orange", "oranges")  # may describe anything
# Words that hold a class's name and are not it.
OTHER = ("hot dog stand", "baseball player", "train tracks", "train track", "bear hug", "bird house", "cow boy")


def named_classes(caption: str) -> set[str]:
    """The COCO classes that a caption names."""
    text, found = f" {' '.join(re.findall(r'[a-z]+', caption.lower()))} ", set()
    for word, label in _NAMES:
        if f" {word} " in text:
            text = text.replace(f" {word} ", "  ")
            if label:
                found.add(label)
    return found


def chair(captions: Sequence[str], there: Sequence[set[str]]) -> dict[str, float]:
    """Shares of captions that name an object that is not there, and one that is; and of objects named, the absent
    ones."""
    named = [named_classes(caption) for caption in captions]
    absent = [own - real for own, real in zip(named, there, strict=True)]
    present = [own & real for own, real in zip(named, there, strict=True)]
    return {
        "sentences": round(sum(map(bool, absent)) / len(named), 4),
        "named": round(sum(map(bool, present)) / len(named), 4),
        "instances": round(sum(map(len, absent)) / max(1, sum(map(len, named))), 4),
    }


def single_words() -> dict[str, list[int]]:
    """Words that name objects, with the numbers of the classes that each may mean."""
    words: dict[str, list[int]] = {}
    for word, label in [*((w, label) for w, label in _NAMES if label and " " not in w), *ALONE.items()]:
        if word not in COLOURS:
            words.setdefault(word, []).append(COCO_CLASSES.index(label))
    return words


def phrases() -> list[tuple[str, str, int]]:
    """Names of two words of which neither names an object by itself ("traffic light"), with the number of the class."""
    single = single_words()
    found = []
    for name, label in _NAMES:
        words = name.split()
        if label and len(words) == 2 and not any(word in single for word in words):
            found.append((words[0], words[1], COCO_CLASSES.index(label)))
    return found


def _names() -> list[tuple[str, str]]:
    names = [(word, "") for word in OTHER]
    for label in COCO_CLASSES:
        names += [(word, label) for word in {label, plural(label), *SYNONYMS.get(label, ())}]
    return sorted(names, key=lambda pair: -len(pair[0].split()))


_NAMES = _names()
