"""How right word times are: `python -m mmcli.training.recipes.whisper.word_times --data FOLDER`.

FOLDER holds clips.zip and manifest.jsonl, as for `evaluate`. Clips are transcribed as by `mmcli transcribe --words`;
those whose every word is right are aligned a second time, independently: a CTC model of phonemes (the package hama,
with its own spelling-to-sound rules) gives probabilities every 20 ms, and torchaudio's `forced_align` the best path for
the words through them. Start and end of each word are compared. CTC models are late and short by nature: a phoneme's
peak lies inside it.
Needs torchaudio, hama and whisper-normalizer.
"""

import argparse
import io
import re
import statistics
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from mmcli.batch.outcome import Outcome
from mmcli.batch.transcribe import transcribe
from mmcli.hub.resolve import resolve
from mmcli.media.audio import read_audio
from mmcli.media.sources import Source
from mmcli.models.load import load
from mmcli.output.tables import table
from mmcli.tasks.transcribe import TranscribeRequest
from mmcli.training.recipes.whisper.clips import Clip, read_clips
from mmcli.types import Word

CLEAN = ("librispeech", "ljspeech")  # sources that are read aloud in a quiet room, by how their names begin
FRAME = 0.02  # seconds between the CTC model's outputs
RATE = 16_000

Span = tuple[float, float]


class Aligner:
    """Words and audio → where each word is, without Whisper."""

    def __init__(self) -> None:
        from hama.asr import ASRModel
        from hama.inference import G2PModel

        self.recogniser, self.spelling = ASRModel(), G2PModel()
        self.ids = {token: id for id, token in enumerate(self.recogniser.decoder_tokens)}
        self._known: dict[str, list[int]] = {}

    def phonemes(self, word: str) -> list[int]:
        """Ids of a word's phonemes; none where the model knows no sound of it."""
        word = re.sub(r"[^a-z']", "", word.lower())
        if word not in self._known:
            found = [one.phoneme for one in self.spelling.predict(word).alignments] if word else []
            self._known[word] = [self.ids[one] for one in found] if all(one in self.ids for one in found) else []
        return self._known[word]

    def align(self, audio: np.ndarray, words: list[str]) -> list[Span] | None:
        """Start and end of each word in seconds, or None where it cannot be."""
        from torchaudio.functional import forced_align

        spelt = [self.phonemes(word) for word in words]
        if not all(spelt):
            return None
        boundary, blank = self.ids["<wb>"], self.recogniser.blank_id
        targets = [id for word in spelt for id in (*word, boundary)][:-1]
        names = [self.recogniser._log_probs_output_name, self.recogniser._out_lengths_output_name]
        given = {
            self.recogniser._waveform_input_name: audio[None].astype(np.float32),
            self.recogniser._waveform_lengths_input_name: np.array([len(audio)], np.int64),
        }
        scores, lengths = self.recogniser.session.run(names, given)
        emissions = torch.from_numpy(np.array(scores[:1, : int(np.ravel(lengths)[0])])).float().log_softmax(-1)
        try:
            path = forced_align(emissions, torch.tensor([targets]), blank=blank)[0][0].tolist()
        except (RuntimeError, ValueError):  # more phonemes than frames
            return None
        return list(self._spans(path, spelt, boundary, blank))

    @staticmethod
    def _spans(path: list[int], spelt: list[list[int]], boundary: int, blank: int) -> Iterator[Span]:
        """The frames of each word's phonemes on the path."""
        runs: list[tuple[int, int, int]] = []  # token, first frame, frame behind the last
        for frame, token in enumerate(path):
            if token == blank:
                continue
            if runs and runs[-1][0] == token and runs[-1][2] == frame:
                runs[-1] = token, runs[-1][1], frame + 1
            else:
                runs.append((token, frame, frame + 1))
        runs = [run for run in runs if run[0] != boundary]
        first = 0
        for word in spelt:
            own = runs[first : first + len(word)]
            first += len(word)
            yield own[0][1] * FRAME, own[-1][2] * FRAME


def source_of(clip: Clip) -> Source:
    return Source("-", None, None, PurePosixPath(clip.file), stream=io.BytesIO(clip.data))


def transcribed_words(clips: list[Clip], model: str) -> Iterator[list[Word]]:
    """The words of each clip, with times."""
    request = TranscribeRequest(language="en", words=True)
    sources = (source_of(clip) for clip in clips)
    for event in transcribe(sources, request, lambda: load(resolve(model), "cpu"), model=model):
        if isinstance(event, Outcome):
            yield [word for segment in event.record.segments for word in segment.words or ()]


def main() -> None:
    from whisper_normalizer.english import EnglishTextNormalizer

    parser = argparse.ArgumentParser(description="Word times beside those of a forced alignment.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips.zip and manifest.jsonl")
    parser.add_argument("--model", default="whisper-base")
    parser.add_argument("--count", type=int, help="a random part of so many clips")
    given = parser.parse_args()
    normal, aligner = EnglishTextNormalizer(), Aligner()
    clips = [clip for clip in read_clips(given.data, given.count, 0) if clip.source.startswith(CLEAN)]
    starts: dict[str, list[float]] = {}
    ends: dict[str, list[float]] = {}
    used: dict[str, int] = {}
    for clip, words in zip(clips, transcribed_words(clips, given.model), strict=True):
        if normal(" ".join(word.text for word in words)) != normal(clip.text):
            continue
        spans = aligner.align(read_audio(source_of(clip))[0], [word.text for word in words])
        if spans is None:
            continue
        for name in (clip.source, "all"):
            used[name] = used.get(name, 0) + 1
            starts.setdefault(name, []).extend(w.start - span[0] for w, span in zip(words, spans, strict=True))
            ends.setdefault(name, []).extend(w.end - span[1] for w, span in zip(words, spans, strict=True))
    rows: list[tuple[str, ...]] = [
        ("source", "clips", "words", "start, median error", "end", "both", "within 100 ms", "start is off by")
    ]
    for name in sorted(used, key=lambda name: (name == "all", name)):
        begin, end = np.abs(starts[name]), np.abs(ends[name])
        both = np.concatenate((begin, end))
        share = np.mean(both <= 0.1)
        middles = [f"{1000 * statistics.median(each):.0f} ms" for each in (begin, end, both)]
        rows.append((name, str(used[name]), str(len(begin)), *middles, f"{share:.0%}",
                     f"{1000 * statistics.median(starts[name]):+.0f} ms"))  # fmt: skip
    print(table(rows), end="")


if __name__ == "__main__":
    main()
