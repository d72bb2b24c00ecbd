"""Images decoded in other processes: they are those that a thread reads, whatever becomes of the processes."""

import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from mmcli.batch import decoders, image_reader, images
from mmcli.batch.decoders import Decoders
from mmcli.batch.image_reader import ImageReader
from mmcli.errors import InputError
from mmcli.media.image import load_image
from mmcli.media.sources import IMAGE_EXTENSIONS, expand
from mmcli.tasks.caption import CaptionRequest

EXAMPLES = Path(__file__).parents[2] / "examples"


def begun(count):
    """So many processes that are all there."""
    made = Decoders(count)
    made.start()
    made._starting.join()
    assert made._ready and len(made._all) == count
    return made


@pytest.fixture(scope="module")
def two():
    made = begun(2)
    yield made
    made.close()
    assert not made._all


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Files good and bad: cut short, empty, of no kind, announcing too much, turned, with frames, one not there."""
    folder = tmp_path_factory.mktemp("mixed")
    whole = (EXAMPLES / "cat.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(whole)
    (folder / "2 [red].jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "3.png").write_bytes(b"")
    (folder / "4.png").write_bytes(b"no picture at all")
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    announced = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n" + announced + struct.pack(">I", 0) + b"IDAT")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (70, 40), "red").save(folder / "6.jpg", exif=turned)
    Image.new("RGB", (90, 60)).save(folder / "7.gif", save_all=True, append_images=[Image.new("RGB", (90, 60), "blue")])
    return [*expand([str(folder)], extensions=IMAGE_EXTENSIONS), *expand(["gone.png"], extensions=IMAGE_EXTENSIONS)]


def seen(load, source):
    """All that reading a source gives."""
    try:
        image = load(source)
    except InputError as error:
        return type(error), error.what, error.do
    return image.image.mode, image.image.size, image.image.tobytes(), image.width, image.height, image.notes


def test_each_file_is_read_as_by_a_thread(two, mixed):
    found = [seen(lambda one: two.load(one, 50), source) for source in mixed]
    assert found == [seen(lambda one: load_image(one, side=50), source) for source in mixed]
    assert sum(one[0] is InputError for one in found) == 5


def test_an_image_is_resized_as_the_model_would(two, mixed):
    square = (33, Image.Resampling.BICUBIC.value)
    found, own = two.load(mixed[0], 33, square), load_image(mixed[0], side=33)
    assert found.image.tobytes() == own.image.resize((33, 33), Image.Resampling.BICUBIC).tobytes()
    assert (found.width, found.height) == (own.width, own.height)


def test_what_takes_more_than_a_share_is_read_beside(mixed, monkeypatch):
    monkeypatch.setattr(decoders, "_MAIN", decoders._MAIN.replace("{processes}", "1 << 40"))
    made = begun(1)
    assert seen(lambda one: made.load(one, 50), mixed[0]) == seen(lambda one: load_image(one, side=50), mixed[0])
    made.close()


def test_a_process_that_dies_is_replaced_and_its_image_read(two, mixed):
    before = list(two._all)
    os.kill(before[0]._process.pid, signal.SIGKILL)
    for _ in range(3):
        assert two.load(mixed[0], 50).width == load_image(mixed[0]).width
    assert len(two._all) == 2 and before[0] not in two._all


def test_an_image_that_ends_every_process_is_a_failed_input(mixed, monkeypatch):
    crash = "import os, mmcli.batch.decoder_process as own; own._answer = lambda **given: os._exit(7); "
    monkeypatch.setattr(decoders, "_MAIN", decoders._MAIN.replace("main(", crash + "main("))
    made = begun(1)
    with pytest.raises(InputError, match=r"1\.jpg cannot be read: .* ended, the last with exit code 7"):
        made.load(mixed[0], 50)
    made.close()


def test_where_no_process_can_be_started_threads_read(mixed, monkeypatch):
    monkeypatch.setattr(decoders, "get_executable", lambda: "/there/is/no/python")
    made = Decoders(2)
    made.start()
    made._starting.join()
    assert made.load(mixed[0], 50).width == load_image(mixed[0]).width and not made._all
    made.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there Ctrl-C has groups of processes")
def test_ctrl_c_is_not_for_them(two, mixed):
    for one in two._all:
        os.kill(one._process.pid, signal.SIGINT)
    before = list(two._all)
    for _ in range(2):
        two.load(mixed[0], 50)
    assert two._all == before


def test_they_end_with_the_process_that_started_them_however_it_ends():
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path[:0] = [{here!r}]; from test_decoders import begun; made = begun(2); "
    code += "print('there', flush=True); sys.stdin.read()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert parent.stdout.readline() == b"there\n"
    parent.kill()
    parent.wait()
    assert parent.stderr.read() == b""  # it ends when the last process that could write to it has ended
    for pipe in (parent.stdin, parent.stdout, parent.stderr):
        pipe.close()


class Apart(ImageReader):
    """It decodes in other processes though there is no GPU."""

    def __init__(self, *given):
        super().__init__(*given)
        self.decode_apart()


@pytest.mark.parametrize("rows", [False, True], ids=["batches", "rows"])
def test_a_folder_is_answered_the_same(mixed, loaded, monkeypatch, rows):
    monkeypatch.setattr("mmcli.batch.lanes.allowed_cores", lambda: 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1 if rows else 2)
    request = CaptionRequest(max_tokens=4, token_ids=True)
    used = []

    def answers():
        found = [
            outcome.record for outcome in images.run(mixed * 3, request, lambda: loaded, model="tiny", batch_size=3)
        ]
        return [(one.source, one.token_ids, one.error, one.width, one.notes) for one in found]

    expected = answers()
    monkeypatch.setattr(image_reader, "FEW", 0)
    monkeypatch.setattr(images, "ImageReader", Apart)
    own = Decoders.load

    def load(self, *given):
        self._starting.join()
        used.append(given[2])
        return own(self, *given)

    monkeypatch.setattr(Decoders, "load", load)
    assert answers() == expected and used
    assert (set(used[-3:]) == {loaded.processor.square}) == rows
