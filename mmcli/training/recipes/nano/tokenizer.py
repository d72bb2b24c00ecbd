"""Nano's tokenizer: `python -m mmcli.training.recipes.nano.tokenizer --data FOLDER --out FOLDER`.

Byte-level sub-words learned on the training words (so that nearly each is one token), then PaliGemma's 1,024 places and
128 mask codes. Beside tokenizer.json it writes the ids that depend on it into config.json.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mmcli.decode import LOCATIONS, MASK_CODES
from mmcli.training.recipes.nano import prompts, texts
from mmcli.training.recipes.nano.annotations import ALL, COCO_CLASSES, read_layouts, read_photos
from mmcli.training.recipes.nano.hallucination import single_words

WORDS = 8192  # ids below this are special tokens and sub-words
FILLER = 8  # rows behind the last token, so that the table's length is a multiple of eight
MARKS = (",", ";", " ;", "'s", "'")
# On images held out the detector's best logit is above this for 92 % of the classes that take more than a fiftieth of
# the image, and for 3 % of those that are absent.
LEAST_EVIDENCE = -1.5
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")


def train(counts: Counter[str], starts: Counter[str]) -> tuple[Tokenizer, tuple[int, int, int]]:
    """Learn the sub-words of `counts`, each behind a space, and of `starts`, which begin a text.

    The ids are <pad> 0, <eos> 1, <bos> 2, <unk> 3, then whole words that begin a text, whole words (and marks) that
    come later, pieces of words, <loc0000> 8192…, <seg000> 9216… and <image> 9344. Also returned are where the first
    three kinds begin and end: only whole words may be written in sentences.
    """
    learned = _bpe()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [" " + word for word, n in sorted(counts.items()) for _ in range(min(n, texts.OFTEN))]
    lines += [word for word, n in sorted(starts.items()) for _ in range(min(n, texts.OFTEN))]
    learned.train_from_iterator(lines, trainer)
    first = _whole(learned, starts) - {0, 1, 2, 3}
    later = _whole(learned, [" " + word for word in counts] + list(MARKS)) - first
    rest = set(range(len(SPECIAL), learned.get_vocab_size())) - first - later
    order = [*range(len(SPECIAL)), *sorted(first), *sorted(later), *sorted(rest)]
    model = json.loads(learned.to_str())["model"]
    names = {number: name for name, number in model["vocab"].items()}
    tokenizer = _bpe({names[old]: new for new, old in enumerate(order)}, [tuple(pair) for pair in model["merges"]])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL])
    filler = WORDS - tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken(f"<unused{i}>", normalized=False) for i in range(filler)])
    added = [f"<loc{i:04d}>" for i in range(LOCATIONS)] + [f"<seg{i:03d}>" for i in range(MASK_CODES)] + ["<image>"]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in added])
    if tokenizer.token_to_id("<loc0000>") != WORDS:
        raise ValueError("the places must follow the words")
    bounds = (len(SPECIAL), len(SPECIAL) + len(first), len(SPECIAL) + len(first) + len(later))
    return tokenizer, bounds


def _bpe(vocab: dict[str, int] | None = None, merges: list[tuple[str, str]] | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE() if vocab is None else models.BPE(vocab, merges))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _whole(tokenizer: Tokenizer, words: Iterable[str]) -> set[int]:
    """Ids of those that are a single token."""
    encoded = (tokenizer.encode(word).ids for word in words)
    return {ids[0] for ids in encoded if len(ids) == 1}


def names(tokenizer: Tokenizer) -> list[list[int]]:
    """Tokens that name what the detector knows, each with the classes that it may mean."""
    entries = {}
    for word, classes in single_words().items():
        for text in (word, " " + word):
            ids = tokenizer.encode(text).ids
            if len(ids) == 1:
                entries[ids[0]] = [ids[0], *sorted(set(classes))]
    return [entries[token] for token in sorted(entries)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of config.json, where tokenizer.json goes too")
    args = parser.parse_args()
    photos = [p for p in read_photos(args.data, ALL) if p.split == "train"] + read_layouts(args.data)
    counts = texts.counts(photos, prompts.FIXED_TEXTS)
    tokenizer, (begin, middle, end) = train(counts, texts.starts(photos, prompts.FIXED_TEXTS))
    tokenizer.save(str(args.out / "tokenizer.json"))
    config = json.loads((args.out / "config.json").read_text())
    loc = tokenizer.token_to_id("<loc0000>")
    assert loc is not None, "train() adds the places"
    config |= {
        "image_token": loc + LOCATIONS + MASK_CODES,
        "loc_token": loc,
        "seg_token": loc + LOCATIONS,
        "finding_tokens": [tokenizer.encode(word).ids[0] for word in ("detect", "segment")],
        "class_tokens": [tokenizer.encode(" " + label).ids for label in COCO_CLASSES],
        "first_words": [begin, middle],
        "later_words": [middle, end],
        "names": names(tokenizer),
        "least_evidence": LEAST_EVIDENCE,
    }
    config["decoder"]["vocabulary"] = loc + LOCATIONS + MASK_CODES + FILLER
    (args.out / "config.json").write_text(json.dumps(config) + "\n")
    whole = sum(len(tokenizer.encode(" " + word).ids) == 1 for word in counts)
    print(f"{len(counts)} words, {whole} of them one token, {middle - begin} may begin an answer")


if __name__ == "__main__":
    main()
