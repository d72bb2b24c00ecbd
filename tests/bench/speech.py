"""Measure `mmcli transcribe` beside faster-whisper: the same recording, the same weights, the same threads.

    python tests/bench/speech.py --peer CTRANSLATE2_FOLDER CLIP_OR_FOLDER…           ten minutes, joined from clips
    python tests/bench/speech.py --peer CTRANSLATE2_FOLDER --minutes 60 CLIPS…       and whether memory stays flat
    python tests/bench/speech.py CLIPS…                                              mmcli alone
    python tests/bench/speech.py --random large-v3-turbo --device cuda --batch 16    beside transformers, no files

Each sample is a process of its own from its start to its end, start-up and loading included, A B A B. The peer runs
its BatchedInferencePipeline in int8 with its own voice activity detection, as it comes; CTRANSLATE2_FOLDER holds
model.bin, config.json and tokenizer.json of the same checkpoint. Nothing is asserted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tables import middle, ratio, seconds_text  # noqa: E402

from mmcli.output.tables import bytes_text, table  # noqa: E402

PAUSES = (0.2, 0.4, 0.8, 0.3, 1.5)  # seconds between clips, in turn

PEER = """
import sys
from faster_whisper import BatchedInferencePipeline, WhisperModel
path, audio, threads, batch, beams, language = sys.argv[1:]
model = WhisperModel(path, device="cpu", compute_type="int8", cpu_threads=int(threads))
segments, _ = BatchedInferencePipeline(model).transcribe(
    audio, batch_size=int(batch), beam_size=int(beams), language=language or None, without_timestamps=False
)
for segment in segments:
    print(segment.text.strip(), flush=True)
"""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure mmcli transcribe beside faster-whisper.")
    parser.add_argument("clips", nargs="*", help="recordings of speech, or folders of them")
    parser.add_argument("--minutes", type=float, default=10, help="length of the recording made of them (default 10)")
    parser.add_argument("--model", default="whisper-base", help="what mmcli runs")
    parser.add_argument("--peer", help="the same checkpoint for CTranslate2; without it mmcli runs alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="windows at once, on both sides")
    parser.add_argument("--beams", type=int, default=1, help="on both sides")
    parser.add_argument("--language", default="en", help='spoken, on both sides (default en); "": each finds out')
    parser.add_argument("--rounds", type=int, default=3, help="processes a side, in turn")
    parser.add_argument("--json", action="store_true", help="print every sample as one JSON object")
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has faster-whisper")
    parser.add_argument("--random", metavar="SIZE", help="no clips: a Whisper of that size with random weights")
    parser.add_argument("--device", default="auto", help="of mmcli (default cpu, with --random auto)")
    parser.add_argument("--dtype", default="auto", help="for --random (default auto)")
    parser.add_argument("--tokens", type=int, default=128, help="for --random: tokens written for a window")
    given = parser.parse_args()
    if not given.clips and not given.random:
        parser.error("name clips, or a size with --random")
    return given


def join(clips: list[str], seconds: float, path: Path) -> None:
    """Write a 16 kHz wav file of the clips in turn, again and again, with pauses between them."""
    import numpy as np

    from mmcli.media.audio import RATE, read_audio
    from mmcli.media.sources import RECORDING_EXTENSIONS, expand

    sources = list(expand(clips, extensions=RECORDING_EXTENSIONS))
    written, turn = 0.0, 0
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        while written < seconds:
            audio, _ = read_audio(sources[turn % len(sources)])
            pause = np.zeros(int(PAUSES[turn % len(PAUSES)] * RATE), np.float32)
            samples = np.concatenate((audio, pause))
            file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
            written += len(samples) / RATE
            turn += 1


def sample(command: list[str], threads: int) -> dict[str, Any]:
    """Run one process → its seconds, its peak memory in bytes, its words."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as out:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            raise SystemExit(f"{command[:3]} ended with {os.waitstatus_to_exitcode(status)}")
        out.seek(0)
        text = out.read()
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss * unit, "text": text}


def commands(given: argparse.Namespace, audio: Path) -> dict[str, list[str]]:
    device = "cpu" if given.device == "auto" else given.device
    settings = ["--model", given.model, "--device", device, "--batch-size", given.batch, "--beams", given.beams]
    settings += ["--language", given.language] if given.language else []
    sides = {"mmcli": [sys.executable, "-m", "mmcli", "transcribe", audio, *settings]}
    if given.peer:
        sides["faster-whisper int8"] = [
            *(given.peer_python, "-c", PEER, given.peer, audio),
            *(given.threads, given.batch, given.beams, given.language),
        ]
    return {side: [str(part) for part in command] for side, command in sides.items()}


def main() -> None:
    given = options()
    if given.random:
        import random_whisper

        return random_whisper.main(given)
    with tempfile.TemporaryDirectory(prefix="mmcli-bench-") as folder:
        audio = Path(folder) / "speech.wav"
        join(given.clips, 60 * given.minutes, audio)
        sides = commands(given, audio)
        samples: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(given.rounds):
            for side, command in sides.items():
                samples[side].append(sample(command, given.threads))
    if given.json:
        print(json.dumps({"settings": vars(given), "samples": samples}))
        return
    print(report(given, samples), end="")


def report(given: argparse.Namespace, samples: dict[str, list[dict[str, Any]]]) -> str:
    rows = [("", *samples, *(["ratio"] if len(samples) == 2 else []))]
    shown = {
        "wall time, start-up included": ("seconds", seconds_text),
        "processor time": ("cpu", seconds_text),
        "peak memory": ("memory", bytes_text),
    }
    for name, (key, form) in shown.items():
        columns = [[one[key] for one in side] for side in samples.values()]
        rows.append((name, *(middle(column, form) for column in columns), *([ratio(*columns)] if columns[1:] else [])))
    speeds = [[60 * given.minutes / one["seconds"] for one in side] for side in samples.values()]
    rows.append(("times real time", *(middle(s, lambda v: f"{v:.1f}") for s in speeds)))
    rows.append(("words", *(str(len(side[0]["text"].split())) for side in samples.values())))
    head = f"{given.minutes:g} minutes of speech, {given.threads} threads, batch {given.batch}, beams {given.beams}\n\n"
    return head + table([(*row, *[""] * (len(rows[0]) - len(row))) for row in rows])


if __name__ == "__main__":
    main()
