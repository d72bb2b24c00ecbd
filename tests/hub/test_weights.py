"""Strict loading: every way in which a folder can fail to be the model its config.json describes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmcli.errors import ModelError
from mmcli.hub.quantized import parameter_count
from mmcli.hub.safetensors_files import read_header
from mmcli.hub.weight_files import weight_files
from mmcli.hub.weights import Mapped, Rule, kept_mapped, load_strict

CPU = torch.device("cpu")
RULES = [
    Rule("table.weight", "table.weight"),
    Rule("blocks.{}.proj.{}", "layers.{}.{}"),
    Rule("head.weight", None, copy_of="table.weight"),
    Rule("blocks.{}.unused", None),
]


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.register_buffer("ramp", torch.arange(3.0), persistent=False)

    def reset_buffers(self, device: torch.device) -> None:
        self.ramp = torch.arange(3.0, device=device)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {"table.weight": torch.randn(10, 4, generator=generator)}
    for layer in range(2):
        found[f"blocks.{layer}.proj.weight"] = torch.randn(4, 4, generator=generator)
        found[f"blocks.{layer}.proj.bias"] = torch.randn(4, generator=generator)
    return found


def build() -> Small:
    with torch.device("meta"):
        return Small()


def load(folder, dtype=torch.float32) -> Small:
    module = build()
    load_strict(module, folder, RULES, CPU, dtype)
    return module


def save(folder, content) -> None:
    save_file({name: value.contiguous() for name, value in content.items()}, folder / "model.safetensors")


def save_shards(folder) -> None:
    items = list(tensors().items())
    shards = {"model-1.safetensors": dict(items[:2]), "model-2.safetensors": dict(items[2:])}
    for name, content in shards.items():
        save_file(content, folder / name)
    index = {"weight_map": {tensor: shard for shard, content in shards.items() for tensor in content}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def assert_loaded(module: Small) -> None:
    for name, value in tensors().items():
        ours = name.replace("blocks", "layers").replace(".proj", "")
        assert torch.equal(module.state_dict()[ours], value)
    assert module.ramp.tolist() == [0, 1, 2]
    assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())


def test_one_file(tmp_path):
    save(tmp_path, tensors())
    assert_loaded(load(tmp_path))


def test_int8_rows_are_multiplied_by_their_scales(tmp_path):
    table = torch.arange(-20, 20, dtype=torch.int8).view(10, 4)
    scale = torch.linspace(0.5, 1.5, 10).half()
    save(tmp_path, tensors() | {"table.weight": table, "table.weight_scale": scale})
    assert torch.equal(load(tmp_path).table.weight, table * scale.float()[:, None])


def test_a_scale_of_nothing_is_named(tmp_path):
    save(tmp_path, tensors() | {"table.weight_scale": torch.ones(10)})  # the table is no int8
    with pytest.raises(ModelError, match="holds table.weight_scale"):
        load(tmp_path)


def test_shards(tmp_path):
    save_shards(tmp_path)
    assert_loaded(load(tmp_path))


class Table(Mapped, nn.Embedding):
    """Rows that stay in the file."""


def with_table(rows: int, width: int) -> Small:
    with torch.device("meta"):
        module = Small()
        module.big = Table(rows, width)
    return module


def test_what_a_module_keeps_mapped_keeps_its_type_and_stays_on_the_cpu(tmp_path):
    big = torch.randn(6, 3).half()
    save(tmp_path, tensors() | {"big.weight": big})
    table = [*RULES, Rule("big.weight", "big.weight")]
    module = with_table(6, 3)
    assert kept_mapped(module) == {"big.weight"}
    load_strict(module, tmp_path, table, CPU, torch.float32, kept_mapped(module))
    assert torch.equal(module.big.weight, big) and not module.big.weight.requires_grad
    assert_loaded(module)
    cast = with_table(6, 3)
    load_strict(cast, tmp_path, table, CPU, torch.float32)
    assert torch.equal(cast.big.weight, big.float())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux what memory is private")
def test_a_mapped_table_takes_no_memory_of_its_own(tmp_path):
    rows, width = 1 << 16, 512
    save(tmp_path, tensors() | {"big.weight": torch.ones(rows, width, dtype=torch.bfloat16)})
    module = with_table(rows, width)
    before = private_bytes()
    load_strict(module, tmp_path, [*RULES, Rule("big.weight", "big.weight")], CPU, torch.float32, kept_mapped(module))
    assert module.big(torch.arange(0, rows, 1000)).sum() == 66 * width
    assert private_bytes() - before < rows * width * 2 / 8


def private_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def test_stray_files_beside_the_weights_are_not_read(tmp_path):
    save(tmp_path, tensors())
    save_file({"other": torch.zeros(1)}, tmp_path / "mask_decoder.safetensors")
    assert_loaded(load(tmp_path))


def test_a_type_is_cast_once_and_whole_numbers_never(tmp_path):
    save(tmp_path, {name: value.half() for name, value in tensors().items()})
    assert {parameter.dtype for parameter in load(tmp_path).parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in load(tmp_path, torch.bfloat16).parameters()} == {torch.bfloat16}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_weights_stay_mapped_to_the_file_where_no_cast_is_needed(tmp_path):
    save(tmp_path, tensors())
    module = load(tmp_path)
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    assert module.table.weight.untyped_storage().nbytes() == 160
    del module


def test_declared_tensors_are_dropped(tmp_path):
    save(tmp_path, tensors() | {"blocks.0.unused": torch.zeros(7), "head.weight": tensors()["table.weight"].clone()})
    assert_loaded(load(tmp_path))


def without(name):
    return lambda content: {key: value for key, value in content.items() if key != name}


def plus(**more):
    return lambda content: content | {key.replace("__", "."): value for key, value in more.items()}


@pytest.mark.parametrize(
    "change, message",
    [
        (without("blocks.1.proj.bias"), r"lacks the weights of layers\.1\.bias"),
        (plus(extra__weight=torch.zeros(2)), r"holds extra\.weight, for which its config\.json leaves no place"),
        (plus(blocks__7__proj__weight=torch.zeros(4, 4)), r"holds blocks\.7\.proj\.weight"),  # more layers than said
        (plus(table__weight=torch.zeros(10, 5)), r"table\.weight has the shape \[10, 5\], .* needs \[10, 4\]"),
        (plus(head__weight=torch.zeros(9, 4)), r"head\.weight has the shape \[9, 4\]"),
        (plus(head__weight=torch.zeros(10, 4)), r"head\.weight .* differs from table\.weight"),  # an untied head
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
    save(tmp_path, change(tensors()))
    with pytest.raises(ModelError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("row", range(10))
def test_a_head_that_differs_in_one_row_of_a_small_table_is_no_copy(tmp_path, row):
    head = tensors()["table.weight"].clone()
    head[row, 2] += 1
    save(tmp_path, tensors() | {"head.weight": head})
    with pytest.raises(ModelError, match=r"head\.weight .* differs from table\.weight"):
        load(tmp_path)


@pytest.mark.parametrize("first", [0, 7, 311, 630])
def test_a_head_that_differs_in_a_sixty_fourth_of_a_large_table_is_no_copy(tmp_path, first):
    """Which rows are compared does not matter, as long as they are spread over the whole table."""
    table = torch.randn(640, 4)
    head = table.clone()
    head[first : first + 10] += 1
    save(tmp_path, tensors() | {"table.weight": table, "head.weight": head})
    with torch.device("meta"):
        module = Small()
        module.table = nn.Embedding(640, 4)
    with pytest.raises(ModelError, match=r"head\.weight .* differs from table\.weight"):
        load_strict(module, tmp_path, RULES, CPU, torch.float32)


def test_two_tensors_for_one_place_are_named(tmp_path):
    save(tmp_path, tensors() | {"again.weight": tensors()["table.weight"].clone()})
    with pytest.raises(ModelError, match="table.weight twice"):
        load_strict(build(), tmp_path, [*RULES, Rule("again.weight", "table.weight")], CPU, torch.float32)


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def lengthen(count):
    def damage(folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes() + bytes(count))

    return damage


def truncate_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:40])


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def only_index(content):
    def damage(folder):
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        (folder / "model.safetensors.index.json").write_bytes(content)

    return damage


def only_pickle(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def drop_shard(folder):
    shards(folder)
    (folder / "model-2.safetensors").unlink()


def shards(folder):
    (folder / "model.safetensors").unlink()
    save_shards(folder)


def index_with(value):
    def damage(folder):
        shards(folder)
        path = folder / "model.safetensors.index.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({"weight_map": content["weight_map"] | {"table.weight": value}}))

    return damage


def index_lists_what_no_shard_has(folder):
    shards(folder)
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())["weight_map"]
    path.write_text(json.dumps({"weight_map": content | {"ghost.weight": "model-1.safetensors"}}))


def bad_offsets(folder):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": "here"}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def wrong_size(folder):
    """Offsets that fill the file exactly, but not the shape: the library itself must find it."""
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"shape":[10,4]', b'"shape":[4,10]').replace(b"[4,4]", b"[4,3]"))


DAMAGES = [
    (truncate, "damaged: it has .* bytes where its header promises"),  # a broken-off download
    (truncate_header, "damaged: it is cut off"),
    (lengthen(1), "damaged: it has .* bytes where its header promises"),  # another file behind it
    (lengthen(4096), "damaged: it has .* bytes where its header promises"),
    (write("model.safetensors", b""), "damaged: it is cut off"),
    (write("model.safetensors", b"\x02\0\0\0\0\0\0\0[]"), "damaged"),  # JSON, but no object
    (
        write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid"),
        "Git LFS pointer.*git lfs pull",
    ),  # cloned without LFS
    (bad_offsets, "damaged"),
    (wrong_size, "shape|damaged"),
    (only_pickle, "is a pickle, but not one of PyTorch's weights"),
    (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    (drop_shard, r"lacks 1 of 2 weight files: model-2\.safetensors"),
    (only_index(b"{"), "index.json"),
    (only_index(b"[]"), "index.json"),
    (index_with("../../etc/passwd.safetensors"), "does not list safetensors files beside it"),
    (index_with("pytorch_model.bin"), "does not list safetensors files beside it"),
    (index_with(3), "does not list safetensors files beside it"),
    (index_lists_what_no_shard_has, r"lists ghost\.weight"),
]


@pytest.mark.parametrize("damage, message", DAMAGES, ids=[getattr(d, "__name__", "?") for d, _ in DAMAGES])
def test_damaged_folders_are_model_errors(tmp_path, damage, message):
    save(tmp_path, tensors())
    damage(tmp_path)
    with pytest.raises(ModelError, match=message):
        load(tmp_path)


def test_sizes_are_known_from_headers_alone(tmp_path):
    save_shards(tmp_path)
    count = sum(value.numel() for value in tensors().values())
    assert parameter_count(tmp_path) == count
    assert [path.name for path in weight_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]
    assert read_header(tmp_path / "model-1.safetensors")["table.weight"].shape == (10, 4)


def test_loading_leaves_the_files_alone(tmp_path):
    save(tmp_path, tensors())
    shutil.copytree(tmp_path, tmp_path / "before")
    module = load(tmp_path)
    with torch.no_grad():
        module.table.weight.zero_()  # mapped privately: writing to memory does not write to the file
    assert torch.equal(load_file(tmp_path / "model.safetensors")["table.weight"], tensors()["table.weight"])


LIES = {
    "overlapping": ({"a": ["F32", [2], [0, 8]], "b": ["F32", [2], [4, 12]]}, "overlap"),
    "a hole": ({"a": ["F32", [1], [0, 4]], "b": ["F32", [1], [8, 12]]}, "overlap, or there is something between"),
    "beyond the file": ({"a": ["F32", [4], [0, 16]]}, "12 bytes|promises"),
    "longer than its header says": ({"a": ["F32", [1], [0, 4]]}, "promises"),
    "a shape that overflows": ({"a": ["F32", [1 << 61, 1 << 61], [0, 12]]}, "does not take 12 bytes"),
    "a negative side": ({"a": ["F32", [-3], [0, 12]]}, "which is none"),
    "an unknown type": ({"a": ["F7", [3], [0, 12]]}, "of the type 'F7'"),
    "a type that is a list": ({"a": [["F32"], [3], [0, 12]]}, "of the type"),
    "offsets that are texts": ({"a": ["F32", [3], ["0", "12"]]}, "data_offsets"),
    "too many": ({f"t{i}": ["F32", [0], [0, 0]] for i in range(20_001)}, "20001 tensors"),
}


@pytest.mark.parametrize(("entries", "words"), LIES.values(), ids=LIES)
def test_headers_that_lie_are_found_before_anything_is_read(tmp_path, entries, words):
    keys = ("dtype", "shape", "data_offsets")
    header = json.dumps({name: dict(zip(keys, entry, strict=True)) for name, entry in entries.items()}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(ModelError, match=words) as error:
        read_header(path)
    assert str(path) in str(error.value)


def test_a_header_of_nine_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((9 << 30).to_bytes(8, "little"))
        file.truncate(10 << 30)  # it takes no place on the disk
    with pytest.raises(ModelError, match="its header of 9664 MB is larger"):
        read_header(path)


def test_a_tensor_named_twice_is_damage(tmp_path):
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    header = f"{{{entry}, {entry}}}".encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ModelError, match="'a' twice"):
        read_header(path)


def test_whole_numbers_in_the_place_of_weights_are_refused(tmp_path):
    save(tmp_path, tensors() | {"table.weight": torch.zeros(10, 4, dtype=torch.int64)})
    with pytest.raises(ModelError, match="table.weight is of the type I64"):
        load(tmp_path)
