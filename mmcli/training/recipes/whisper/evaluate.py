"""Word and character errors on clips with known words.

    python -m mmcli.training.recipes.whisper.evaluate --data FOLDER

FOLDER holds clips.zip and manifest.jsonl (`file`, `text`, `source` a line, and `language` where it is not English).
Every clip is a recording of its own on the way that `mmcli transcribe` takes, voice activity included; with `--peer`,
faster-whisper transcribes the same clips with the same checkpoint in CTranslate2's form. Both texts and the reference
go through Whisper's normalisers. The English one makes one number of "nine one" and leaves "9 1" two, though neither is
an error, so word errors are told a second time with the digits of every number put apart. With `--detect` the language
is found out, and it is told how often it is the right one. Needs jiwer and whisper-normalizer, and faster-whisper for
the peer.
"""

import argparse
import io
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile

import torch

from mmcli.batch.outcome import Outcome
from mmcli.batch.transcribe import transcribe
from mmcli.hub.resolve import resolve
from mmcli.media.sources import Source
from mmcli.models.load import load
from mmcli.output.tables import table
from mmcli.tasks.transcribe import TranscribeRequest


@dataclass(frozen=True)
class Clip:
    """One recording and what is said in it."""

    file: str
    text: str
    source: str
    data: bytes
    language: str = "en"


def read_clips(folder: Path, count: int | None, seed: int) -> list[Clip]:
    """All clips, or `count` of them drawn at random, in the manifest's order."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    if count is not None and count < len(rows):
        chosen = set(random.Random(seed).sample(range(len(rows)), count))
        rows = [row for index, row in enumerate(rows) if index in chosen]
    with ZipFile(folder / "clips.zip") as archive:
        return [
            Clip(row["file"], row["text"], row["source"], archive.read(row["file"]), row.get("language", "en"))
            for row in rows
        ]


def by_mmcli(clips: list[Clip], model: str, batch: int, beams: int, detect: bool) -> list[tuple[str, str]]:
    """What `mmcli transcribe` writes for each clip, and in which language."""
    found: dict[str, tuple[str, str]] = {}
    for language in [None] if detect else sorted({clip.language for clip in clips}):
        own = [clip for clip in clips if language in (None, clip.language)]
        sources = (Source("-", None, None, PurePosixPath(clip.file), stream=io.BytesIO(clip.data)) for clip in own)
        request = TranscribeRequest(language=language, beams=beams)
        events = transcribe(sources, request, lambda: load(resolve(model), "cpu"), model=model, batch_size=batch)
        records = [event.record for event in events if isinstance(event, Outcome)]
        for clip, record in zip(own, records, strict=True):
            found[clip.file] = record.text, record.language or ""
    return [found[clip.file] for clip in clips]


def by_peer(clips: list[Clip], folder: str, threads: int, beams: int | None, detect: bool) -> list[tuple[str, str]]:
    """The same of faster-whisper in int8: with its own voice activity detection, or (beams None) by its defaults."""
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads)

    settings: dict[str, Any] = (
        {} if beams is None else {"beam_size": beams, "vad_filter": True, "condition_on_previous_text": False}
    )

    def transcribed(clip: Clip) -> tuple[str, str]:
        language = None if detect else clip.language
        segments, about = model.transcribe(io.BytesIO(clip.data), language=language, **settings)
        return "".join(segment.text for segment in segments).strip(), about.language

    return [transcribed(clip) for clip in clips]


def errors(clips: list[Clip], texts: list[str]) -> Iterator[tuple[str, int, float, float, float]]:
    """(source, clips, word and character error rate, word errors with digits apart), all sources together last."""
    import jiwer
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    english, basic = EnglishTextNormalizer(), BasicTextNormalizer()

    def plain(clip: Clip, text: str) -> str:
        return (english if clip.language == "en" else basic)(text)

    def apart(text: str) -> str:
        return re.sub(r"(?<=\d)(?=\d)", " ", text)

    pairs = [(clip.source, plain(clip, clip.text), plain(clip, text)) for clip, text in zip(clips, texts, strict=True)]
    for source in [*sorted({clip.source for clip in clips}), "all"]:
        wanted, got = map(list, zip(*((w, g) for s, w, g in pairs if w and source in (s, "all")), strict=True))
        spelt = jiwer.wer([apart(text) for text in wanted], [apart(text) for text in got])
        yield source, len(wanted), jiwer.wer(wanted, got), jiwer.cer(wanted, got), spelt


def main() -> None:
    parser = argparse.ArgumentParser(description="Word and character errors on clips with known words.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips.zip and manifest.jsonl")
    parser.add_argument("--model", default="whisper-base")
    parser.add_argument("--peer", help="the same checkpoint for CTranslate2: faster-whisper is measured too")
    parser.add_argument("--count", type=int, help="a random part of so many clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer-as-it-comes", action="store_true", help="the peer's own defaults: 5 beams, no VAD")
    parser.add_argument("--texts", type=Path, help="write every text beside its reference there, as JSON lines")
    parser.add_argument("--detect", action="store_true", help="find the language out instead of telling it")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clips = read_clips(given.data, given.count, given.seed)
    sides: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "mmcli": lambda: by_mmcli(clips, given.model, given.batch, given.beams, given.detect)
    }
    if given.peer:
        sides["faster-whisper int8"] = lambda: by_peer(
            clips, given.peer, given.threads, None if given.peer_as_it_comes else given.beams, given.detect
        )
    texts: dict[str, list[str]] = {}
    columns = {}
    for side, run in sides.items():
        started = time.perf_counter()
        transcribed = run()
        texts[side] = [text for text, _ in transcribed]
        right = sum(language == clip.language for (_, language), clip in zip(transcribed, clips, strict=True))
        print(f"{side}: {time.perf_counter() - started:.0f} s; language right in {right} of {len(clips)}")
        columns[side] = list(errors(clips, texts[side]))
    if given.texts:
        beside = zip(clips, *texts.values(), strict=True)
        lines = (
            json.dumps({"file": clip.file, "wanted": clip.text, "transcribed": transcribed})
            for clip, *transcribed in beside
        )
        given.texts.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    rows: list[tuple[str, ...]] = [
        ("source", "clips", *(f"{side} {rate}" for side in sides for rate in ("WER", "CER", "digits apart")))
    ]
    for group in zip(*columns.values(), strict=True):
        rates = [f"{100 * rate:.2f}" for _, _, *three in group for rate in three]
        rows.append((group[0][0], str(group[0][1]), *rates))
    print(table(rows), end="")


if __name__ == "__main__":
    main()
