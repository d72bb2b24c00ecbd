"""What caption, detect and segment share: from the options of a command line to its exit code."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mmcli.cli.engine import EngineOptions, choice_of, outcomes_apart
from mmcli.cli.folders import (
    FolderOptions,
    ObjectOptions,
    need_folder,
    need_picture,
    open_run,
    open_store,
    refuse_sidecar_value,
)
from mmcli.cli.inputs import find_sources, found_in, not_on_stdout, read_beside
from mmcli.cli.options import AnswerOptions, ImageOptions, LogOptions, ModelOptions, OutputOptions
from mmcli.cli.progress import Count, Progress
from mmcli.cli.render import Renderer
from mmcli.cli.start import begin, capabilities_here, loader
from mmcli.cli.videos import VideoResults, extensions, holds_video, is_video_file, sampling_of
from mmcli.errors import ExitCode, InputError, UsageError, WriteError, raise_if_interrupted
from mmcli.models.offered import able
from mmcli.tasks.read import ReadRequest
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from mmcli.batch.folder import FolderRun
    from mmcli.batch.outcome import Outcome
    from mmcli.cli.environment import Environment
    from mmcli.media.sampling import Sampling
    from mmcli.media.sources import Source
    from mmcli.output.store_folder import StoreFolder


@dataclass(frozen=True)
class Plan:
    """A command line of a task over images, as it was given."""

    images: list[str]
    inputs: ImageOptions
    output: OutputOptions
    model: ModelOptions
    log: LogOptions
    mask: str | None = None
    mask_decoder: str | None = None
    folder: FolderOptions = FolderOptions()
    objects: ObjectOptions = ObjectOptions()
    engine: EngineOptions = EngineOptions()
    from_boxes: bool = False  # the inputs are those that records tell of, whose objects are outlined
    library: str | None = None  # with its version, where it answers and no model does
    store: "StoreFolder | None" = None  # where --output is

    @property
    def address(self) -> str | None:
        """The whole name of --output."""
        return self.store.url if self.store else self.output.output and os.path.abspath(self.output.output)

    @property
    def places(self) -> tuple[str | None, ...]:
        """Where files are written."""
        cut, output = self.objects, self.output
        return output.overlay, self.mask, output.output, cut.crop, cut.cutout, cut.copy


def request_fields(answer: AnswerOptions, output: OutputOptions) -> dict[str, Any]:
    """The fields of a request that every task takes from its options."""
    names = ("prompt", "max_tokens", "temperature", "top_k", "top_p", "seed")
    fields = {name: getattr(answer, name) for name in names}
    return fields | {"loc_divisor": output.loc_divisor, "token_ids": output.token_ids}


Answers = Callable[[Any, "Iterable[Source]"], "Iterator[Outcome]"]


def sifting(objects: ObjectOptions) -> dict[str, Any]:
    """The fields of a request that decide which objects are kept."""
    return {"nms": objects.nms, "max_objects": objects.max_objects}


def run_images(ctx: typer.Context, request: Request, plan: Plan, answers: Answers | None = None) -> int:
    """Answer the request for every image of the plan, writing each result when it is there.

    `answers` does it where no model is asked.
    """
    plan.engine.check(plan.model, plan.mask_decoder)
    refuse_sidecar_value(plan.folder.sidecar, plan.images)
    cut = plan.objects
    need_picture(cut, (plan.output.overlay, plan.output.show, cut.crop, cut.cutout, cut.copy))
    environment = begin(ctx, plan.log, plan.model.offline)
    store = open_store(environment, plan.output.output, plan.folder.format, plan.places)
    if store is not None:
        plan = replace(plan, output=replace(plan.output, output=f"{store.folder}/"), store=store)
    sampling = sampling_of(plan.inputs)
    sources, several = _inputs(environment, plan)
    renderer, videos = _writers(environment, request, plan, sources, several)
    run = open_folder(renderer, request, plan)
    todo: Iterable[Source] = sources if run is None else run.pending(sources)
    if answers is not None:
        outcomes = answers(request, todo)
    else:
        outcomes = _answers_of_model(environment, request, plan, todo, renderer.needs_image, sampling, run is None)
    wanted = several or plan.model.model not in able(bundled=True)
    counted = Count("picture", len(sources)) if several else None
    progress = Progress(environment, wanted=wanted, counted=counted, words=request.task)
    with run or nullcontext(), renderer.results, progress:
        failed = _write(outcomes, renderer, videos, run, progress)
        if run is not None:
            run.export(renderer.forms.datasets, renderer.labels)
    if run is not None:
        failed += len(run.resume.failed_before)
        if several:
            environment.note(f"mmcli: {run.summary('picture')}")
    if request.task == "caption" and not failed and not renderer.json:
        from mmcli.cli.hint import hint

        hint(environment, plan.model.model, f"mmcli caption {sources[0].name if not several else 'photo.jpg'}")
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _inputs(environment: "Environment", plan: Plan) -> "tuple[list[Source], bool]":
    """All inputs, and whether their results are those of several."""
    if plan.from_boxes:
        sources = list(found_in(environment, plan.images, at_once=True))
        not_on_stdout(environment, sources)
        several = True
    else:
        kinds = extensions(plan.inputs)
        sources, several = find_sources(environment, plan.images, plan.inputs.files_from, kinds, "picture", plan.places)
    film = holds_video(sources, plan.inputs)
    if plan.engine.apart and film:
        raise UsageError("Videos are not shared out to workers", "Leave --devices and --engine out, or name pictures")
    return sources, several or film


def _writers(
    environment: "Environment", request: Request, plan: Plan, sources: "list[Source]", several: bool
) -> tuple[Renderer, VideoResults]:
    """What writes results, and what gathers those of a video's frames."""
    output, results = plan.output, plan.images if plan.from_boxes else ()
    others = read_beside(plan.inputs.files_from, plan.model.model, plan.mask_decoder, *results)
    renderer = Renderer(
        environment,
        replace(output, overlay=None) if is_video_file(output.overlay) else output,
        plan.mask,
        several,
        sources,
        others,
        plan.folder,
        plan.objects,
        request.labels if request.finds_objects else (),
        request.task,
        isinstance(request, ReadRequest) and request.boxes,
    )
    need_folder(plan.folder.force, plan.folder.retry_failed, renderer.results.in_folder)
    return renderer, VideoResults(renderer, output.overlay, sources, others)


def _answers_of_model(
    environment: "Environment",
    request: Request,
    plan: Plan,
    sources: "Iterable[Source]",
    keep_images: bool,
    sampling: "Sampling",
    ordered: bool,
) -> "Iterator[Outcome]":
    """An outcome for each image, by workers where the work is shared out; then in order only where it is `ordered`."""
    size = plan.inputs.batch_size
    if plan.engine.apart:
        from mmcli.batch.work import ImageWork

        work = ImageWork(choice_of(plan.model, plan.mask_decoder), request, size)
        return outcomes_apart(work, sources, plan.engine, ordered=ordered, keep_images=keep_images)
    from mmcli.api import Model

    model = Model(
        loader(environment, plan.model, plan.mask_decoder),
        plan.model.model,
        plan.model.revision,
        partial(capabilities_here, plan.model),
    )
    return model.answers(request, sources, batch_size=size, keep_images=keep_images, sampling=sampling)


def _write(
    outcomes: "Iterator[Outcome]",
    renderer: Renderer,
    videos: VideoResults,
    run: "FolderRun | None",
    progress: Progress,
) -> int:
    """Write each outcome as it comes; how many failed."""
    from mmcli.batch.frames import FrameSource

    failed = 0
    for outcome in outcomes:
        with progress.aside():
            source, good = outcome.source, finish(renderer, outcome)
            if isinstance(source, FrameSource):
                good = videos.add(source, outcome.record, good)
        failed += not good
        if isinstance(source, FrameSource):
            if not source.last:
                continue
            source = source.video
        if run is not None:
            run.note(source, outcome.record, good)
            progress.pass_over(run.passed_over)
        progress.step()
    return failed


def open_folder(renderer: Renderer, request: Request, plan: Plan) -> "FolderRun | None":
    """The run into the folder of --output; None where results go elsewhere."""
    if not renderer.results.in_folder:
        return None
    assert renderer.ledger is not None and plan.output.output is not None
    forms = [*(writer.name for writer in renderer.forms.writers), *renderer.forms.datasets]
    facts: dict[str, Any] = {"task": request.task, "request": asdict(request), "objects": asdict(plan.objects)}
    facts |= {"forms": forms, "sidecar": plan.folder.sidecar, "mask_decoder": plan.mask_decoder}
    facts["frames"] = [plan.inputs.interval, plan.inputs.frames]
    output = plan.output.output
    facts["places"] = [plan.address if place == output else place and os.path.abspath(place) for place in plan.places]
    return open_run(
        Path(plan.output.output),
        renderer.ledger,
        replace(plan.model, device=plan.engine.device(plan.model)),
        facts,
        library=plan.library,
        force=plan.folder.force,
        retry=plan.folder.retry_failed,
        store=plan.store,
    )


def finish(renderer: Renderer, outcome: "Outcome") -> bool:
    """Write one outcome: its text or record, its files, what is to be said about it. False if anything failed."""
    environment = renderer.environment
    error: InputError | WriteError | None = outcome.error
    if error is None:

        def files() -> None:
            renderer.files(outcome.source, outcome.record, outcome.full)

        for write in (files, lambda: renderer.text(outcome.record, outcome.source)):
            try:
                write()
            except (InputError, WriteError) as trouble:
                raise_if_interrupted(trouble)
                error = error or trouble
        renderer.notes(outcome.record, once=outcome.remarks)
    elif renderer.json:
        renderer.text(outcome.record)
    if isinstance(error, WriteError):
        raise error  # neither could the next be written
    if error is not None:
        environment.fail(error, outcome.source.name)
    return error is None
