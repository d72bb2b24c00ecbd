"""What adding a family takes: a folder and one line of the registry. A toy one goes through every command."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import support
import torch
import toy_family
from command import mmcli
from safetensors.torch import save_file

import mmcli as package
from mmcli.engine.collect import complete
from mmcli.engine.inputs import Inputs
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.models.registry import FAMILIES

ROOT = Path(__file__).parent.parent
CONFIG = {"model_type": "toy"}
DRAWN = ("--max-tokens", 200, "--temperature", 1, "--seed", 2)  # else random weights repeat themselves
SIZES = [(64, 40), (30, 90), (50, 50), (120, 20)]


@pytest.fixture(scope="module", autouse=True)
def toy(tmp_path_factory):
    """A checkpoint of the family, which is entered in the registry."""
    folder = tmp_path_factory.mktemp("toy")
    model = toy_family.Toy(CONFIG)
    torch.manual_seed(4)
    weights = {name: torch.randn_like(one) * 4 * one.shape[-1] ** -0.5 for name, one in model.named_parameters()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "toy", "toy_family:FAMILY")
        yield folder


@pytest.fixture
def photos(tmp_path):
    for number, size in enumerate(SIZES):
        support.random_image(number, *size).save(tmp_path / f"{number}.png")
    return tmp_path


def test_nothing_else_knows_of_it():
    """One folder, and the one line that the fixture adds: no file of the package names the family."""
    knowing = [path for path in (ROOT / "mmcli").rglob("*.py") if "toy" in path.read_text("utf-8").lower()]
    assert knowing == []
    code = [line for path in Path(toy_family.__file__).parent.glob("*.py") for line in path.read_text().splitlines()]
    assert len([line for line in code if line.strip()]) <= 60


def test_caption_and_detect(toy, photos):
    said = mmcli("caption", photos / "0.png", "--model", toy, "--max-tokens", 12)
    assert said.code == 0 and said.out.strip()
    [found] = mmcli("detect", "cat", photos / "0.png", "--model", toy, "--json", *DRAWN).records
    assert found["objects"], found["text"]
    for one in found["objects"]:
        x0, y0, x1, y1 = one["raw_box"]
        assert one["box"] == [x0 * 4.0, y0 * 2.5, x1 * 4.0, y1 * 2.5]  # its own order, in sixteenths
    refused = mmcli("segment", "cat", photos / "0.png", "--model", toy)
    assert refused.code == 3 and "outlines nothing" in refused.err
    refused = mmcli("detect", "cat", photos / "0.png", "--model", toy, "--loc-divisor", 1024)
    assert refused.code == 2 and "its own way" in refused.err


def test_a_folder_in_batches_of_any_size(toy, photos):
    def texts(size):
        done = mmcli("caption", photos, "--model", toy, "--json", "--batch-size", size, "--max-tokens", 40)
        assert done.code == 0, done.err
        return [record["text"] for record in done.records]

    assert texts(1) == texts(3) == texts(4) and len(set(texts(4))) > 1


def test_inspect_and_models_info(toy):
    facts = json.loads(mmcli("inspect", toy, "--json").out)
    assert facts["capabilities"]["tasks"] == ["caption", "detect", "chat"]
    assert facts["vocabulary"] == {"[00] … [15]": [27, 42]}
    text = mmcli("inspect", toy).out
    assert "[00] … [15]" in text and "vision · SiglipTower" in text
    assert [stage["name"] for stage in facts["stages"]] == ["vision", "decoder"] and "image_size" not in facts
    assert sum(stage["parameters"] for stage in facts["stages"]) == facts["parameters"]
    assert mmcli("models", "info", toy).code == 0


def test_the_python_api(toy, photos):
    model = package.load(toy)
    paths = [photos / f"{number}.png" for number in range(len(SIZES))]
    options = {"max_tokens": 40}
    texts = [record.text for record in model.caption(paths, **options)]
    assert texts == [model.caption(path, **options).text for path in paths]
    drawn = {"max_tokens": 200, "temperature": 1, "seed": 2}
    found = model.detect("cat", support.random_image(0, *SIZES[0]), **drawn)
    [same] = mmcli("detect", "cat", paths[0], "--model", toy, "--json", *DRAWN).records
    assert [one.raw_box for one in found.objects] == [tuple(one["raw_box"]) for one in same["objects"]]
    assert model.chat("what is it", paths[1], **options).text


def test_cached_equals_uncached_and_what_is_looked_at_matters(toy, photos):
    loaded = load(resolve(str(toy)), "cpu", "float32")
    images = [[support.random_image(number, *size)] for number, size in enumerate(SIZES)]
    inputs = loaded.processor.inputs(images, ["caption", "a", "what is it", "cat"])
    answers = complete(loaded.model, inputs, stop_ids=frozenset(), max_tokens=9)
    for row, answer in enumerate(answers):
        written, prompt = [], inputs.tokens[row][inputs.valid[row]].tolist()
        for _ in range(9):
            whole = torch.tensor([prompt + written])
            one = Inputs(whole, torch.ones_like(whole, dtype=torch.bool), inputs.images[row : row + 1])
            with torch.inference_mode():
                written.append(int(loaded.model.prefill(one, loaded.model.new_cache(1, whole.shape[1])).argmax()))
        assert list(answer.ids) == written
    assert all(one.ids != other.ids for one, other in pairwise(answers))


@torch.inference_mode()
def test_a_row_inserted_beside_larger_and_smaller_images_writes_what_it_writes_alone(toy):
    loaded = load(resolve(str(toy)), "cpu", "float32")
    model, processor = loaded.model, loaded.processor

    def begun(number, prompt):
        inputs = processor.inputs([[support.random_image(number, *SIZES[number])]], [prompt])
        cache = model.new_cache(1, 60)
        return cache, [int(model.prefill(inputs, cache).argmax())]

    def go_on(cache, *rows):
        for row, token in zip(rows, model.step(torch.tensor([row[-1] for row in rows]), cache).argmax(-1), strict=True):
            row.append(int(token))

    started = [(3, "a"), (0, "what is it"), (1, "where is it"), (2, "detect a longer prompt than that")]
    alone = [begun(*one) for one in started]
    for cache, row in alone:
        for _ in range(8):
            go_on(cache, row)
    first = started[:2]
    both = processor.inputs([[support.random_image(n, *SIZES[n])] for n, _ in first], [text for _, text in first])
    cache = model.new_cache(2, 60)
    rows = [[int(id)] for id in model.prefill(both, cache).argmax(-1)]
    for step, place, number in ((2, 0, 2), (5, 1, 3)):  # the first row gives way to a taller image, then the second
        while len(rows[place]) <= step:
            go_on(cache, *rows)
        assert rows[place] == alone[number - 2][1][: len(rows[place])]
        prefilled, rows[place] = begun(*started[number])
        cache.insert([place], prefilled)
    for _ in range(5):
        go_on(cache, *rows)
    for row, (_, expected) in zip(rows, alone[2:], strict=True):
        assert row == expected[: len(row)] and len(row) > 5
    assert len({tuple(row) for _, row in alone}) == 4
