"""Florence-2 against transformers: processor tensors, logits, and the tokens of the real command, in both layouts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import florence2_folders as folders
import pytest
import torch
from command import mmcli
from PIL import Image
from support import odd_images, random_image

from mmcli.engine.collect import complete
from mmcli.hub.resolve import resolve
from mmcli.models.florence2.model import Prompts
from mmcli.models.florence2.prompts import COMMANDS, TASKS
from mmcli.models.load import load
from mmcli.models.loaded import Loaded

STEPS = 16
# The second side gives windows that are filled up in every stage.
SEEDS = {1: 96, 2: 80}
PROMPTS = [token + ("the cat on the left" if task.takes_words else "") for token, task in TASKS.items()]


@dataclass(frozen=True)
class Pair:
    """A reference with its processor, and what mmcli loads from the folders they were saved to, one for each layout."""

    folder: Path
    reference: Any
    processor: Any
    ours: dict[str, Loaded]
    side: int
    known: dict[tuple, list[int]] = field(default_factory=dict)  # answers that were asked for before

    def tokens(self, image: Image.Image, prompt: str, beams: int) -> list[int]:
        """The reference's answer, without what its decoder begins with and the end."""
        asked = (image.tobytes(), image.size, prompt, beams, self.reference.generation_config.to_json_string())
        if asked not in self.known:
            inputs = self.processor(text=prompt, images=image, return_tensors="pt")
            output = self.reference.generate(**inputs, max_new_tokens=STEPS, num_beams=beams)[0, 1:].tolist()
            self.known[asked] = output[: output.index(folders.EOS)] if folders.EOS in output else output
        return self.known[asked]


@pytest.fixture(scope="module", params=SEEDS)
def pair(request, tmp_path_factory) -> Pair:
    torch.set_num_threads(1)
    folder, side = tmp_path_factory.mktemp("florence2"), SEEDS[request.param]
    reference = folders.tiny_reference(request.param)
    processor = folders.write_checkpoint(folder / "native", reference, side)
    folders.write_vendor_layout(folder / "vendor", reference, side)
    ours = {name: load(resolve(str(folder / name)), "cpu", torch.float32) for name in ("native", "vendor")}
    return Pair(folder, reference, processor, ours, side)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return odd_images(tmp_path_factory.mktemp("files"), width=190)


def answers(loaded: Loaded, images, prompts, beams: int = 3) -> list[tuple[int, ...]]:
    inputs = loaded.processor.inputs([[image] for image in images], prompts)
    stop = loaded.processor.stop_ids
    return [one.ids for one in complete(loaded.model, inputs, stop_ids=stop, max_tokens=STEPS, beams=beams)]


@pytest.mark.parametrize("layout", ["native", "vendor"])
def test_the_processor_equals_the_reference(pair, layout):
    for place, prompt in enumerate(PROMPTS):
        image = random_image(place, 20 + 13 * place, 190 - 11 * place)
        expected = pair.processor(text=prompt, images=image, return_tensors="pt")
        inputs = pair.ours[layout].processor.inputs([[image]], [prompt])
        soft = folders.soft_tokens(pair.side)
        assert expected["input_ids"][0].tolist() == [folders.IMAGE] * soft + inputs.context.tokens[0].tolist()
        assert torch.equal(inputs.images[0], expected["pixel_values"][0])


@pytest.mark.parametrize("layout", ["native", "vendor"])
def test_logits_equal_the_reference(pair, layout):
    image, written = random_image(5, 77, 41), [[folders.EOS, folders.BOS, 300, 417, 55]]
    expected = pair.processor(text="<OD>", images=image, return_tensors="pt")
    loaded = pair.ours[layout]
    with torch.inference_mode():
        wanted = pair.reference(**expected, decoder_input_ids=torch.tensor(written)).logits[0]
        inputs = loaded.processor.inputs([[image]], ["<OD>"])
        cache = loaded.model.new_cache(1, len(written[0]))
        found = [loaded.model.prefill(inputs, cache)]
        found += [loaded.model.step(torch.tensor([id]), cache) for id in written[0][1:]]
    torch.testing.assert_close(torch.cat(found), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("layout", ["native", "vendor"])
def test_every_task_prompt_is_answered_as_by_the_reference(pair, layout, beams):
    seen = set()
    prompts = PROMPTS if beams > 1 else PROMPTS[::3]
    for place, prompt in enumerate(prompts):
        image = random_image(place, 190 - 11 * place, 20 + 13 * place)
        [ids] = answers(pair.ours[layout], [image], [prompt], beams)
        assert list(ids) == pair.tokens(image, prompt, beams), prompt
        seen.add(ids)
    assert len(seen) > len(prompts) // 2  # answers depend on what is shown
    if beams > 1:
        assert {len(ids) < STEPS - 1 for ids in seen} == {True, False}  # some end, some are cut off


@pytest.mark.parametrize(
    "command, manner",
    [
        ("caption", ()),
        *(("caption", ("--detail", d)) for d in ("low", "medium", "high")),
        ("detect", ("--all",)),
        ("read", ()),
        ("read", ("--boxes",)),
    ],
    ids=str,
)
def test_the_commands_give_the_references_tokens(pair, files, command, manner):
    name = f"{command}:{manner[-1].lstrip('-')}" if manner else command
    options = ("--json", "--token-ids", "--max-tokens", STEPS, "--device", "cpu", "--dtype", "float32")
    paths = list(files.values()) if name == "caption" else [files["wide"]]
    for layout in pair.ours if name == "caption" else ["native"]:
        done = mmcli(command, *manner, *paths, "--model", pair.folder / layout, *options)
        assert done.code == 0, done.err
        for record, file in zip(done.records, paths, strict=True):
            with Image.open(file) as image:
                wanted = pair.tokens(flat(image), COMMANDS[name], 3)
            assert record["token_ids"] == wanted
            assert record["prompt"] == TASKS[COMMANDS[name]].sentence


def flat(image: Image.Image) -> Image.Image:
    """As mmcli reads it: transparent parts are white."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


@pytest.mark.parametrize("command", ["detect", "segment"])
def test_each_thing_is_asked_for_alone(pair, files, command):
    things, file = ["cat", "the red ball on the mat"], files["wide"]
    done = mmcli(
        command, " ; ".join(things), file, "--model", pair.folder / "native", "--json", "--token-ids",
        "--max-tokens", STEPS, "--device", "cpu", "--dtype", "float32",
    )  # fmt: skip
    assert done.code == 0, done.err
    [record] = done.records
    with Image.open(file) as image:
        wanted = [pair.tokens(image.convert("RGB"), COMMANDS[command] + thing, 3) for thing in things]
    assert record["token_ids"] == wanted[0] + wanted[1]
    assert {one["label"] for one in record["objects"]} <= set(things)
    if command == "segment":
        assert all("mask" in one for one in record["objects"])


@pytest.mark.parametrize(
    "words, prompt",
    [
        (("detect", "cat"), COMMANDS["detect"] + "cat"),
        (("detect", "--all"), COMMANDS["detect:all"]),
        (("segment", "cat"), COMMANDS["segment"] + "cat"),
        (("read",), COMMANDS["read"]),
        (("caption",), COMMANDS["caption"]),
    ],
    ids=str,
)
def test_other_numbers_of_beams(pair, files, words, prompt):
    with Image.open(files["wide"]) as image:
        image = image.convert("RGB")
    for beams in (1, 5):
        done = mmcli(
            *words, files["wide"], "--beams", beams, "--model", pair.folder / "native", "--json", "--token-ids",
            "--max-tokens", STEPS, "--device", "cpu", "--dtype", "float32",
        )  # fmt: skip
        assert done.code == 0, done.err
        [record] = done.records
        assert record["token_ids"] == pair.tokens(image, prompt, beams) and record["settings"]["beams"] == beams


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_equals_its_singles(pair, beams):
    """Prompts of several lengths, about several images; what is padded changes nothing."""
    images = [random_image(i, 40 + 31 * i, 90 - 7 * i) for i in range(4)]
    prompts = [PROMPTS[0], PROMPTS[9], PROMPTS[5], "dog"]
    ours = pair.ours["native"]
    singles = [answers(ours, [one], [prompt], beams)[0] for one, prompt in zip(images, prompts, strict=True)]
    assert answers(ours, images, prompts, beams) == singles


def test_several_prompts_about_one_image_read_it_once(pair):
    loaded, image = pair.ours["native"], random_image(1, 90, 60)
    inputs = loaded.processor.rows([image], [0, 0], ["<CAPTION>", "<OD>"])
    assert len(inputs.images) == 1 and isinstance(inputs.context, Prompts)
    stop = loaded.processor.stop_ids
    both = complete(loaded.model, inputs, stop_ids=stop, max_tokens=STEPS, beams=3)
    assert [one.ids for one in both] == answers(loaded, [image, image], ["<CAPTION>", "<OD>"])


def test_cached_equals_uncached(pair):
    """The k-th step's logits are those of reading all k tokens at once, with beams' rows in any order."""
    loaded, image = pair.ours["native"], random_image(2, 50, 70)
    model, inputs = loaded.model, loaded.processor.inputs([[image]], ["<OD>"])
    rows = torch.tensor([[2, 0, 310, 415, 20], [2, 0, 415, 310, 9]])
    with torch.inference_mode():
        cache = model.new_cache(1, rows.shape[1])
        model.prefill(inputs, cache)
        cache.keep([0, 0], shared_rows=[0])
        stepped = [model.step(column, cache) for column in rows.T[1:]]
        for row, own in enumerate(rows):
            whole = model.new_cache(1, rows.shape[1])
            model.prefill(inputs, whole)
            whole.truncate(0)
            for count in range(2, rows.shape[1] + 1):
                whole.truncate(0)
                logits = model.read(own[None, :count], whole)
                torch.testing.assert_close(stepped[count - 2][row], logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"early_stopping": False},
        {"early_stopping": False, "length_penalty": 2.0},
        {"length_penalty": -1.0},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 0, "forced_bos_token_id": None, "forced_eos_token_id": None},
    ],
    ids=str,
)
def test_other_settings_of_writing_are_followed(pair, settings, tmp_path):
    """As `generation_config.json` may have them."""
    from support import edit_json

    for file in (pair.folder / "native").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit_json(tmp_path / "generation_config.json", **{k: ... if v is None else v for k, v in settings.items()})
    loaded = load(resolve(str(tmp_path)), "cpu", torch.float32)
    for place in range(2):
        image, prompt = random_image(place, 60, 80), PROMPTS[place]
        kept = {name: getattr(pair.reference.generation_config, name) for name in settings}
        for name, value in settings.items():
            setattr(pair.reference.generation_config, name, value)
        try:
            wanted = pair.tokens(image, prompt, 3)
        finally:
            for name, value in kept.items():
                setattr(pair.reference.generation_config, name, value)
        assert [list(ids) for ids in answers(loaded, [image], [prompt])] == [wanted]


def test_it_converses_with_nobody(pair, files):
    done = mmcli("chat", files["wide"], "-m", "what is it?", "--model", pair.folder / "native")
    assert done.code == 3
    assert "answers no questions. It can do mmcli caption, mmcli detect, mmcli segment and mmcli read." in done.err
