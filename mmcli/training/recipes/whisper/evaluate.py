"""Word and character errors on clips with known words.

    python -m mmcli.training.recipes.whisper.evaluate --data FOLDER --jobs 4

FOLDER holds manifest.jsonl (`file`, `text`, `source` a line, and `language` where it is not English) and the clips, in
clips.zip or in a folder clips. Every clip is a recording of its own on the way that `mmcli transcribe` takes, voice
activity included; with `--peer`, faster-whisper transcribes the same clips with the same checkpoint in CTranslate2's
form. The table is the same whatever the number of `--jobs`.

Both texts and the reference go through Whisper's normalisers. The English one makes one number of "nine one" and leaves
"9 1" two, though neither is an error, so word errors are counted a second time with the digits of every number put
apart. In languages written without spaces every letter counts as a word, as in the Whisper paper. With clips in several
languages there is a row for each of them too. With `--detect` the language is found out, and how often it is the right
one stands in the table. Needs jiwer and whisper-normalizer, and faster-whisper for the peer; `--texts` keeps what was
transcribed, and `--score` makes the table of that without transcribing anything again.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcli.output.tables import table
from mmcli.training.recipes.whisper.clips import read_clips
from mmcli.training.recipes.whisper.sides import Side, transcribed

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "km", "yue"})


@dataclass(frozen=True)
class Compared:
    """What is said in a clip, and what each side wrote."""

    file: str
    source: str
    language: str
    wanted: str
    texts: tuple[str, ...]  # by side
    languages: tuple[str, ...]


@dataclass(frozen=True)
class Errors:
    """Rates, 0 to 1, of a group of clips."""

    clips: int
    words: float
    characters: float
    words_apart: float  # with the digits of numbers apart
    language: float  # clips whose language is right

    def cells(self, detect: bool) -> list[str]:
        rates = [self.words, self.characters, self.words_apart, *([self.language] if detect else [])]
        return [f"{100 * rate:.2f}" for rate in rates]


class Scorer:
    """Errors after Whisper's normalisers."""

    def __init__(self) -> None:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer

        self._english, self._basic = EnglishTextNormalizer(), BasicTextNormalizer()
        self._letters = BasicTextNormalizer(split_letters=True)

    def plain(self, text: str, language: str) -> str:
        """A text as it is compared."""
        if language == "en":
            return str(self._english(text))
        return str((self._letters if language in WITHOUT_SPACES else self._basic)(text)).strip()

    def errors(self, clips: Sequence[Compared], side: int) -> Errors | None:
        """Of one side; None where no clip has words to be recognised."""
        import jiwer

        pairs = [
            (self.plain(clip.wanted, clip.language), self.plain(clip.texts[side], clip.language)) for clip in clips
        ]
        pairs = [(wanted, got) for wanted, got in pairs if wanted]
        if not pairs:
            return None
        wanted, got = map(list, zip(*pairs, strict=True))
        right = sum(clip.languages[side] == clip.language for clip in clips)
        apart = jiwer.wer([digits_apart(text) for text in wanted], [digits_apart(text) for text in got])
        return Errors(len(pairs), jiwer.wer(wanted, got), jiwer.cer(wanted, got), apart, right / len(clips))


def digits_apart(text: str) -> str:
    """Every digit of a number as a word of its own."""
    return re.sub(r"(?<=\d)(?=\d)", " ", text)


def groups(clips: Sequence[Compared]) -> Iterator[tuple[str, list[Compared]]]:
    """Clips by source, by language where there are several, and all of them last."""
    for source in sorted({clip.source for clip in clips}):
        yield source, [clip for clip in clips if clip.source == source]
    languages = sorted({clip.language for clip in clips})
    for language in languages if languages[1:] else ():
        yield f"language {language}", [clip for clip in clips if clip.language == language]
    yield "all", list(clips)


def report(clips: Sequence[Compared], sides: Sequence[str], detect: bool) -> str:
    """The table."""
    names = ("WER", "CER", "digits apart", *(["language right"] if detect else []))
    rows = [("source", "clips", *(f"{side} {name}" for side in sides for name in names))]
    scorer = Scorer()
    for name, own in groups(clips):
        found = [errors for side in range(len(sides)) if (errors := scorer.errors(own, side))]
        if found:
            rows.append((name, str(found[0].clips), *(cell for one in found for cell in one.cells(detect))))
    return table(rows)


def compare(given: argparse.Namespace) -> tuple[list[str], list[Compared]]:
    """Names of the sides, and what they wrote for each clip; what took how long goes to stderr."""
    clips = read_clips(given.data, given.count, given.seed)
    sides = {"mmcli": Side(given.model, False, given.batch, given.beams, given.threads, given.detect)}
    if given.peer:
        beams = None if given.peer_as_it_comes else given.beams
        sides["faster-whisper int8"] = Side(given.peer, True, given.batch, beams, given.threads, given.detect)
    found = []
    for name, side in sides.items():
        started = time.perf_counter()
        found.append(transcribed(side, clips, given.jobs))
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return list(sides), [
        Compared(clip.file, clip.source, clip.language, clip.text, *map(tuple, zip(*own, strict=True)))
        for clip, *own in zip(clips, *found, strict=True)
    ]


def write_texts(path: Path, sides: Sequence[str], clips: Sequence[Compared]) -> None:
    """Everything that the table is made of, as JSON lines; the first names the sides."""
    lines = [json.dumps({"sides": sides}), *(json.dumps(vars(clip), ensure_ascii=False) for clip in clips)]
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def read_texts(path: Path) -> tuple[list[str], list[Compared]]:
    """What `write_texts` wrote."""
    first, *lines = map(json.loads, path.read_text("utf-8").splitlines())
    clips = [Compared(**row | {"texts": tuple(row["texts"]), "languages": tuple(row["languages"])}) for row in lines]
    return first["sides"], clips


def main() -> None:
    parser = argparse.ArgumentParser(description="Word and character errors on clips with known words.")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--data", type=Path, help="folder of manifest.jsonl and clips.zip or clips/")
    given.add_argument("--score", type=Path, help="a file that --texts wrote: only make its table")
    parser.add_argument("--model", default="whisper-base")
    parser.add_argument("--peer", help="the same checkpoint for CTranslate2: faster-whisper is measured too")
    parser.add_argument("--count", type=int, help="a random part of so many clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with a model of its own")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--peer-as-it-comes", action="store_true", help="the peer's own defaults: 5 beams, no VAD")
    parser.add_argument("--texts", type=Path, help="write every text beside its reference there, as JSON lines")
    parser.add_argument("--detect", action="store_true", help="find the language out instead of telling it")
    options = parser.parse_args()
    sides, clips = read_texts(options.score) if options.score else compare(options)
    if options.texts:
        write_texts(options.texts, sides, clips)
    print(report(clips, sides, options.detect), end="")


if __name__ == "__main__":
    main()
