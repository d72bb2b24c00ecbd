"""Clips with known words, as the recipes that measure a Whisper read them."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile


@dataclass(frozen=True)
class Clip:
    """One recording and what is said in it."""

    file: str
    text: str
    source: str
    data: bytes
    language: str = "en"


def read_clips(folder: Path, count: int | None = None, seed: int = 0) -> list[Clip]:
    """All clips of a folder, or `count` of them drawn at random, in the manifest's order.

    The folder holds manifest.jsonl (`file`, `text`, `source` a line, and `language` where it is not English) and the
    recordings in clips.zip or in a folder clips. Raises SystemExit where they do not.
    """
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        raise SystemExit(f"{folder} holds no manifest.jsonl")
    rows = [json.loads(line) for line in manifest.read_text("utf-8").splitlines() if line.strip()]
    if count is not None and count < len(rows):
        chosen = set(random.Random(seed).sample(range(len(rows)), count))
        rows = [row for index, row in enumerate(rows) if index in chosen]
    recordings = _recordings(folder, [row["file"] for row in rows])
    return [
        Clip(row["file"], row["text"], row["source"], data, row.get("language", "en"))
        for row, data in zip(rows, recordings, strict=True)
    ]


def _recordings(folder: Path, names: list[str]) -> list[bytes]:
    archive = folder / "clips.zip"
    try:
        if not archive.is_file():
            return [(folder / "clips" / name).read_bytes() for name in names]
        with ZipFile(archive) as clips:
            return [clips.read(name) for name in names]
    except (KeyError, OSError) as error:
        raise SystemExit(f"A clip that the manifest names cannot be read: {error}") from error
