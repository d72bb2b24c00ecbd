"""The kinds of question that nano was taught to answer, and the form in which each was taught."""

import re
from collections.abc import Callable, Sequence

from mmcli.errors import ModelError
from mmcli.models.nano.words import ARTICLE, known, named, plural

# What `models info` shows.
EXAMPLES = (
    "is there a cat?",
    "how many cats are there?",
    "where is the cat?",
    "what animal is this?",
    "what is in the picture?",
    "what is the main thing in the picture?",
)
LONGEST = 4  # words of an object that somebody may ask for, with its article
JOINED = re.compile(r"\b(?:and|or|no|not)\b|,")  # several objects, or none of them
HERE = r"(?: (?:here|(?:in|on) (?:this|the) (?:picture|photo|photograph|image)))?"
THING = r"(?P<thing>.+?)"
# Each kind: how people ask, and what nano is asked then. The first that fits is taken.
KINDS: tuple[tuple[str, Callable[[str], str]], ...] = (
    (rf"(?:is|are) there {THING}{HERE}", lambda thing: f"is there {named(thing, 1)}?"),
    (rf"(?:do|can) you see {THING}{HERE}", lambda thing: f"is there {named(thing, 1)}?"),
    (
        rf"how many {THING}(?: (?:are|is) there| (?:do|can) you see| are)?{HERE}",
        lambda thing: f"how many {plural(thing)} are there?",
    ),
    (rf"where (?:is|are) {THING}{HERE}", lambda thing: f"where is the {thing}?"),
    (
        rf"(?:what|which) (?:kind of )?animal (?:is|can be seen)(?: this| that| it| there)?{HERE}",
        lambda _: "what animal is this?",
    ),
    (
        rf"what is the main (?:thing|object|subject){HERE}",
        lambda _: "what is the main thing in the picture?",
    ),
    (
        rf"what (?:is (?:this|that|it|there|seen|shown)|do you see|can you see|is){HERE}",
        lambda _: "what is in the picture?",
    ),
)


def taught(question: str, labels: Sequence[str]) -> str:
    """A question in the words in which nano was taught its kind.

    Raises ModelError for a question of another kind, and for one about something that is none of `labels`.
    """
    plain = " ".join(question.lower().replace("’", "'").split()).rstrip(" ?!.")
    plain = re.sub(r"^(what|where)'s ", r"\1 is ", plain)
    for pattern, form in KINDS:
        if (match := re.fullmatch(pattern, plain)) is None:
            continue
        word: str = match.groupdict().get("thing") or ""
        thing = known(word, labels) if word else ""
        if thing is None and (len(word.split()) > LONGEST or JOINED.search(word)):  # another kind of question:
            continue  # "a man with a red hat", "cats and dogs"
        if thing is None:
            bare = ARTICLE.sub("", word)
            raise ModelError(f'nano does not know "{bare}"', "mmcli models info nano lists what it knows")
        return form(thing)
    such = ", ".join(f'"{example}"' for example in EXAMPLES[:3])
    raise ModelError(
        "nano cannot answer that question",
        f"It answers only a few kinds, such as {such}; "
        "mmcli models info nano lists them all. Others are for another --model, such as google/paligemma2-3b-mix-448",
    )
