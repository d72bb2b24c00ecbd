"""What is sent to workers and comes back is what would have come of it here."""

import io
import shutil
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from fragile import CHOICE, Fragile

from mmcli.batch.images import run
from mmcli.batch.outcome import Outcome
from mmcli.batch.work import Desk, ImageWork, Worker, in_order
from mmcli.errors import InputError, MachineError, ModelError, UsageError
from mmcli.media.sources import IMAGE_EXTENSIONS, Source, expand
from mmcli.models.load import load
from mmcli.output.schema import Record
from mmcli.tasks.caption import CaptionRequest
from mmcli.tasks.segment import SegmentRequest

EXAMPLES = Path(__file__).parents[2] / "examples"


def sources(*names):
    return list(expand(names, extensions=IMAGE_EXTENSIONS))


def without_times(outcome):
    return replace(outcome.record, timings={})


def test_answers_are_those_of_a_run_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cat.jpg", "astronaut.jpg"):
        shutil.copy(EXAMPLES / name, tmp_path)
    (tmp_path / "z.png").write_bytes(b"no picture")
    found = sources(".", "no such.png", "cat.jpg", "no*.gif")
    work = ImageWork(CHOICE, SegmentRequest(words="cat ; person"), 2)
    model = load(CHOICE.checkpoint(), "cpu")
    here = list(run(found, work.request, lambda: model, model=CHOICE.model, batch_size=2))
    assert any(o.mask for outcome in here for o in outcome.record.objects) and any(outcome.error for outcome in here)
    desk = Desk(work)
    answers = Worker(work).answers([desk.give(source)[1] for source in found])
    monkeypatch.chdir("/")
    there = [desk.take(text) for text in answers]
    assert [without_times(one) for _, one in there] == [without_times(one) for one in here]
    assert [one.source for _, one in there] == found and desk.out == []
    assert [str(one.error) for _, one in there] == [str(one.error) for one in here]


def test_names_that_are_no_text_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = b"caf\xe9 \xe2\x82\xac.txt".decode("utf-8", "surrogateescape")
    (tmp_path / name).write_text("here")
    desk = Desk(Fragile(CHOICE))
    [text] = Worker(Fragile(CHOICE)).answers([desk.give(Source(name, tmp_path / name, None, PurePosixPath(name)))[1]])
    assert text.isascii()
    _, outcome = desk.take(text)
    assert (outcome.record.source, outcome.record.text) == (name, "here")


def test_an_answer_counts_once(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    desk = Desk(Fragile(CHOICE))
    desk.give(Source("a.txt", tmp_path / "a.txt", None, PurePosixPath("a.txt")))
    [text] = Worker(Fragile(CHOICE)).answers([desk.again(0)])
    assert desk.take(text) is not None and desk.take(text) is None


def test_standard_input_stays_here():
    with pytest.raises(UsageError, match="Standard input"):
        Desk(Fragile(CHOICE)).give(Source("-", None, None, PurePosixPath("stdin"), stream=io.BytesIO()))


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"choice": replace(CHOICE, place="/no/model")}, ModelError, "There is no folder /no/model"),
        ({"choice": replace(CHOICE, weights="others")}, ModelError, "has other weights on"),
        ({"choice": replace(CHOICE, version="0.0.1")}, UsageError, "and not 0.0.1"),
        ({"request": None}, MachineError, "A worker met an unexpected error: AttributeError"),
    ],
)
def test_what_ends_a_worker_ends_the_run_with_the_same_error(album, change, kind, said):
    work = replace(ImageWork(CHOICE, CaptionRequest()), **change)
    desk = Desk(work)
    *_, last = Worker(work).answers([desk.give(sources("album/b.jpg")[0])[1]])
    with pytest.raises(kind, match=said) as caught:
        desk.take(last)
    assert "Traceback" in str(caught.value.__cause__)


@pytest.mark.parametrize(("apart", "said"), [(True, "a.txt is not there on a worker's machine"), (False, "not exist")])
def test_a_file_that_only_this_machine_has_is_told_from_a_wrong_name(tmp_path, apart, said):
    path = tmp_path / "a.txt"
    desk = Desk(Fragile(CHOICE), apart=apart)
    [text] = Worker(Fragile(CHOICE)).answers([desk.give(Source("a.txt", path, None, PurePosixPath("a.txt")))[1]])
    path.write_text("only here")
    _, outcome = desk.take(text)
    assert said in outcome.record.error and str(outcome.error) == outcome.record.error


def test_outcomes_wait_for_those_before_them():
    def outcome(number):
        return Outcome(None, Record(task="caption", source=str(number), model="none"), InputError("no"))

    waiting = in_order((number, outcome(number)) for number in (2, 0, 3, 1, 4))
    assert [one.record.source for one in waiting] == ["0", "1", "2", "3", "4"]
