"""Clips are transcribed in their places and languages, and errors are counted in words as people write them."""

import json
import pickle
from zipfile import ZipFile

import pytest
import torch
from audio_files import wav_bytes
from spoken import example
from whisper_folders import write_checkpoint

from mmcli.media.audio import RATE
from mmcli.training.recipes.whisper import sides
from mmcli.training.recipes.whisper.clips import Clip, read_clips
from mmcli.training.recipes.whisper.evaluate import Compared, digits_apart, groups, read_texts, report, write_texts
from mmcli.training.recipes.whisper.sides import Side, transcribed

SPOKEN = ((0.2, 2.4, "fr"), (3.2, 4.6, None), (8.0, 11.0, "en"))  # start and end in the example, and in which language


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of clips of the example, one of which is said to be in French."""
    folder = tmp_path_factory.mktemp("clips")
    with ZipFile(folder / "clips.zip", "w") as archive, (folder / "manifest.jsonl").open("w") as manifest:
        for number, (start, end, language) in enumerate(SPOKEN):
            archive.writestr(f"{number}.wav", wav_bytes(example()[int(start * RATE) : int(end * RATE)], RATE))
            line = {"file": f"{number}.wav", "text": str(number), "source": "example", "language": language}
            manifest.write(json.dumps({key: value for key, value in line.items() if value}) + "\n")
    return folder


def test_each_clip_has_its_text_and_language_in_its_place(data, tmp_path):
    write_checkpoint(tmp_path, seconds=30)
    clips, threads = read_clips(data), torch.get_num_threads()
    try:
        found = transcribed(Side(str(tmp_path), batch=2), clips)
        sides._begin(pickle.loads(pickle.dumps(Side(str(tmp_path), batch=2))))  # as a process of the pool does
        assert sides._run([clips[2]]) == [found[2]], "whatever shares its batch"
    finally:
        torch.set_num_threads(threads)
    assert [language for _, language in found] == ["fr", "en", "en"]
    assert len({text for text, _ in found}) == 3


def test_batches_hold_one_language_each_unless_that_is_found_out():
    clips = [Clip(str(n), "", "", b"", language) for n, language in enumerate(("fr", "en", "fr", "en", "en"))]
    assert sides._batches(Side("", batch=2), clips) == [[1, 3], [4], [0, 2]]
    assert sides._batches(Side("", batch=2, detect=True), clips) == [[0, 1], [2, 3], [4]]


def test_clips_are_read_from_a_folder_as_from_an_archive(data, tmp_path):
    archived = read_clips(data)
    with ZipFile(data / "clips.zip") as archive:
        archive.extractall(tmp_path / "clips")
    (tmp_path / "manifest.jsonl").write_text((data / "manifest.jsonl").read_text())
    assert read_clips(tmp_path) == archived
    assert [clip.language for clip in archived] == ["fr", "en", "en"], "English where nothing is said"
    some = read_clips(tmp_path, 2, seed=1)
    assert len(some) == 2 and some == [clip for clip in archived if clip in some]
    (tmp_path / "clips" / "2.wav").unlink()
    with pytest.raises(SystemExit, match=r"2\.wav"):
        read_clips(tmp_path)


def compared(wanted, *texts, language="en", source="a", found=None):
    return Compared("f", source, language, wanted, texts, tuple(found or language for _ in texts))


CLIPS = [
    compared("seven four", "7 4"),
    compared("the colour of it", "The color of it!", source="b"),
    compared("le chat noir", "le chat rouge", language="fr", source="b", found="it"),
    compared("今日は雨", "今日は晴", language="ja", source="b"),
]


def test_rates_are_those_of_whole_groups():
    pytest.importorskip("jiwer")
    pytest.importorskip("whisper_normalizer")
    lines = [line.rstrip() for line in report(CLIPS, ["mmcli"], True).splitlines()]
    rows = {line[:12].strip(): line[12:].split() for line in lines[1:]}
    assert list(rows) == ["a", "b", "language en", "language fr", "language ja", "all"]
    # The reference's numbers are joined by the normaliser: 74 against "7 4", which are two errors in one word.
    assert rows["a"] == ["1", "200.00", "50.00", "0.00", "100.00"]
    assert rows["language fr"][1] == "33.33" and rows["language fr"][4] == "0.00"
    assert rows["language ja"][1] == "25.00", "a letter is a word where there are no spaces"
    assert rows["b"][1] == f"{100 * 2 / 11:.2f}"


def test_languages_have_rows_only_where_there_are_several():
    assert [name for name, _ in groups(CLIPS[:2])] == ["a", "b", "all"]
    assert digits_apart("in 1984, 7 times") == "in 1 9 8 4, 7 times"


def test_what_was_transcribed_is_read_again(tmp_path):
    write_texts(tmp_path / "texts.jsonl", ["mmcli", "peer"], CLIPS)
    assert read_texts(tmp_path / "texts.jsonl") == (["mmcli", "peer"], CLIPS)
