"""`mmcli transcribe`."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcli.cli.engine import EngineOptions, choice_of, outcomes_apart
from mmcli.cli.environment import Environment
from mmcli.cli.folders import need_folder, open_run, open_store
from mmcli.cli.help import Command, plain
from mmcli.cli.inputs import find_sources, read_beside
from mmcli.cli.options import LogOptions, ModelOptions, spread
from mmcli.cli.progress import AudioProgress, Count
from mmcli.cli.recordings import AudioModelOptions, AudioOptions, RecordingOptions, TranscriptOptions, Transcripts
from mmcli.cli.start import begin, checkpoint_here, loader
from mmcli.errors import ExitCode, InputError, WriteError, raise_if_interrupted
from mmcli.models.offered import such_as

if TYPE_CHECKING:
    from mmcli.batch.folder import FolderRun
    from mmcli.batch.outcome import Outcome
    from mmcli.output.schema import Record
    from mmcli.output.store_folder import StoreFolder
    from mmcli.output.writers import Writer
    from mmcli.tasks.transcribe import TranscribeRequest

app = plain()
EPILOG = f"""\
Examples:

  mmcli transcribe talk.mp3
  mmcli transcribe film.mp4 --output film.srt
  mmcli transcribe interviews/ --format vtt --output subtitles/
  mmcli transcribe lecture.m4a --start 1:02:00 --duration 5:00 --words --json
  ffmpeg -i film.mkv -f wav - | mmcli transcribe -
  mmcli transcribe rede.ogg --task translate
  mmcli transcribe talk.mp3 --model {such_as("transcribes", bundled=False)}

Pauses, silence and music are passed over; what was left out is said on stderr."""

Recordings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="AUDIO",
        help="Recordings or videos: files, folders (with all below them), globs in quotes, http addresses, or - for "
        "stdin.",
        show_default=False,
    ),
]


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    audio: Recordings = None,
    *,
    recordings: RecordingOptions,
    audio_options: AudioOptions,
    output: TranscriptOptions,
    model: AudioModelOptions,
    engine: EngineOptions,
    log: LogOptions,
) -> int:
    """Write down what is said in recordings.

    One recording: a line a segment, as it is transcribed. Several: each line begins with the recording's name.
    """
    engine.check(model)
    environment = begin(ctx, log, model.offline)
    store = open_store(environment, output.output, output.format)
    if store is not None:
        output = replace(output, output=f"{store.folder}/")
    from mmcli.media.sources import RECORDING_EXTENSIONS

    names, listed = audio or [], recordings.files_from
    sources, several = find_sources(environment, names, listed, RECORDING_EXTENSIONS, "recording", [output.output])
    transcripts = Transcripts(
        environment, output, several, sources, read_beside(listed, model.model), audio_options.words
    )
    from mmcli.api import Model
    from mmcli.batch.transcribe import PartialTranscript
    from mmcli.tasks.transcribe import TranscribeRequest

    request = TranscribeRequest(**vars(audio_options), token_ids=output.token_ids)
    if (checkpoint := checkpoint_here(model)) is not None:
        from mmcli.models.registry import capabilities_of

        request.require_audio(capabilities_of(checkpoint), model.model)
    need_folder(output.force, output.retry_failed, transcripts.results.in_folder)
    run = open_folder(transcripts, request, recordings, output, replace(model, device=engine.device(model)), store)
    todo = sources if run is None else run.pending(sources)
    how: dict[str, Any] = {"batch_size": recordings.batch_size, "start": recordings.start}
    how |= {"duration": recordings.duration, "track": recordings.track}
    events: Iterator[PartialTranscript | Outcome]
    if engine.apart:
        from mmcli.batch.work import RecordingWork

        work = RecordingWork(choice_of(model), request, **how)
        events = outcomes_apart(work, todo, engine, ordered=run is None)
    else:
        first_soon = environment.stdout_tty and transcripts.streams and transcripts.results.on_stdout
        found = Model(loader(environment, model), model.model, model.revision)
        events = found.transcripts(request, todo, first_soon=first_soon, **how)
    failed = 0
    progress = AudioProgress(environment, Count("recording", len(sources)))
    with run or nullcontext(), transcripts.results, progress:
        for event in events:
            if isinstance(event, PartialTranscript):
                transcripts.segments(event.source.name, event.segments)
                progress.reach(event.source.name, event.reached, event.length)
            else:
                with progress.aside():
                    if engine.apart:  # workers send whole transcripts
                        transcripts.segments(event.source.name, list(event.record.segments))
                    good = finish(environment, transcripts, event)
                if run is not None:
                    run.note(event.source, event.record, good)
                    progress.pass_over(run.passed_over)
                failed += not good
                progress.next(event.record.seconds or 0.0)
    if run is not None:
        failed += len(run.resume.failed_before)
        if several:
            environment.note(f"mmcli: {run.summary('recording')}")
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def open_folder(
    transcripts: Transcripts,
    request: "TranscribeRequest",
    recordings: RecordingOptions,
    output: TranscriptOptions,
    model: ModelOptions,
    store: "StoreFolder | None" = None,
) -> "FolderRun | None":
    """The run into the folder of --output; None where results go elsewhere."""
    if not transcripts.results.in_folder:
        return None
    assert transcripts.ledger is not None and output.output is not None
    facts: dict[str, Any] = {"task": request.task, "request": asdict(request)}
    facts |= {"part": (recordings.start, recordings.duration, recordings.track)}
    facts |= {"forms": [writer.name for writer in transcripts.forms.writers]}
    facts["place"] = store.url if store else os.path.abspath(output.output)
    return open_run(
        Path(output.output),
        transcripts.ledger,
        model,
        facts,
        force=output.force,
        retry=output.retry_failed,
        store=store,
    )


def finish(environment: Environment, transcripts: Transcripts, outcome: "Outcome") -> bool:
    """Write one finished recording, and say what is to be said about it. False if anything failed."""
    error: InputError | WriteError | None = outcome.error
    if error is None:
        try:
            transcripts.finished(outcome.source, outcome.record)
        except (InputError, WriteError) as trouble:
            raise_if_interrupted(trouble)
            error = trouble
        for remark in remarks(outcome.record, transcripts.writer):
            environment.note(f"mmcli: {outcome.source.name}: {remark}")
    else:
        transcripts.failed(outcome.record)
    if isinstance(error, WriteError):
        raise error  # neither could the next be written
    if error is not None:
        environment.fail(error, outcome.source.name, cause=error.__cause__)
    return error is None


def remarks(record: "Record", writer: "Writer") -> list[str]:
    """What a reader of the transcript in that form alone would miss."""
    from mmcli.output.writers.text import clock

    notes = list(record.notes)
    windows, left_out = int(record.timings["windows"]), record.timings["left_out"]
    if windows > 1 or (windows and left_out >= 1):
        several = "1 window" if windows == 1 else f"{windows} windows"
        used = "" if record.truncated or record.timings["unused"] else "; all speech found is used"
        notes.append(f"{several}, {clock(left_out)} without speech left out{used}")
    if record.timestamps == "window" and record.segments and writer.timed:
        notes.append("the model gives no times: these are estimated from the windows and the lengths of the texts")
    if record.truncated:
        notes.append("a window's text was cut off: it had more tokens than the model can write")
    return notes
