"""Find the rules by which sentences are written.

    python -m mmcli.training.recipes.nano.sentences --data FOLDER --model nano

From the training sentences: the words with which none ends, the words that may come twice, and the forms that are one
word. From the training images that were held out: how likely a class is there, given the evidence for it; and how
much of that counts in the choice of words: of the weights tried, the one with the largest sum of CIDEr-D against
people's sentences and the share of captions that name a COCO object that is there, less the share of those that name
one that is not. Prints the `sentences` of config.json and what each weight reaches here. `--write` puts them into the
model's config.json.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcli.engine.collect import complete
from mmcli.hub.resolve import resolve
from mmcli.hub.tokenizer import Tokenizer
from mmcli.models.load import load
from mmcli.models.loaded import Loaded
from mmcli.models.nano.capabilities import BEAMS
from mmcli.models.nano.config import FREE, NanoConfig, SentenceRules
from mmcli.models.nano.finding import look
from mmcli.models.nano.sentences import Wording
from mmcli.models.nano.words import plural
from mmcli.training.metrics.cider import cider
from mmcli.training.recipes.nano import texts
from mmcli.training.recipes.nano.annotations import ALL, COCO_CLASSES, Photo, read_layouts, read_photos, split_training
from mmcli.training.recipes.nano.arguments import parser_of
from mmcli.training.recipes.nano.boxes import BATCH, image
from mmcli.training.recipes.nano.caption_metrics import CAPTION, LONGEST
from mmcli.training.recipes.nano.hallucination import chair, phrases
from mmcli.training.recipes.nano.regression import logistic
from mmcli.training.recipes.nano.tokenizer import MARKS

LOST = 0.005  # share of the training sentences that may end with a word of `never_last`
TWICE = 0.05  # share of the sentences with a word that have it twice, from which on it may come twice
DOUBT = 5  # times by which the share of a seldom word's ends is drawn to that of all words,
USUAL = 100  # and sentences without a repetition that are added to those with a word
DECAY = 1e-3  # of the coefficients
GROUNDING = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # weights that are tried


def never_last(sentences: Iterable[str]) -> set[str]:
    """Words that are last the more seldom, until a share LOST of the sentences ends with one of them."""
    count: Counter[str] = Counter()
    last: Counter[str] = Counter()
    for words in filter(None, map(texts.words_of, sentences)):
        count.update(words)
        last[words[-1]] += 1
    of_all = last.total() / max(1, count.total())
    share = {word: (last[word] + DOUBT * of_all) / (n + DOUBT) for word, n in count.items()}
    never, lost = set(), 0
    for word in sorted(share, key=lambda word: (share[word], word)):
        lost += last[word]
        if lost > LOST * last.total():
            break
        never.add(word)
    return never


def repeatable(sentences: Iterable[str]) -> set[str]:
    """Words that people write twice in a sentence as a matter of course: "a", "of", and few that name something."""
    with_word: Counter[str] = Counter()
    twice: Counter[str] = Counter()
    for words in map(texts.words_of, sentences):
        count = Counter(words)
        with_word.update(count.keys())
        twice.update(word for word, n in count.items() if n > 1)
    return {word for word, n in with_word.items() if twice[word] >= TWICE * (n + USUAL)}


def tokens_of(tokenizer: Tokenizer, words: Iterable[str]) -> list[int]:
    """Those words that are single tokens, at the beginning of a text or behind a space."""
    encoded = [tokenizer.encode(text).ids for word in words for text in (word, " " + word)]
    return sorted({ids[0] for ids in encoded if len(ids) == 1})


def same_word(tokenizer: Tokenizer, words: Iterable[str]) -> list[list[int]]:
    """Tokens of one word: where it begins a text and later, one and several."""
    known = {word for word in words if len(word) > 2}
    groups, taken = [], set()
    for word in sorted(known):  # the shorter one first
        if word in taken:
            continue
        forms = {word, plural(word)} & known
        taken |= forms
        ids = tokens_of(tokenizer, forms)
        if len(ids) > 1:
            groups.append(ids)
    return groups


def phrase_tokens(tokenizer: Tokenizer) -> list[tuple[int, int, int]]:
    """The names of two words that are two tokens, with the number of the class."""
    found = []
    for first, second, label in phrases():
        for beginning in (first, " " + first):
            ids = tokenizer.encode(f"{beginning} {second}").ids
            if len(ids) == 2:
                found.append((ids[0], ids[1], label))
    return found


def rules_of(tokenizer: Tokenizer, config: NanoConfig, sentences: Sequence[str]) -> SentenceRules:
    """What follows from the training sentences alone."""
    begin, end = config.first_words[0], config.later_words[1]

    def whole(words: Iterable[str]) -> tuple[int, ...]:
        return tuple(id for id in tokens_of(tokenizer, words) if begin <= id < end)

    every = {word for sentence in sentences for word in texts.words_of(sentence)}
    return SentenceRules(
        prompts=tuple(tokenizer.encode(CAPTION).ids[:1]),
        never_last=whole(never_last(sentences) | set(MARKS)),
        repeatable=whole(repeatable(sentences) | set(MARKS)),
        same_word=tuple(tuple(ids) for ids in same_word(tokenizer, every) if all(begin <= id < end for id in ids)),
        phrases=tuple(phrase_tokens(tokenizer)),
        presence=(0.0, 0.0),
        grounding=0.0,
    )


class HeldOut:
    """The held-out images as the model sees them: read once for all that is tried."""

    def __init__(self, loaded: Loaded, data: Path, photos: Sequence[Photo]):
        self.loaded, self.photos = loaded, photos
        parts = [photos[start : start + BATCH] for start in range(0, len(photos), BATCH)]
        self.seen = [look(loaded, [image(data, photo) for photo in part]) for part in parts]

    def presence(self) -> tuple[float, float]:
        """Logistic regression of whether a class is there on the evidence for it."""
        x, y = [], []
        model: Any = self.loaded.model  # nano's own
        evidence = torch.cat([model.evidence(seen) for seen in self.seen]).tolist()
        for photo, own in zip(self.photos, evidence, strict=True):
            if photo.complete.issuperset(COCO_CLASSES):
                there = {obj.label for obj in photo.objects}
                x += [(logit, 1.0) for logit in own]
                y += [label in there for label in COCO_CLASSES]
        slope, constant = logistic(np.array(x), np.array(y, dtype=float), DECAY)
        return round(float(slope), 4), round(float(constant), 4)

    def captions(self, rules: SentenceRules, beams: int) -> list[str]:
        """The caption of each image under these rules."""
        config = replace(self.loaded.config, sentences=rules)
        processor: Any = self.loaded.processor  # nano's own
        captions = []
        for seen in self.seen:
            rows = len(seen.planes)
            inputs = replace(processor.rows([CAPTION] * rows), context=seen)
            inputs = replace(inputs, processor=Wording(config, rules.prompts * rows))
            settings: dict[str, Any] = {"stop_ids": processor.stop_ids, "max_tokens": LONGEST, "beams": beams}
            captions += [processor.decode(one.ids).strip() for one in complete(self.loaded.model, inputs, **settings)]
        return captions

    def measure(self, captions: Sequence[str]) -> dict[str, float]:
        """CIDEr-D where people wrote sentences, and what is named where every box is known."""
        pairs = list(zip(self.photos, captions, strict=True))
        described = [(photo, text) for photo, text in pairs if photo.captions]
        full = [(photo, text) for photo, text in pairs if photo.complete.issuperset(COCO_CLASSES)]
        like = cider([text for _, text in described], [list(photo.captions) for photo, _ in described])
        named = chair([text for _, text in full], [{obj.label for obj in photo.objects} for photo, _ in full])
        return {"cider": round(like, 4), **named}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--grounding", type=float, help="use this weight and try no other")
    parser.add_argument("--write", action="store_true", help="put the result into the model's config.json")
    args = parser.parse_args()
    checkpoint = resolve(args.model, download=False)
    loaded = load(checkpoint, args.device, args.dtype)
    train, held_out = split_training(read_photos(args.data, ALL))
    processor: Any = loaded.processor  # nano's own
    rules = rules_of(processor.tokenizer, loaded.config, texts.sentences(train + read_layouts(args.data)))
    held = HeldOut(loaded, args.data, held_out)
    rules = replace(rules, presence=held.presence())
    print("greedy, no rules", held.measure(held.captions(replace(FREE, prompts=rules.prompts), 1)), flush=True)
    tried: dict[float, float] = {}
    for weight in GROUNDING if args.grounding is None else (args.grounding,):
        figures = held.measure(held.captions(replace(rules, grounding=weight), BEAMS))
        print(f"grounding {weight}, {BEAMS} beams", figures, flush=True)
        tried[weight] = figures["cider"] + figures["named"] - figures["sentences"]
    rules = replace(rules, grounding=max(tried, key=tried.__getitem__))
    print(json.dumps({"sentences": asdict(rules)}))
    if args.write:
        path = checkpoint.folder / "config.json"
        raw = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(raw | {"sentences": asdict(rules)}) + "\n", "utf-8")


if __name__ == "__main__":
    main()
