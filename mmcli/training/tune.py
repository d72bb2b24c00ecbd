"""A run from what was chosen: data, model, settings; and what is left when it is over."""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from mmcli.engine.device import choose_dtype
from mmcli.errors import InputError, ModelError, UsageError, WriteError
from mmcli.example import Example
from mmcli.hub.quantized import QUANTIZED, parameter_count
from mmcli.hub.resolve import Checkpoint
from mmcli.layers.lora import LoraConfig
from mmcli.models.load import load, storage_of
from mmcli.models.loaded import Loaded
from mmcli.models.objects_in_text import labels_of
from mmcli.models.registry import family_of
from mmcli.models.saving import stored_type
from mmcli.models.teaching import Teaching
from mmcli.training.batches import TRIES, Examples
from mmcli.training.loop import Held, Score, Trainer
from mmcli.training.ranks import Ranks
from mmcli.training.results import Results
from mmcli.training.samples import answers
from mmcli.training.settings import Method, TuneSettings
from mmcli.training.state import State, latest, read_state
from mmcli.training.watch import Watcher

LARGE = 500_000_000  # parameters from which on LoRA is the usual method, and activations are computed again on a GPU
HUGE = 1_000_000_000  # … from which on a GPU reads few examples at once
EPOCHS, BATCH, EVALUATIONS = 10.0, 16, 10
FULL = 0.7  # share of a GPU's memory beyond which a model's weights are shared out, so that activations have room
NO_ANSWERS = "Choose --best-by loss, or --no-shard"
ENDLESS = 10_000_000  # steps, where the clock ends the run


@dataclass(frozen=True)
class Choices:
    """What a user chose; None where it was left open."""

    method: Method | None = None
    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    rate: float | None = None
    batch: int | None = None
    micro: int | None = None
    every: int | None = None
    rank: int = 16
    alpha: float | None = None
    stabilised: bool = False
    dropout: float = 0.0
    average: float = 0.0
    recompute: bool | None = None
    freeze: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    patience: int = 0
    measure: str = "loss"
    seed: int = 0
    dtype: str = "auto"
    quantize: str = "auto"
    shard: bool | None = None
    resume: bool = False


@dataclass(frozen=True)
class Finished:
    """A run that is over."""

    output: Path
    state: State
    facts: dict[str, Any]


def teaching_of(checkpoint: Checkpoint) -> Teaching:
    """How a checkpoint's family is taught. Raises ModelError for one that mmcli cannot train."""
    family = family_of(checkpoint.config, checkpoint.name)
    if family.teaching is None:
        raise ModelError(f"mmcli cannot train {family.name}", "Choose a model of another family")
    return family.teaching


def held_out(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Some examples to learn from, and a share of them that is not: of those with the same image all are on one side.

    Raises InputError where nothing is left on one side.
    """
    groups: dict[object, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.images or example.audio or example.where, []).append(example)
    order = sorted(groups, key=str)
    random.Random(seed).shuffle(order)
    count = math.ceil(share * len(order)) if share else 0
    if count >= len(order):
        raise InputError(f"Of {len(order)} inputs nothing is left to learn from", "Hold out fewer, with --eval")
    held = [example for key in order[:count] for example in groups[key]]
    return [example for key in order[count:] for example in groups[key]], held


def settings_of(
    choices: Choices, checkpoint: Checkpoint, teaching: Teaching, examples: int, device: str
) -> TuneSettings:
    """What is left open is chosen by the sizes of the model and the data. Raises UsageError."""
    parameters, on_gpu = parameter_count(checkpoint.folder), device == "cuda"
    storage = storage_of(checkpoint, choices.quantize)
    method = choices.method or ("lora" if parameters >= LARGE or storage else "full")
    if storage is not None and method != "lora":
        what = f"The weights of {checkpoint.name} are to be in {storage}, in which they cannot be trained themselves"
        raise UsageError(what, "Choose --method lora, or --quantize none")
    batch = choices.batch or min(BATCH, examples)
    an_epoch = max(1, math.ceil(examples / batch))
    if choices.steps is not None and choices.epochs is not None:
        raise UsageError("--steps and --epochs both say how long to train", "Give one of them")
    if choices.steps is not None:
        steps = choices.steps
    elif choices.epochs is not None or choices.minutes is None:
        steps = max(1, math.ceil((choices.epochs or EPOCHS) * an_epoch))
    else:
        steps = ENDLESS
    every = choices.every or (an_epoch if steps == ENDLESS else max(1, math.ceil(steps / EVALUATIONS)))
    config = family_of(checkpoint.config, checkpoint.name).read_config(checkpoint.config)
    usual = teaching.usual_rate(config, method == "lora")
    alpha = choices.alpha if choices.alpha is not None else 2.0 * choices.rank
    return TuneSettings(
        method=method,
        steps=steps,
        batch=batch,
        rate=choices.rate or usual,
        minutes=choices.minutes,
        micro=choices.micro or (4 if on_gpu and parameters >= HUGE else None),
        lora=LoraConfig(choices.rank, alpha, choices.stabilised, choices.dropout),
        average=choices.average,
        recompute=on_gpu and parameters >= LARGE if choices.recompute is None else choices.recompute,
        frozen=choices.freeze,
        trained=choices.train,
        every=every,
        patience=choices.patience,
        measure=choices.measure,
        seed=choices.seed,
        quantize=storage or "none",
    )


def tune(
    checkpoint: Checkpoint,
    examples: Sequence[Example],
    held: Sequence[Example],
    output: Path,
    choices: Choices,
    ranks: Ranks,
    watcher: Watcher,
    *,
    replayed: Sequence[Example] = (),
    share: float = 0.0,
    score: Callable[[Loaded], Score] | None = None,
) -> Finished:
    """Train a model on examples, and leave the best weights in the folder `output`.

    Raises UsageError for choices that do not go together, ModelError for a model that cannot be trained, InputError for
    examples that cannot be learned, WriteError where the disk is full.
    """
    teaching = teaching_of(checkpoint)
    settings = settings_of(choices, checkpoint, teaching, len(examples), ranks.device.type)
    if settings.batch % ranks.world:
        raise UsageError(f"A batch of {settings.batch} cannot be shared among {ranks.world} processes", "Change it")
    resumed = latest(output) if choices.resume else None
    if resumed is not None:
        _same(read_state(resumed)[1], settings)
    labels = labels_of(examples)
    given = checkpoint.config
    if settings.quantize == "none":
        given = {name: value for name, value in given.items() if name != QUANTIZED}
    raw = teaching.configured(given, labels)
    if raw is not given and settings.method != "full":
        what = f"The data have labels that {checkpoint.name} does not list, and they are learned by whole weights alone"
        raise UsageError(what, "Choose --method full, or leave --method out")
    ranks = replace(ranks, shared=_is_shared(choices, checkpoint, teaching, settings, ranks))
    if ranks.shared:
        if score is not None:
            raise UsageError("Answers are written by one process, and here none has the whole model", NO_ANSWERS)
        watcher.said(f"the weights are shared out among {ranks.world} processes; no answers are written on the way")
    loaded = _loaded(replace(checkpoint, config=raw), choices, settings, ranks)
    for kind in (examples, held):
        _check_learnable(teaching, loaded, kind)
    if ranks.first:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(f"{output} cannot be made ({error.strerror or error})", "Choose another place") from error
    lora = settings.lora if settings.method == "lora" else None
    results = Results(loaded, output, lora, raw, resumed)
    look = Held(held, score, None if ranks.shared or not held else (lambda model: answers(model, held)))
    mixed = Examples(examples, replayed, share if replayed else 0.0, settings.seed)
    trainer = Trainer(loaded, mixed, look, settings, ranks, results, watcher)
    state = trainer.run()
    facts = trainer.described() | {
        "model": checkpoint.name,
        "library": "transformers" if "architectures" in checkpoint.config else "mmcli",
        "labels": labels,
        "examples": len(examples),
        "held_out": len(held),
        "replayed": len(replayed),
        "trained": sum(one.numel() for one in trainer.trained.values()),
        "rows": trainer.log.lines if trainer.log else [],
    }
    return Finished(output, state, facts)


def check_free(output: Path, resume: bool) -> None:
    """Raise UsageError where a run would write over what is there. Several processes ask before one of them writes."""
    if not resume and (output.is_file() or (output.is_dir() and any(output.iterdir()))):
        raise UsageError(f"{output} exists already", "Go on with --resume, or name a folder that is not there")


def _check_learnable(teaching: Teaching, loaded: Loaded, examples: Sequence[Example]) -> None:
    """Raise InputError where the model cannot learn from any of the first examples, with the reason of the first."""
    reason: InputError | None = None
    for example in examples[:TRIES]:
        try:
            teaching.rows(loaded, example, random.Random(0))
            return
        except InputError as error:
            reason = reason or error
    if reason is not None:
        raise reason


def _is_shared(
    choices: Choices, checkpoint: Checkpoint, teaching: Teaching, settings: TuneSettings, ranks: Ranks
) -> bool:
    """Whether the weights are shared out among the processes. Raises UsageError where they are to be and cannot be."""
    able = teaching.shared and settings.quantize == "none"
    if choices.shard is not None:
        if choices.shard and not able:
            what = "Weights in integers are" if teaching.shared else f"{checkpoint.name} is"
            raise UsageError(f"{what} not shared out: each process has room for a copy", "Leave --shard out")
        if choices.shard and ranks.world == 1:
            do = "Start several: torchrun --nproc-per-node N -m mmcli tune …"
            raise UsageError("--shard is for several processes, and this is one", do)
        return choices.shard
    if ranks.world == 1 or ranks.device.type != "cuda" or not able:
        return False
    room = torch.cuda.get_device_properties(ranks.device).total_memory
    a_number = 2 if settings.method == "lora" else 16  # bytes: those of gradients and of AdamW's two means with it
    return a_number * parameter_count(checkpoint.folder) > FULL * room


def _loaded(checkpoint: Checkpoint, choices: Choices, settings: TuneSettings, ranks: Ranks) -> Loaded:
    """The model as it is trained; where it is to be shared out, as it is stored, on the CPU."""
    whole = settings.method != "lora"
    if not ranks.shared:
        kind: torch.dtype | str = "float32" if whole else choices.dtype
        return load(checkpoint, ranks.device, kind, fused=False, quantize=settings.quantize)
    below = stored_type(checkpoint.folder) if whole else None
    dtype = below or choose_dtype(choices.dtype, ranks.device, parameter_count(checkpoint.folder))
    return replace(load(checkpoint, "cpu", dtype, fused=False, quantize="none"), device=ranks.device)


def _same(before: dict[str, Any], now: TuneSettings) -> None:
    """Raise UsageError where a run is to go on with other settings than it began with."""
    stored = json.loads(json.dumps(asdict(now)))
    usual = {one.name: one.default for one in fields(TuneSettings)}  # of what an earlier version did not know
    for name, value in stored.items():
        if before.get(name, usual[name]) != value:
            what = f"The run began with {name} {before.get(name)!r}, and is to go on with {value!r}"
            raise UsageError(what, "Give the same options and data, or begin anew in another folder")
