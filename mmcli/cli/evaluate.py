"""`mmcli evaluate`: how good a model's answers are about data with known answers."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcli.cli.choice import choose
from mmcli.cli.data import DataArgument, DataOptions, not_among, read_data
from mmcli.cli.environment import Environment
from mmcli.cli.help import Command, plain
from mmcli.cli.options import LogOptions, ModelOptions, batch_size_option, model_option, option, spread
from mmcli.cli.progress import Count, Progress
from mmcli.cli.start import begin, loader
from mmcli.errors import ExitCode, InputError
from mmcli.models.offered import able, such_as

if TYPE_CHECKING:
    from mmcli.output.schema import Record
    from mmcli.training.evaluate import Measures

PREFERRED = ("test", "val")  # splits
app = plain()
EPILOG = f"""\
Examples:

  mmcli evaluate annotations/instances_val2017.json --model {able(bundled=True)[0]}
  mmcli evaluate yolo/data.yaml --split val --model boxes/
  mmcli evaluate captions.jsonl --model {such_as("images", bundled=False)} --output answers.jsonl
  mmcli evaluate speech.tsv --media clips/ --model {such_as("transcribes", bundled=False)}

Boxes: COCO's AP50 and AP by pycocotools; every label is asked for of which all objects in a picture are
marked. Masks: the same of masks, and the mean overlap (IoU) of each mask that is marked, 0 where it was
not found. Captions: CIDEr-D, from 0 to 10, against all captions of a picture. Questions: the share of
answers that are the very words. Speech: word and character error rates by jiwer, without letters' case
and punctuation. The libraries come with: pip install 'mmcli[evaluate]'"""


@dataclass(frozen=True)
class MeasuredModel(ModelOptions):
    """Which model is measured; the rest as for every other command."""

    model: Annotated[
        str,
        model_option("The model to measure (default: the one that the task's own command would take).", usual=False),
    ] = ""


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    data: DataArgument,
    output: Annotated[
        str | None, option("Output", "--output", "-o", metavar="FILE", help="Write the record of each answer there.")
    ] = None,
    json: Annotated[
        bool,
        option("Output", "--json", help="Print the record of each answer, one a line; measures then go to stderr."),
    ] = False,
    batch_size: Annotated[
        int | None, batch_size_option("Data", "Pictures that go through the model together (default: by device).")
    ] = None,
    *,
    source: DataOptions,
    model: MeasuredModel,
    log: LogOptions,
) -> int:
    """Measure a model on data whose right answers are known.

    Prints one line per measure: its name, a tab and its value. Of data with splits, test is used, else val.
    """
    environment = begin(ctx, log, model.offline)
    if output is not None:
        not_among(output, data)

    from mmcli.api import Model
    from mmcli.output.ledger import Ledger
    from mmcli.output.record import to_json_line
    from mmcli.output.results import own_suffixes, results
    from mmcli.training.evaluate import evaluate, require_libraries

    found = read_data(environment, data, source, PREFERRED)
    require_libraries(found.examples)
    if not model.model:
        choice = choose(_task([example.task for example in found.examples]), environment.variables)
        environment.model_from = choice.by
        model = replace(model, model=choice.model)
    measured = Model(loader(environment, model), model.model, model.revision)
    suffixes = own_suffixes(output)
    place = None
    if output is not None:
        ledger = Ledger((), [*data, *(path for one in found.examples for path in (*one.images, *one.audio))])
        place = results(environment.write, output, False, ledger, suffix=suffixes[0], suffixes=suffixes)
    progress = Progress(environment, counted=Count("answer", _answers(found.examples)))

    def each(record: "Record") -> None:
        line = to_json_line(record)
        if place is not None:
            place.write(line)
        if json:
            environment.write(line)
        if record.error is not None:
            with progress.aside():
                environment.fail(InputError(record.error.rstrip(".")), str(record.source))
        progress.step()

    with place or nullcontext(), progress:
        measures = evaluate(measured, found.examples, batch_size=batch_size, each=each)
    _show(environment, measures, json)
    return ExitCode.SOME_FAILED if measures.counts["failed"] else ExitCode.OK


def _task(tasks: list[str]) -> str:
    """What most of the data are about."""
    return Counter(tasks).most_common(1)[0][0]


def _answers(examples: list[Any]) -> int:
    """About how many answers there will be: captions of one picture are asked for once."""
    pictures = {example.images for example in examples if example.task == "caption"}
    others = sum(max(len(example.exchanges), 1) for example in examples if example.task != "caption")
    return len(pictures) + others


def _show(environment: Environment, measures: "Measures", aside: bool) -> None:
    """The measures, as results or aside."""
    for name, value in measures.values.items():
        if aside:
            environment.note(f"mmcli: {name} {value:.4f}")
        else:
            environment.write(f"{name}\t{value:.4f}\n")
    if not measures.values:
        raise InputError("Nothing could be measured: no answer came, or nothing is marked in the data")
    counts = [f"{count} {task}" for task, count in measures.counts.items() if count]
    environment.note(f"mmcli: answers: {', '.join(counts)}")
