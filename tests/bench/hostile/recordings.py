"""Damaged recordings of the formats that PyAV writes, through what reads recordings for all commands."""

import random
from functools import cache
from pathlib import Path, PurePosixPath

from bench.hostile.damage import damage

SECONDS_OF_AUDIO = 2.0


def prepare() -> None:
    """Encode the whole recordings."""
    whole()


def make(rng: random.Random, folder: Path) -> tuple[Path, float]:
    """A damaged recording in `folder`, and where reading it begins."""
    data = damage(rng.choice(whole()), rng, whole())
    path = folder / "recording"
    path.write_bytes(data)
    return path, rng.choice((0.0, 0.0, 0.0, 1.5))


def exercise(made: tuple[Path, float]) -> str:
    """Read every block of it, as `transcribe` does."""
    from mmcli.media.audio import open_audio
    from mmcli.media.sources import Source

    path, start = made
    samples = 0
    with open_audio(Source(path.name, path, None, PurePosixPath(path.name)), start=start) as reader:
        for block in reader:
            samples += len(block)
    assert samples > 0 and all("\n" not in note for note in reader.info.notes)
    return "read"


@cache
def whole() -> list[bytes]:
    """Undamaged recordings of every container, and one of several tracks."""
    import tempfile

    from audio_files import KINDS, save, save_sweep, sweep

    with tempfile.TemporaryDirectory() as folder:
        made = [save_sweep(Path(folder) / f"a.{kind}", SECONDS_OF_AUDIO).read_bytes() for kind in KINDS]
        video = save(Path(folder) / "b.mp4", sweep(SECONDS_OF_AUDIO, 48000), video=True)
        tracks = save(Path(folder) / "c.mkv", sweep(SECONDS_OF_AUDIO, 48000), tracks=2)
        return [*made, video.read_bytes(), tracks.read_bytes()]
