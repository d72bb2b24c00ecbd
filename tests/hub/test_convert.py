"""`mmcli models convert`: pickles into safetensors, all of the folder or none; and what is said of pickles."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from command import mmcli
from pickles import Calls, old, saved, write_shards
from safetensors.torch import load_file
from support import SIDE, random_image, tiny_config, tiny_reference, write_checkpoint

from mmcli.hub import convert as conversion
from mmcli.hub.fingerprint import weights_of
from mmcli.hub.layout import BUNDLED
from mmcli.hub.pickle_files import PickleTensors
from mmcli.hub.resolve import Checkpoint
from mmcli.hub.safetensors_files import TensorInfo, read_header
from mmcli.hub.verify import verify_folder

TENSORS = {
    "a.weight": torch.arange(60.0).view(6, 10), "b": torch.ones(3, dtype=torch.bfloat16),
    "c": torch.arange(5, dtype=torch.uint8), "d": torch.tensor(3, dtype=torch.int64), "e": torch.zeros(0, 4),
}  # fmt: skip
TENSORS["tied"], TENSORS["turned"] = TENSORS["a.weight"], TENSORS["a.weight"].T


@pytest.fixture
def pickled(tmp_path) -> Path:
    """A folder of a model with its weights in one pickle."""
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "paligemma"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("do as you like")
    (folder / "modeling.py").write_text("raise SystemExit")
    (folder / "training_args.bin").write_bytes(b"x")
    (folder / "pytorch_model.bin").write_bytes(saved(TENSORS))
    return folder


def assert_whole(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    found = {}
    for path in folder.glob("*.safetensors"):
        read_header(path)
        found |= load_file(path)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], one) and found[name].dtype == one.dtype for name, one in wanted.items())
    assert [finding for finding in verify_folder(folder) if finding.problem] == []


@pytest.mark.parametrize("write", [saved, old, "shards"], ids=["zip", "old", "shards"])
def test_every_tensor_and_what_belongs_to_them(pickled, tmp_path, write):
    if write == "shards":
        (pickled / "pytorch_model.bin").unlink()
        items = list(TENSORS.items())
        write_shards(pickled, [dict(items[:3]), dict(items[3:])])
    else:
        (pickled / "pytorch_model.bin").write_bytes(write(TENSORS))
    done = mmcli("models", "convert", pickled, "-o", tmp_path / "new" / "folder")
    assert (done.code, done.out, done.err) == (0, f"{tmp_path / 'new' / 'folder'}\n", "")
    written = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert written == ["LICENSE", "config.json", "model.safetensors", "tokenizer.json"]
    assert_whole(tmp_path / "new" / "folder", TENSORS)


def test_large_models_are_parted_and_listed(pickled, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "SHARD", 300)
    assert mmcli("models", "convert", pickled, "-o", tmp_path / "new").code == 0
    index = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(one.nbytes for one in TENSORS.values())
    assert set(index["weight_map"]) == set(TENSORS) and len(set(index["weight_map"].values())) == 3
    assert all((tmp_path / "new" / name).is_file() for name in index["weight_map"].values())
    assert_whole(tmp_path / "new", TENSORS)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """A small PaliGemma as transformers saved it, its weights as a pickle, and beside it an image."""
    folder = tmp_path_factory.mktemp("reference")
    write_checkpoint(folder, tiny_reference(tiny_config(False)))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "kept")
    random_image(1, SIDE, SIDE).save(folder / "image.png")
    return folder


def test_a_model_answers_alike_from_its_pickle_and_from_what_is_made_of_it(reference, tmp_path):
    def answer(folder):
        done = mmcli("caption", reference / "image.png", "--model", folder, "--json", "--token-ids", "--max-tokens", 8)
        assert done.code == 0, done.err
        return done.records[0]["token_ids"], done.err

    ids, said = answer(reference)
    assert said.count("models convert") == 1 and f"mmcli models convert {reference} -o FOLDER" in said
    assert mmcli("models", "convert", reference, "-o", tmp_path / "new").code == 0
    again, said = answer(tmp_path / "new")
    assert again == ids and "convert" not in said
    plain = shutil.copytree(reference, tmp_path / "plain")
    (plain / "kept").rename(plain / "model.safetensors")
    assert answer(plain)[0] == ids
    facts = json.loads(mmcli("models", "info", reference, "--json").out)
    assert facts["parameters"] == json.loads(mmcli("models", "info", plain, "--json").out)["parameters"] > 1000
    assert any("pickles" in note for note in json.loads(mmcli("inspect", reference, "--json").out)["notes"])


def test_a_changed_pickle_is_another_model(reference, tmp_path):
    """By which a record is known to answer no more."""
    same, changed = (shutil.copytree(reference, tmp_path / name) for name in ("same", "changed"))
    tensors = torch.load(changed / "pytorch_model.bin", weights_only=True)
    next(iter(tensors.values())).view(-1)[-1] += 1
    torch.save(tensors, changed / "pytorch_model.bin")
    hashes = [weights_of(Checkpoint("m", folder, None, {})) for folder in (reference, same, changed)]
    assert hashes[0] == hashes[1] != hashes[2]


# -- mistakes ----------------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, source: object, target: Path | None = None) -> tuple[int, str]:
    """The exit code and the sentence; nothing may be left behind."""
    target = target or tmp_path / "new"
    before = sorted(target.parent.iterdir()) if target.parent.is_dir() else []
    done = mmcli("models", "convert", source, "-o", target)
    assert done.out == "" and done.err.count("\n") == 1
    assert (sorted(target.parent.iterdir()) if target.parent.is_dir() else []) == before
    return done.code, done.err


def test_what_exists_is_not_written_over(pickled, tmp_path):
    (tmp_path / "new").mkdir()
    assert "exists already" in refused(tmp_path, pickled)[1]
    (tmp_path / "file").write_text("mine")
    code, said = refused(tmp_path, pickled, tmp_path / "file")
    assert code == 2 and "exists already" in said and (tmp_path / "file").read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert refused(tmp_path, pickled, tmp_path / "link")[0] == 2


def test_there_is_nothing_to_convert(tmp_path):
    code, said = refused(tmp_path, "nano")
    assert code == 2 and "nano has safetensors weights already" in said
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    code, said = refused(tmp_path, tmp_path / "empty")
    assert code == 3 and "holds no weights" in said
    assert refused(tmp_path, tmp_path / "absent")[0] == 3


def test_code_is_named_as_a_danger_and_damage_as_damage(pickled, tmp_path):
    ran = tmp_path / "ran"
    weights = pickled / "pytorch_model.bin"
    for data, message in (
        (saved(TENSORS | {"x": Calls(os.system, f"touch {ran}")}), "holds code: it names 'posix.system'"),
        (b"no pickle", "damaged"),
        (saved(TENSORS)[:700], "damaged: it is cut off"),
    ):
        weights.write_bytes(data)
        code, said = refused(tmp_path, pickled)
        assert code == 3 and message in said
    assert not ran.exists()


def test_shards_that_do_not_fit_their_index(pickled, tmp_path):
    (pickled / "pytorch_model.bin").unlink()
    write_shards(pickled, [TENSORS, {"b": torch.ones(2)}])
    assert "holds b twice, in two files" in refused(tmp_path, pickled)[1]
    write_shards(pickled, [TENSORS, {"z": torch.ones(2)}], y="pytorch_model-00001-of-00002.bin")
    assert "lists y in pytorch_model.bin.index.json, but no file holds it" in refused(tmp_path, pickled)[1]
    (pickled / "pytorch_model-00002-of-00002.bin").unlink()
    assert "lacks 1 of 2 weight files" in refused(tmp_path, pickled)[1]


def test_a_disk_without_room(pickled, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: free._replace(free=100))
        code, said = refused(tmp_path, pickled)
    assert code == 4 and "only 0.0 GB free" in said
    if not Path("/dev/full").exists():
        return

    def full(path, tensors):
        with open("/dev/full", "wb") as file:
            file.write(b"x" * 99)

    monkeypatch.setattr(conversion, "_write", full)
    code, said = refused(tmp_path, pickled)
    assert code == 4 and "the disk is full" in said


def test_a_place_that_cannot_be(pickled, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = mmcli("models", "convert", pickled, "-o", tmp_path / "file" / "below")
    assert done.code == 4 and "cannot be written" in done.err and done.err.count("\n") == 1


def test_somebody_else_may_be_faster(pickled, tmp_path, monkeypatch):
    write = conversion._write

    def slow(path, tensors):
        write(path, tensors)
        (tmp_path / "new").mkdir(exist_ok=True)

    monkeypatch.setattr(conversion, "_write", slow)
    done = mmcli("models", "convert", pickled, "-o", tmp_path / "new")
    assert done.code == 2 and "exists by now" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "pickled"] and not any(
        (tmp_path / "new").iterdir()
    )


def test_ctrl_c_leaves_nothing(pickled, tmp_path, monkeypatch):
    def interrupted(path, tensors):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "_write", interrupted)
    assert mmcli("models", "convert", pickled, "-o", tmp_path / "new").code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["pickled"]


def test_tensors_are_copied_from_the_file_in_small_parts(pickled, monkeypatch):
    """No tensor is ever in memory as a whole but those that do not lie in one piece."""
    monkeypatch.setattr(conversion, "BLOCK", 64)
    parts: list[bytes] = []
    with PickleTensors(pickled / "pytorch_model.bin") as file:
        table = file.get_tensor("a.weight")
        assert table.untyped_storage().data_ptr() == file.get_tensor("tied").untyped_storage().data_ptr()
        conversion._write_tensor(lambda part: parts.append(bytes(part)), file, "a.weight", TensorInfo("F32", (6, 10)))
    assert max(map(len, parts)) == 64 and b"".join(parts) == TENSORS["a.weight"].numpy().tobytes()


def test_bundled_models_are_no_pickles():
    assert all(not list(folder.glob("*.bin")) for folder in BUNDLED.values())
    assert mmcli("models", "convert", "nano").code == 2  # without -o
