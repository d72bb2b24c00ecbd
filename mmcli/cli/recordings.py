"""The options of `mmcli transcribe`, and where a transcript goes: to stdout as it comes, or whole into files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from mmcli.cli.environment import Environment
from mmcli.cli.folders import AUDIO_FORMATS, Force, RetryFailed, chosen_forms, formats_option, is_folder
from mmcli.cli.options import (
    ModelOptions,
    Output,
    Overwrite,
    batch_size_option,
    files_from_option,
    model_option,
    one_of,
    option,
    seconds_of,
)
from mmcli.errors import UsageError
from mmcli.hub.known import AUDIO_MODEL
from mmcli.models.offered import able
from mmcli.output.results import own_suffixes, results
from mmcli.output.writers import writer_of, writers_for

if TYPE_CHECKING:
    from mmcli.media.sources import Source
    from mmcli.output.schema import Record
    from mmcli.types import Segment

SUFFIXES = tuple(writer.suffix for writer in writers_for("audio"))


@dataclass(frozen=True)
class RecordingOptions:
    """Which recordings, which part of them, and how many windows go through the model together."""

    files_from: Annotated[str | None, files_from_option("Recordings")] = None
    start: Annotated[
        float,
        option(
            "Recordings",
            "--start",
            metavar="TIME",
            parser=seconds_of,
            help="Begin there: seconds, M:SS or H:MM:SS. Times in the result stay those of the whole recording.",
        ),
    ] = 0.0
    duration: Annotated[
        float | None,
        option(
            "Recordings",
            "--duration",
            metavar="TIME",
            parser=seconds_of,
            help="Transcribe so much of the recording only, from --start on.",
        ),
    ] = None
    track: Annotated[
        int | None,
        option(
            "Recordings",
            "--track",
            metavar="N",
            help="Listen to audio track N of a video (default: the first in which somebody speaks).",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        batch_size_option(
            "Recordings", "Windows of up to 30 s that go through the model together (default: by device)."
        ),
    ] = None


@dataclass(frozen=True)
class AudioOptions:
    """What is to be written down, and how carefully."""

    language: Annotated[
        str | None,
        option(
            "Transcript",
            "--language",
            metavar="CODE",
            help="The language that is spoken, such as de or German (default: detected in each window).",
        ),
    ] = None
    task: Annotated[
        str,
        option(
            "Transcript",
            "--task",
            metavar="transcribe|translate",
            callback=one_of("transcribe", "translate"),
            help="Write what is said (default), or what it means in English (multilingual models).",
        ),
    ] = "transcribe"
    hint: Annotated[
        str | None,
        option("Transcript", "--hint", metavar="TEXT", help="Names and words that may be said, as they are spelt."),
    ] = None
    words: Annotated[
        bool,
        option(
            "Transcript",
            "--words",
            help="Find the time of every word too, if the model tells it: in json and jsonl, in vtt as tags, in tsv as "
            "rows; srt is timed by them.",
        ),
    ] = False
    beams: Annotated[
        int,
        option(
            "Transcript",
            "--beams",
            metavar="N",
            help="Follow the N likeliest texts (default 1); more take longer.",
        ),
    ] = 1
    temperature: Annotated[
        float | None,
        option(
            "Transcript",
            "--temperature",
            metavar="T",
            help="Draw with this temperature only (default: 0, and warmer where a text repeats or is unlikely).",
        ),
    ] = None
    seed: Annotated[
        int | None,
        option("Transcript", "--seed", metavar="N", help="Another seed draws other texts (default 0)."),
    ] = None


@dataclass(frozen=True)
class TranscriptOptions:
    """The form of the transcripts, and where they go."""

    format: Annotated[
        str | None,
        formats_option(
            AUDIO_FORMATS,
            "text (default): a line a segment; srt, vtt: subtitles; tsv: times in milliseconds; csv; json: the record; "
            "jsonl: one record a line. In a folder several with commas: --format srt,jsonl -o FOLDER.",
        ),
    ] = None
    json: Annotated[
        bool,
        option("Output", "--json", help="The same as --format jsonl; a failed recording is a record with an error."),
    ] = False
    output: Output = None
    overwrite: Overwrite = False
    force: Force = False
    retry_failed: RetryFailed = False
    token_ids: Annotated[
        bool, option("Output", "--token-ids", help="Add the model's token ids to each record (json, jsonl).")
    ] = False


@dataclass(frozen=True)
class AudioModelOptions(ModelOptions):
    """Which model transcribes; the rest as for every other command."""

    model: Annotated[
        str,
        model_option(
            f"The bundled {AUDIO_MODEL} (default, unless mmcli models use has set another), a checkpoint's "
            "folder, or a model of the Hugging Face hub, downloaded at first use: "
            f"{', '.join(able('transcribes', bundled=False)[:3])} and others.",
        ),
    ] = AUDIO_MODEL


class Transcripts:
    """Writes transcripts in the form that was asked for.

    Text goes out segment by segment; everything else, and every file in a folder, when its recording is finished.
    `sources`, and `others` by name, are the files that the run reads. Raises UsageError at once where options do not
    fit together.
    """

    def __init__(
        self,
        environment: Environment,
        options: TranscriptOptions,
        several: bool,
        sources: "Sequence[Source]" = (),
        others: Sequence[str] = (),
        words: bool = False,
    ):
        in_folder = is_folder(options.output)
        self.forms = chosen_forms(
            options.format, options.json, writer_of(options.output, "audio"), folder=in_folder, task="transcribe"
        )
        self.writer = self.forms.writers[0]
        if words and not (self.writer.timed or self.writer.whole):
            raise UsageError("Plain text shows no times, so --words has no effect on it", "Add --json or --format vtt")
        self.ledger = ledger = None
        if options.output is not None:
            from mmcli.output.ledger import Ledger

            self.ledger = ledger = Ledger(sources, others)
        self._results = [
            results(
                environment.write,
                options.output,
                several,
                ledger,
                suffix=writer.suffix,
                suffixes=own_suffixes(options.output) if options.format or options.json else SUFFIXES,
                joins=writer.joins,
                what="recording",
                overwrite=options.overwrite,
                head=writer.head("audio") if writer.head else "",
            )
            for writer in self.forms.writers
        ]
        self.results = self._results[0]
        self.several = several and not self.results.in_folder
        if self.several and not self.writer.joins:
            raise UsageError(
                f"A {self.writer.name} document holds one recording, but there are several",
                "Name a folder with --output, or choose --format text or jsonl",
            )

    @property
    def streams(self) -> bool:
        """Whether segments are written as they come."""
        return self.writer.name == "text" and not self.results.in_folder

    def segments(self, name: str, segments: "list[Segment]") -> None:
        """Write some more segments of a recording, if that is how it is written."""
        if self.streams and segments:
            from mmcli.output.writers.text import segment_lines

            self.results.write(segment_lines(name, segments, self.several))

    def finished(self, source: "Source", record: "Record") -> None:
        """Write a whole recording, if that is how it is written. Raises what `Results.write` does."""
        for writer, place in zip(self.forms.writers, self._results, strict=True):
            place.write("" if self.streams else writer.write(record, False), source)

    def failed(self, record: "Record") -> None:
        """Write the record of a failure where records are read."""
        if self.writer.whole and not self.results.in_folder:
            self.results.write(self.writer.write(record, False))
