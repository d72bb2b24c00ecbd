"""Labels in users' words: articles, plurals, and other names of the same."""

import re
from collections.abc import Sequence

NUMBERS = ("no", "a", "two", "three", "four", "five", "six")
PLURALS = {
    "person": "people",
    "sheep": "sheep",
    "bus": "buses",
    "couch": "couches",
    "bench": "benches",
    "knife": "knives",
    "mouse": "mice",
    "dress": "dresses",
}
PAIRS = ("pants", "jeans", "shorts", "leggings", "sunglasses", "glasses", "scissors", "skis", "stockings", "tights")
ARTICLE = re.compile("^(?:an?|the|some|any) ")
# Words that mean the same, no narrower and no wider one: a puppy is not every dog.
SAME = {
    "aeroplane": "airplane",
    "plane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "settee": "couch",
    "television": "tv",
    "tv set": "tv",
    "television set": "tv",
    "fridge": "refrigerator",
    "cellphone": "cell phone",
    "mobile phone": "cell phone",
    "hair dryer": "hair drier",
    "hairdryer": "hair drier",
    "doughnut": "donut",
    "stoplight": "traffic light",
    "tennis racquet": "tennis racket",
    "remote control": "remote",
    "houseplant": "potted plant",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "trousers": "pants",
    "tee shirt": "t-shirt",
    "tshirt": "t-shirt",
}


def plural(label: str) -> str:
    """More than one of a label: "two dogs"."""
    if label in PLURALS:
        return PLURALS[label]
    if label.endswith("s"):
        return label
    if label.endswith(("ch", "sh", "x")):
        return label + "es"
    if label.endswith("y") and label[-2] not in "aeiou":
        return label[:-1] + "ies"
    return label.replace("man", "men") if label.endswith("man") else label + "s"


def named(label: str, count: int) -> str:
    """The label with its article or number: `a cat`, `two dogs`, `several people`."""
    if count == 1:
        if label in PAIRS or label.endswith(("shoes", "boots", "socks", "gloves", "heels", "vegetables")):
            return label
        return ("an " if label[0] in "aeiou" else "a ") + label
    return (NUMBERS[count] if count < len(NUMBERS) else "several") + " " + plural(label)


def known(word: str, labels: Sequence[str]) -> str | None:
    """The one of `labels` that a word names: itself, its plural, or another name of the same; None if none."""
    word = ARTICLE.sub("", " ".join(word.lower().split()))
    names = {name: label for name, label in SAME.items() if label in labels} | {label: label for label in labels}
    if word in names:
        return names[word]
    plurals = {form: label for name, label in names.items() for form in (plural(name), name + "s", name + "es")}
    return plurals.get(word)
