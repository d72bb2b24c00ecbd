import gc
import weakref
from copy import copy
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
import support
import torch
from PIL import Image

from mmcli.batch import image_reader, images
from mmcli.batch.images import SIDE_BY_SIDE, run
from mmcli.batch.sizes import ON_CPU
from mmcli.engine import cuda_graph, scheduler
from mmcli.errors import InputError, ModelError
from mmcli.hub.resolve import resolve
from mmcli.media import image
from mmcli.media.sources import IMAGE_EXTENSIONS, Source, expand
from mmcli.models.family import Capabilities
from mmcli.models.load import load
from mmcli.tasks.caption import CaptionRequest
from mmcli.tasks.detect import DetectRequest

REQUEST = CaptionRequest(max_tokens=6)


@pytest.fixture(params=["batches", "rows"])
def path(request, monkeypatch):
    """Small models go in whole batches, several at a time; where one has the machine to itself, its rows take turns."""
    monkeypatch.setattr("mmcli.batch.lanes.allowed_cores", lambda: 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2 if request.param == "batches" else 1)
    other = "scheduler.write_continuously" if request.param == "batches" else "collect.complete"
    monkeypatch.setattr(f"mmcli.engine.{other}", None)  # what is not called


def sources(*names):
    return expand(names, extensions=IMAGE_EXTENSIONS)


def broken(name="broken.png"):
    return Source(name, None, None, PurePosixPath(name), problem=InputError(f"{name} is broken"))


def test_every_input_becomes_a_record_in_its_place(album, loaded, path):
    mixed = [broken("1.png"), *sources("album"), broken("2.png"), *sources("album/b.jpg"), broken("3.png")]
    outcomes = list(run(mixed, REQUEST, lambda: loaded, model="tiny", batch_size=2))
    names = [outcome.record.source for outcome in outcomes]
    assert names == ["1.png", "album/a[red].png", "album/b.jpg", "album/sub/c.png", "2.png", "album/b.jpg", "3.png"]
    assert [name for name, o in zip(names, outcomes, strict=True) if o.error] == ["1.png", "2.png", "3.png"]
    assert all((outcome.record.kind == "failed") == bool(outcome.error) for outcome in outcomes)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_answers_do_not_depend_on_the_batch_size(album, loaded, size, path):
    def answers(batch_size):
        outcomes = run(sources("album", "album"), REQUEST, lambda: loaded, model="tiny", batch_size=batch_size)
        return [(outcome.record.source, outcome.record.text) for outcome in outcomes]

    assert answers(size) == answers(1)


def test_lanes_begin_with_small_batches_go_on_with_whole_ones_and_end_with_even_ones(album, loaded, monkeypatch):
    monkeypatch.setattr("mmcli.batch.lanes.allowed_cores", lambda: 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)

    def sizes(given=list, count=21, **more):
        named = given(list(sources(*["album/b.jpg"] * count)))
        outcomes = run(named, REQUEST, lambda: loaded, model="tiny", **more)
        return [outcome.record.timings["batch"] for outcome in outcomes]

    half, whole = ON_CPU // 2, SIDE_BY_SIDE * ON_CPU
    assert sizes(iter) == [half] * 2 * half + [13] * 13, "nobody knows how many there are"
    assert sizes(iter, 2 * half + whole + 1) == [half] * 2 * half + [whole] * whole + [1]
    assert sizes() == [half] * 2 * half + [7] * 7 + [4] * 4 + [2] * 2
    assert sizes(batch_size=6) == [6] * 18 + [3] * 3


class Counting:
    """A model, and how many rows its prompts and steps had."""

    def __init__(self, model, fails_at=None):
        self._model, self.read, self.steps, self._fails_at = model, [], [], fails_at

    def __getattr__(self, name):
        return getattr(self._model, name)

    def prefill(self, inputs, cache):
        self.read.append(len(inputs.tokens))
        if len(self.read) == self._fails_at:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
        return self._model.prefill(inputs, cache)

    def step(self, tokens, cache, *given):
        self.steps.append(len(tokens))
        return self._model.step(tokens, cache, *given)


@pytest.fixture
def seven_places(monkeypatch):
    """Seven images are answered at the same time, of which three are read together, as a GPU does with more."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    monkeypatch.setattr(images, "default_batch_size", lambda *given: 3)
    monkeypatch.setattr(images, "default_places", lambda *given: 7)


def test_forty_images_are_read_three_at_a_time_and_answered_seven_at_a_time(album, loaded, monkeypatch, seven_places):
    request = CaptionRequest(max_tokens=6, temperature=1.5, seed=2, token_ids=True)
    named = ["album/b.jpg", "album", *["album/sub/c.png", "album/a[[]red].png", "album/b.jpg"] * 12]

    def answers(**more):
        model = Counting(loaded.model)
        found = list(run(sources(*named), request, lambda: replace(loaded, model=model), model="tiny", **more))
        return model, [(outcome.record.source, outcome.record.token_ids) for outcome in found]

    one, alone = answers(batch_size=1)
    ends = {alone[0][1][1], alone[3][1][4]}
    monkeypatch.setattr(loaded.processor, "stop_ids", loaded.processor.stop_ids | ends)
    one, alone = answers(batch_size=1)
    assert len(alone) == 40 and len({len(ids) for _, ids in alone}) > 2
    model, found = answers()
    assert found == alone
    assert (max(model.read), model.read[0], max(model.steps)) == (3, 3, 7) and sum(model.read) == 40
    given, found = answers(batch_size=5)
    assert found == alone and (given.read[0], max(given.steps)) == (5, 5)


def test_memory_that_runs_out_behind_the_first_rows_is_said(album, loaded, seven_places):
    dying = replace(loaded, model=Counting(loaded.model, fails_at=2))
    with pytest.raises(ModelError, match="Memory ran out on 3 pictures at once"):
        list(run(sources(*["album"] * 4), REQUEST, lambda: dying, model="tiny"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("free, places", [(1 << 50, 32), (1, 16)])
def test_a_gpu_with_room_answers_more_than_it_reads_together(album, tiny, monkeypatch, free, places):
    monkeypatch.setattr(scheduler, "free_memory", lambda device: free)
    loaded, read, steps = load(resolve(str(tiny)), "cuda", "float32"), [], []
    prefill, step = cuda_graph.prefill, cuda_graph.step
    monkeypatch.setattr(
        cuda_graph, "prefill", lambda m, rows, c: (read.append(len(rows.tokens)), prefill(m, rows, c))[1]
    )
    monkeypatch.setattr(cuda_graph, "step", lambda m, tokens, c: (steps.append(len(tokens)), step(m, tokens, c))[1])

    def most(count, **more):
        """Rows that are read together, and those of a step."""
        read.clear(), steps.clear()
        outcomes = list(run(sources(*["album/b.jpg"] * count), REQUEST, lambda: loaded, model="tiny", **more))
        assert [outcome.error for outcome in outcomes] == [None] * count
        assert len({outcome.record.text for outcome in outcomes}) == 1
        return max(read), max(steps)

    assert most(15) == (15, 15)
    assert most(16) == (16, 16)
    assert most(80) == (16, places)
    assert most(40, batch_size=20) == (20, 20)


def test_answers_of_unlike_length_come_in_the_order_of_the_sources(album, loaded, monkeypatch, path):
    request = CaptionRequest(max_tokens=6, temperature=1.5, seed=2, token_ids=True)
    mixed = [*sources("album", "album"), broken(), *sources("album")]

    def answers(size):
        records = [outcome.record for outcome in run(mixed, request, lambda: loaded, model="tiny", batch_size=size)]
        assert [record.source for record in records] == [source.name for source in mixed]
        return [record.token_ids for record in records]

    ends = {ids[1] for ids in answers(1)[:2]} | {answers(1)[2][4]}
    monkeypatch.setattr(loaded.processor, "stop_ids", loaded.processor.stop_ids | ends)
    alone = answers(1)
    assert len({len(ids or ()) for ids in alone}) > 2
    assert answers(2) == answers(4) == alone


def test_no_model_is_loaded_where_no_input_can_be_read():
    def load():
        raise AssertionError("loaded in vain")

    [outcome] = run([broken()], REQUEST, load, model="tiny")
    assert outcome.record.error == "broken.png is broken."


def test_a_model_without_locations_is_refused_before_anything_is_asked(album, loaded):
    wordy = replace(loaded, processor=copy(loaded.processor))
    wordy.processor.capabilities = Capabilities(images=True)
    with pytest.raises(ModelError, match="wordy cannot detect: its vocabulary has no location tokens"):
        list(run(sources("album"), DetectRequest(words="cat"), lambda: wordy, model="wordy"))


def test_an_error_that_nobody_foresaw_is_one_failed_input(album, loaded, path):
    class Strange(Source):
        def head(self, size=4096):
            raise ZeroDivisionError("strange")

    mixed = [Strange("strange.png", None, None, PurePosixPath("strange.png")), *sources("album/b.jpg")]
    strange, fine = run(mixed, REQUEST, lambda: loaded, model="tiny")
    assert "strange.png cannot be read (ZeroDivisionError: strange)" in strange.record.error
    assert fine.error is None


def interrupted(*arguments, **options):
    """As Ctrl-C comes out of a library that was about to tidy up."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise RuntimeError("cannot release un-acquired lock")  # noqa: B904 (it has a context, no cause)


@pytest.mark.parametrize(
    "place",
    ["mmcli.media.image._decode", "mmcli.media.image.load_image", "mmcli.batch.image_reader.ImageReader.take"],
)
def test_an_interruption_is_no_failed_input_whatever_a_library_made_of_it(monkeypatch, album, loaded, place, path):
    monkeypatch.setattr(place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run(sources("album"), REQUEST, lambda: loaded, model="tiny"))


def test_an_interruption_while_a_batch_runs_is_raised_as_itself(monkeypatch, album, loaded, path):
    monkeypatch.setattr("mmcli.engine.collect.complete", interrupted)
    monkeypatch.setattr("mmcli.engine.scheduler.write_continuously", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run(sources("album"), REQUEST, lambda: loaded, model="tiny"))


def test_a_model_that_fails_midway_leaves_the_done_records(album, loaded, path):
    class Dying:
        """The tiny model, which finds no memory for a black picture. (Of two batches side by side either may begin
        first.)"""

        def __getattr__(self, name):
            return getattr(loaded.model, name)

        def prefill(self, inputs, cache):
            [image] = inputs.images
            if image.std() == 0:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
            return loaded.model.prefill(inputs, cache)

    Image.new("RGB", (40, 30)).save("black.png")
    dying = replace(loaded, model=Dying())
    outcomes = run(sources("album/b.jpg", "black.png"), REQUEST, lambda: dying, model="tiny", batch_size=1)
    assert next(outcomes).error is None
    with pytest.raises(ModelError, match="Memory ran out on one picture"):
        next(outcomes)


def test_timings_tell_seconds_and_tokens(album, loaded, path):
    outcomes = run(sources("album"), REQUEST, lambda: loaded, model="tiny", batch_size=3)
    timings = next(outcomes).record.timings
    assert list(timings) == ["load", "prefill", "decode", "batch", "tokens"]
    assert timings["batch"] == 3 and timings["tokens"] <= 6
    assert all(timings[key] > 0 for key in ("load", "prefill", "decode"))


def test_images_are_kept_in_full_size_only_on_request(tmp_path, loaded):
    path = tmp_path / "large.jpg"
    support.random_image(0, 4000, 3000).save(path)

    def outcome(keep):
        return next(run(sources(str(path)), REQUEST, lambda: loaded, model="tiny", keep_images=keep))

    assert outcome(False).full is None
    assert outcome(True).full().image.size == (4000, 3000)
    assert outcome(True).record.text == outcome(False).record.text


def test_an_image_too_large_to_be_kept_is_read_again(tmp_path, loaded, monkeypatch):
    """Large images that wait to be drawn on would fill the memory."""
    path = tmp_path / "large.png"
    support.random_image(0, 2000, 1900).save(path)
    for module in (image_reader, image):
        monkeypatch.setattr(module, "HELD_PIXELS", 1000)
    done = next(run(sources(str(path)), REQUEST, lambda: loaded, model="tiny", keep_images=True))
    support.random_image(1, 20, 30).save(path)  # seen only if it is read now
    assert done.full().image.size == (20, 30)


def test_images_do_not_pile_up(album, loaded, monkeypatch, path):
    """Two hundred images; alive at a time are those of batches that run or wait, prefetched ones, few on their way."""
    alive = weakref.WeakSet()
    read = images.ImageReader.read

    def watched(reader, source):
        result = read(reader, source)
        alive.add(result.image.image)
        return result

    monkeypatch.setattr(images.ImageReader, "read", watched)
    most = 0
    for _ in run(sources(*["album/b.jpg"] * 200), CaptionRequest(max_tokens=1), lambda: loaded, model="tiny"):
        most = max(most, len(alive))
    gc.collect()
    assert most <= ON_CPU + ON_CPU + images.PREFETCHED + 3
    assert len(alive) <= 1
