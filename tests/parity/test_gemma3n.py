"""Gemma 3n as a whole against transformers: images, recordings and text, in float32 on the CPU.

The checkpoint (see `conftest.py`) has a tower of images with one block of each kind, whose weights are as timm draws
them, and small random other parts. Images have 128 pixels a side here, not 768: the tower takes them too, in a
fraction of the time.
"""

from dataclasses import dataclass
from typing import Any

import gemma3n_folders as folders
import pytest
import torch

from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.engine.sampling import Sampling
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.models.loaded import Loaded

pytestmark = pytest.mark.usefixtures("shallow_tower")

EXACT = {"rtol": 1e-4, "atol": 1e-4}  # float32, sums in another order, through two towers
SIDE = 128
STEPS = 20
NEVER = 1 << 20  # a stop token that no model writes
IMAGE = [folders.BOI, *[folders.IMAGE] * 256, folders.EOI]
AUDIO = [folders.BOA, *[folders.AUDIO] * 188, folders.EOA]


@dataclass(frozen=True)
class Pair:
    reference: Any
    ours: Loaded

    def logits(self, inputs: Inputs) -> torch.Tensor:
        with torch.inference_mode():
            return self.ours.model.prefill(inputs, self.ours.model.new_cache(*inputs.tokens.shape))

    def tokens(self, inputs: Inputs) -> list[list[int]]:
        events = generate(self.ours.model, inputs, stop_ids=frozenset(), max_tokens=STEPS, sampling=Sampling())
        return [list(ids) for ids in zip(*([event.id for event in step] for step in events), strict=True)]

    def reference_logits(self, inputs: Inputs) -> torch.Tensor:
        with torch.inference_mode():
            return self.reference(**named(inputs)).logits[:, -1]

    def reference_tokens(self, inputs: Inputs) -> list[list[int]]:
        output = self.reference.generate(**named(inputs), max_new_tokens=STEPS, do_sample=False, eos_token_id=NEVER)
        return output[:, inputs.tokens.shape[1] :].tolist()


def named(inputs: Inputs) -> dict[str, torch.Tensor]:
    """The same under the reference's names."""
    found = {"input_ids": inputs.tokens, "attention_mask": inputs.valid.long()}
    if inputs.images:
        found["pixel_values"] = torch.stack(inputs.images)
    if inputs.audio is not None:
        found |= {"input_features": inputs.audio, "input_features_mask": inputs.audio_valid}
    return found


@pytest.fixture(scope="module")
def pair(gemma3n) -> Pair:
    return Pair(gemma3n.reference, load(resolve(str(gemma3n.folder)), "cpu", "float32"))


def words(length: int, seed: int = 0) -> list[int]:
    return torch.randint(6, folders.BOI, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def random_images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def audios(*frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.randn(len(frames), max(frames), 128, generator=torch.Generator().manual_seed(seed)) - 4
    valid = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
    return features * valid[..., None], valid


def inputs(*rows: list[int], images=(), audio=(None, None)) -> Inputs:
    return Inputs(*pad_left(list(rows), folders.PAD), tuple(images), audio=audio[0], audio_valid=audio[1])


CASES = {
    "text": inputs(words(30)),
    "text that names hard tokens": inputs([*words(9), folders.IMAGE, folders.AUDIO, folders.ROWS - 1, 7]),
    "a picture": inputs([2, *IMAGE, *words(9)], images=random_images(1)),
    "a short recording": inputs([2, *AUDIO, *words(9)], audio=audios(37)),
    "half a minute of audio": inputs([2, *AUDIO, *words(9)], audio=audios(2997)),
    "both": inputs([2, *words(3), *IMAGE, *AUDIO, *words(5)], images=random_images(1, 3), audio=audios(300)),
    "two of each": inputs(
        [2, *AUDIO, *IMAGE, *words(4), *IMAGE, *AUDIO, 9], images=random_images(2, 4), audio=audios(90, 90)
    ),
    "rows of images, audio and text": inputs(
        [2, *IMAGE, *words(5)], [2, *AUDIO, *words(50, 1)], words(12, 2), images=random_images(1, 5), audio=audios(64)
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_answers(pair, case):
    torch.testing.assert_close(pair.logits(CASES[case]), pair.reference_logits(CASES[case]), **EXACT)
    assert pair.tokens(CASES[case]) == pair.reference_tokens(CASES[case])


def test_what_is_shown_to_it_matters(pair):
    for case, changed in (
        ("a picture", {"images": random_images(1, 9)}),
        ("a short recording", {"audio": audios(37, seed=9)}),
    ):
        other = inputs(CASES[case].tokens[0].tolist(), **changed)
        assert (pair.logits(other) - pair.logits(CASES[case])).abs().max() > 0.05, case


def test_soft_tokens_of_both_towers(pair):
    vision, audio = pair.ours.model.vision, pair.ours.model.audio
    features, valid = audios(101)
    with torch.inference_mode():
        theirs = pair.reference.model.get_image_features(random_images(1)).pooler_output
        torch.testing.assert_close(vision(random_images(1)), theirs, **EXACT)
        theirs = pair.reference.model.get_audio_features(features, ~valid).pooler_output
        ours = audio(features, valid, pair.ours.model.hard[-1])
    assert ours.shape[1] == 188 and theirs.shape[1] == 7
    torch.testing.assert_close(ours[:, :7], theirs, **EXACT)
    assert torch.equal(ours[0, 7:], pair.ours.model.hard[-1].expand(181, -1))


def test_recordings_of_unlike_lengths_are_read_as_if_alone(pair):
    """transformers lets the silence that fills a batch up into a shorter recording's end; see our `conformer.py`."""
    (features, valid), lengths = audios(37, 120, 64), (37, 120, 64)
    rows = [[2, *AUDIO, *words(9, seed)] for seed in range(3)]
    together = pair.logits(inputs(*rows, audio=(features, valid)))
    for place, length in enumerate(lengths):
        alone = inputs(rows[place], audio=(features[place : place + 1, :length], valid[place : place + 1, :length]))
        torch.testing.assert_close(together[place : place + 1], pair.logits(alone), **EXACT)


def test_a_audio_that_needs_more_places_than_there_are_is_no_answer(pair):
    with pytest.raises(ValueError, match="takes 201 soft tokens, but has 188 places"):
        pair.logits(inputs([2, *AUDIO], audio=audios(3210)))


def test_a_later_turn_brings_its_own_image_and_audio(pair):
    first = [2, *IMAGE, *words(9)]
    second = [*words(5, 1), *IMAGE, *AUDIO, *words(3, 2)]
    whole = inputs(first + second, images=random_images(2), audio=audios(80))
    model = pair.ours.model
    cache = model.new_cache(1, len(first))
    with torch.inference_mode():
        model.prefill(inputs(first, images=random_images(2)[:1]), cache)
        cache.grow(len(first + second))
        logits = model.prefill(inputs(second, images=random_images(2)[1:], audio=audios(80)), cache)
    torch.testing.assert_close(logits, pair.reference_logits(whole), **EXACT)
