"""`mmcli tune`: train a model on one's own data."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

from mmcli.cli.data import DataArgument, DataOptions, read_data
from mmcli.cli.help import Command, plain
from mmcli.cli.options import (
    LogOptions,
    Offline,
    Revision,
    device_option,
    dtype_option,
    model_option,
    one_of,
    option,
    quantize_option,
    spread,
)
from mmcli.cli.start import begin
from mmcli.cli.tune_view import TuneView
from mmcli.errors import ExitCode, UsageError
from mmcli.models.offered import able, such_as

if TYPE_CHECKING:
    from mmcli.example import Example
    from mmcli.models.loaded import Loaded
    from mmcli.training.loop import Score
    from mmcli.training.tune import Choices

HELD_SPLITS = ("val", "test")
HELD_OUT = 0.1  # share of the examples, where --eval is left out
app = plain()
EPILOG = f"""\
Examples:

  mmcli tune check photos/annotations.json
  mmcli tune photos/annotations.json --model {able(bundled=True)[0]} --output boxes --minutes 10
  mmcli detect "widget" new/ --model boxes
  mmcli tune speech.jsonl --model {such_as("transcribes", bundled=True)} --output jargon --steps 200
  mmcli tune captions.jsonl --model {such_as("images", bundled=False)} --output adapter --epochs 3
  mmcli caption photo.jpg --model {such_as("images", bundled=False)} --adapter adapter
  torchrun --nproc-per-node 2 -m mmcli tune captions.jsonl --model {such_as("images", bundled=False)} -o adapter

The output folder holds the best weights (a model, or a LoRA adapter), log.jsonl, curves.png, README.md
(a model card) and checkpoints, from which --resume goes on."""


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how it is trained."""

    method: Annotated[
        str | None,
        option(
            "Training",
            "--method",
            metavar="lora|full|head",
            callback=lambda value: None if value is None else one_of("lora", "full", "head")(value),
            help="lora: thin matrices beside the weights (default for large models); full: the weights themselves "
            "(default for small ones); head: what stands between the encoder and the text alone.",
        ),
    ] = None
    epochs: Annotated[
        float | None, option("Training", "--epochs", metavar="N", help="How often each example is seen (default 10).")
    ] = None
    steps: Annotated[
        int | None, option("Training", "--steps", metavar="N", help="Updates in all, instead of --epochs.")
    ] = None
    minutes: Annotated[
        float | None,
        option(
            "Training",
            "--minutes",
            metavar="N",
            help="Train so long; the learning rate falls by that clock. It counts updates alone, with --resume those "
            "before it too.",
        ),
    ] = None
    lr: Annotated[
        float | None, option("Training", "--lr", metavar="RATE", help="The highest learning rate (default: by model).")
    ] = None
    batch_size: Annotated[
        int | None, option("Training", "--batch-size", metavar="N", help="Examples an update (default 16).")
    ] = None
    micro_batch: Annotated[
        int | None,
        option(
            "Training",
            "--micro-batch",
            metavar="N",
            help="Examples that are read at once, for less memory; the gradients of an update add up (default: all of "
            "it, on a GPU 4 with large models).",
        ),
    ] = None
    rank: Annotated[int, option("Training", "--rank", metavar="N", help="Of LoRA's matrices (default 16).")] = 16
    alpha: Annotated[
        float | None, option("Training", "--alpha", metavar="X", help="Weight of LoRA's product (default 2 × rank).")
    ] = None
    rslora: Annotated[bool, option("Training", "--rslora", help="Scale by √rank, for large ranks.")] = False
    dropout: Annotated[
        float, option("Training", "--dropout", metavar="P", help="Of what LoRA's matrices read (default 0).")
    ] = 0.0
    ema: Annotated[
        float,
        option(
            "Training",
            "--ema",
            metavar="X",
            help="Average the weights: keep so much of them an update, such as 0.99 (default 0: do not).",
        ),
    ] = 0.0
    recompute: Annotated[
        bool | None,
        option(
            "Training",
            "--recompute/--no-recompute",
            help="Compute activations again on the way back: less memory, more time (default: large models on a GPU).",
        ),
    ] = None
    freeze: Annotated[
        list[str] | None,
        option("Training", "--freeze", metavar="PART", help="Leave parts as they are whose names begin so: decoder."),
    ] = None
    train: Annotated[
        list[str] | None,
        option("Training", "--train", metavar="PART", help="Train parts that are usually left as they are: vision."),
    ] = None
    shard: Annotated[
        bool | None,
        option(
            "Training",
            "--shard/--no-shard",
            help="Under torchrun: share the weights out among the processes instead of giving each a copy (default: "
            "only where a GPU has too little memory for one).",
        ),
    ] = None
    seed: Annotated[
        int,
        option("Training", "--seed", metavar="N", help="Another number, another order of the examples (default 0)."),
    ] = 0
    resume: Annotated[bool, option("Training", "--resume", help="Go on from the last checkpoint in --output.")] = False


@dataclass(frozen=True)
class EvaluationOptions:
    """What is held out, and what is mixed in."""

    held: Annotated[
        str | None,
        option(
            "Training",
            "--eval",
            metavar="DATA|SHARE",
            help="Hold these examples out, or a share such as 0.2 of the data (default 0.1; 0: nothing).",
        ),
    ] = None
    every: Annotated[
        int | None,
        option(
            "Training",
            "--eval-every",
            metavar="N",
            help="Updates from one evaluation to the next (default: ten in a run, with --minutes one each epoch).",
        ),
    ] = None
    best_by: Annotated[
        str,
        option(
            "Training",
            "--best-by",
            metavar="loss|answers",
            callback=one_of("loss", "answers"),
            help="What tells the best weights: the loss of the held-out examples (default), or how good the answers to "
            "them are, measured as by mmcli evaluate, which takes longer.",
        ),
    ] = "loss"
    patience: Annotated[
        int,
        option("Training", "--patience", metavar="N", help="Stop after N evaluations without a better one (0: never)."),
    ] = 0
    replay: Annotated[
        str | None,
        option("Training", "--replay", metavar="DATA", help="Mix in examples of what the model knows, to keep it."),
    ] = None
    replay_share: Annotated[
        float,
        option("Training", "--replay-share", metavar="X", help="What share of the examples is replayed (default 0.3)."),
    ] = 0.3
    tensorboard: Annotated[
        str | None,
        option(
            "Output",
            "--tensorboard",
            metavar="FOLDER",
            help="Write an event file for TensorBoard into this folder as well (needs mmcli[tensorboard]).",
        ),
    ] = None
    licence: Annotated[
        str | None,
        option("Output", "--license", metavar="ID", help="The licence that the model card names, such as cc-by-4.0."),
    ] = None


@dataclass(frozen=True)
class TunedModel:
    """What is trained, and where."""

    model: Annotated[
        str,
        model_option(
            f"The model to start from: bundled ({', '.join(able(bundled=True))}), a folder, or one of the hub.",
            usual=False,
        ),
    ]
    revision: Revision = None
    offline: Offline = False
    device: Annotated[str, device_option("Where to train (default auto: a GPU if there is one).")] = "auto"
    dtype: Annotated[
        str, dtype_option("Type of the weights below LoRA (default auto; whole weights are trained in float32).")
    ] = "auto"
    quantize: Annotated[
        str,
        quantize_option(
            "Keep the decoder's weights below LoRA in 8- or 4-bit integers, for less memory; use the adapter with the "
            "same --quantize (default auto: as the model's folder was saved).",
        ),
    ] = "auto"


class WithCheck(Command):
    """A command over data that has `check` below it: `mmcli tune DATA`, `mmcli tune check DATA`.

    Data that are called check are named with their folder: `./check`.
    """

    def below(self, word: str) -> Any:
        if word != "check":
            return None
        from mmcli.cli import tune_check

        return get_command(tune_check.app)

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        check = self.below(args[0]) if args else None
        if check is None:
            return super().make_context(info_name, args, parent=parent, **extra)
        return check.make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)


@app.command(cls=WithCheck, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    data: DataArgument,
    output: Annotated[
        str, option("Output", "--output", "-o", metavar="FOLDER", help="Where the result goes; a new folder.")
    ],
    *,
    model: TunedModel,
    training: TrainingOptions,
    evaluation: EvaluationOptions,
    source: DataOptions,
    log: LogOptions,
) -> int:
    """Train a model on examples of your own: labelled pictures, prompts and answers, recordings and their texts.

    What is learned are the answers. Some examples are held out; the weights that are best on them are kept. Prints the
    output folder.
    """
    environment = begin(ctx, log, model.offline)
    from mmcli.hub.resolve import resolve
    from mmcli.models.registry import capabilities_of
    from mmcli.training import curves
    from mmcli.training.card import write_card
    from mmcli.training.check import untaught
    from mmcli.training.event_file import EventFile
    from mmcli.training.ranks import joined
    from mmcli.training.tune import check_free, held_out, teaching_of, tune
    from mmcli.training.watch import Watchers

    checkpoint = resolve(model.model, model.revision, download=not model.offline)
    teaching_of(checkpoint)
    check_free(Path(output), training.resume)
    examples = read_data(environment, data, source, ("train",)).examples
    for remark in untaught(examples, capabilities_of(checkpoint)):
        environment.note(f"mmcli: {remark[0].lower()}{remark[1:]}")
    held: list[Example] = []
    share = _share(evaluation.held)
    if share is None:
        held = read_data(environment, [evaluation.held or ""], replace(source, split=None), HELD_SPLITS).examples
    elif share:
        examples, held = held_out(examples, share, training.seed)
    replayed = read_data(environment, [evaluation.replay], source, ("train",)).examples if evaluation.replay else []
    choices = _choices(training, evaluation, model)
    score = _score_of_answers(held) if evaluation.best_by == "answers" else None
    folder = Path(output)
    events = EventFile(Path(evaluation.tensorboard)) if evaluation.tensorboard else None
    with joined(model.device) as ranks:
        if not ranks.first:
            environment.quiet = True
        with TuneView(environment) as view, closing(events) if events else nullcontext():
            view.began(len(examples), len(held), len(replayed))
            watcher = Watchers(view, events) if events else view
            done = tune(
                checkpoint, examples, held, folder, choices, ranks, watcher,
                replayed=replayed, share=evaluation.replay_share, score=score,
            )  # fmt: skip
        if not ranks.first:
            return ExitCode.OK
    lines = done.facts["rows"]
    curves.draw(lines, folder / "curves.png")
    write_card(folder, done.facts, [*data, *([evaluation.replay] if evaluation.replay else [])], evaluation.licence)
    for line in curves.chart(lines):
        environment.log(line)
    for problem, times in done.facts["unusable"].items():
        environment.note(f"mmcli: passed over{'' if times == 1 else f' {times} times'}: {problem}")
    if done.state.best is not None and not done.state.best_step:
        environment.note("mmcli: no evaluation was better than the model was before: nothing was kept")
    environment.write(f"{output}\n")
    return ExitCode.OK


def _choices(training: TrainingOptions, evaluation: EvaluationOptions, model: TunedModel) -> "Choices":
    from mmcli.training.tune import Choices

    return Choices(
        training.method,  # type: ignore[arg-type]  # the option's callback lets nothing else through
        epochs=training.epochs,
        steps=training.steps,
        minutes=training.minutes,
        rate=training.lr,
        batch=training.batch_size,
        micro=training.micro_batch,
        every=evaluation.every,
        rank=training.rank,
        alpha=training.alpha,
        stabilised=training.rslora,
        dropout=training.dropout,
        average=training.ema,
        recompute=training.recompute,
        freeze=tuple(training.freeze or ()),
        train=tuple(training.train or ()),
        patience=evaluation.patience,
        measure=evaluation.best_by,
        seed=training.seed,
        dtype=model.dtype,
        quantize=model.quantize,
        shard=training.shard,
        resume=training.resume,
    )


def _score_of_answers(held: "list[Example]") -> "Callable[[Loaded], Score]":
    """What measures the answers to the examples held out. Raises UsageError where that cannot be."""
    from mmcli.training.evaluate import require_libraries
    from mmcli.training.samples import scored

    if not held:
        raise UsageError("--best-by answers needs examples that are held out", "Name some, or a share, with --eval")
    require_libraries(held)
    return partial(scored, examples=held)


def _share(text: str | None) -> float | None:
    """The share that --eval names; None where it names data."""
    if text is None:
        return HELD_OUT
    try:
        share = float(text)
    except ValueError:
        return None
    if not 0 <= share < 1:
        raise UsageError(f"--eval {text} is no share of the data", "Write a number from 0 to 1, or name data")
    return share
