"""Every family's fast paths write what the plain one does: graphs, kernels, batches, rows that join; CUDA only.

The plain path is PyTorch operation by operation, one input at a time. Of weights in integers it multiplies each out
before it uses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper_folders
from cuda_only import needs_cuda
from every_family import FAMILIES, write_family
from PIL import Image

from mmcli.engine import cuda_graph
from mmcli.engine.inputs import Inputs
from mmcli.hub.resolve import resolve
from mmcli.layers import kernels, weight_only
from mmcli.layers.kernels import launch
from mmcli.models.load import load
from mmcli.models.loaded import Loaded
from mmcli.speech.fallback import DecodingOptions
from mmcli.tasks.answer import answer, answer_each, inputs_of, rows_join
from mmcli.tasks.caption import CaptionRequest

needs_cuda()

pytestmark = pytest.mark.usefixtures("shallow_tower")

COUNT, TOKENS = 17, 8
# Of such sizes a prompt has more or fewer tokens, where images keep their aspect.
SIZES = [(50, 37), (20, 90), (64, 64), (120, 30), (31, 31), (90, 60), (15, 40)]
REQUEST = CaptionRequest(max_tokens=TOKENS, beams=1)
TEXTS = DecodingOptions(
    language="en", temperatures=(0.0,), compression_ratio_limit=None, logprob_limit=None, no_speech_limit=None,
    max_tokens=TOKENS,
)  # fmt: skip
# Of the three environment variables that switch graphs, kernels and the overlap of kernels.
PLAIN = ("0", "0", "0")
WITHOUT_KERNELS = {"florence2"}  # families whose steps no fused kernels run
PATHS = [("0", "1", "1"), ("1", "0", "0"), ("steps", "1", "1"), ("1", "1", "0"), ("1", "1", "1")]


def switch(monkeypatch, path: Sequence[str]) -> None:
    for name, value in zip((cuda_graph.SWITCH, kernels.SWITCH, launch.SWITCH), path, strict=True):
        monkeypatch.setenv(name, value)
    cuda_graph._spare.clear()


@dataclass(frozen=True)
class Answer:
    """What was written for one input."""

    ids: tuple[int, ...]
    ended: bool
    logprob: float  # the mean over its tokens


@dataclass
class Model:
    """A family's model with inputs of its kind, and the ways in which it is asked about them."""

    loaded: Loaded
    inputs: list[Any]  # images, or windows of audio where the model does nothing but transcribe

    @property
    def joins(self) -> bool:
        return self.reads_images and rows_join(self.loaded, REQUEST)

    @property
    def reads_images(self) -> bool:
        return self.loaded.processor.capabilities.images

    def whole(self, rows: int) -> list[Answer]:
        """Batches of so many inputs, one after another."""
        return [one for first in range(0, COUNT, rows) for one in self._batch(self.inputs[first : first + rows])]

    def continuously(self, places: int, at_once: int | None = None) -> list[Answer]:
        """Rows that begin where others end."""
        waiting = [inputs_of(self.loaded, REQUEST, image) for image in self.inputs]

        def take(count: int, wait: bool) -> list[Inputs] | None:
            return [waiting.pop(0) for _ in range(min(count, len(waiting)))] or None

        found = dict(answer_each(self.loaded, REQUEST, take, places, at_once))
        return [Answer(one.ids, one.ended, one.mean_logprob) for _, one in sorted(found.items())]

    def read(self, rows: int) -> Inputs:
        """The first inputs as the model reads them."""
        if self.reads_images:
            prompts = [REQUEST.prompt_for(self.loaded.processor)] * rows
            return self.loaded.processor.inputs([[image] for image in self.inputs[:rows]], prompts)
        return self.loaded.family.transcript_inputs(self.loaded, self.inputs[:rows], TEXTS)

    def _batch(self, inputs: list[Any]) -> list[Answer]:
        if self.reads_images:
            found = answer(self.loaded, [[image] for image in inputs], REQUEST)
            return [Answer(one.ids, one.ended, one.mean_logprob) for one in found]
        texts = self.loaded.family.transcribe(self.loaded, inputs, TEXTS)
        return [Answer(text.token_ids, not text.truncated, text.logprob) for text in texts]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> Path:
    """A small checkpoint as `transformers` saves it; nano as it is bundled."""
    return folder_of(family, tmp_path_factory)


def folder_of(family: str, tmp_path_factory: pytest.TempPathFactory, grouped: bool = False) -> Path:
    if family == "nano":
        return resolve("nano").folder
    return write_family(tmp_path_factory.mktemp("checkpoint"), family, grouped)


def model_of(folder: Path, dtype: str, storage: str = "none") -> Model:
    loaded = load(resolve(str(folder)), "cuda", dtype, quantize=storage)
    if not loaded.processor.capabilities.images:
        return Model(loaded, [whisper_folders.audio(number, 1 + number / 20) for number in range(COUNT)])
    photographs = sorted((Path(__file__).parents[2] / "examples").glob("*.jpg"))
    sizes = [SIZES[number % len(SIZES)] for number in range(COUNT)]
    images = [Image.open(photographs[number % len(photographs)]).convert("RGB") for number in range(COUNT)]
    return Model(loaded, [image.resize(size) for image, size in zip(images, sizes, strict=True)])


@pytest.fixture(scope="module")
def exact(folder) -> Model:
    return model_of(folder, "float32")


@pytest.fixture(scope="module")
def expected(exact) -> list[Answer]:
    return plain_answers(exact)


@pytest.fixture(scope="module", params=["int8", "int4"])
def storage(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def in_integers(family, storage, tmp_path_factory) -> Model:
    """All matrices of the decoder that are not tiny are, whose sizes allow it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_only, "LEAST", 1 << 11)
        model = model_of(folder_of(family, tmp_path_factory, grouped=True), "float32", storage)
    kept = sum(isinstance(part, weight_only.InIntegers) for part in model.loaded.model.modules())
    assert kept >= 10
    return model


@pytest.fixture(scope="module")
def expected_of_integers(in_integers) -> list[Answer]:
    return plain_answers(in_integers)


def plain_answers(model: Model) -> list[Answer]:
    """The answers of the plain path; the model ends some of them before the others from here on."""
    with pytest.MonkeyPatch.context() as patch:
        switch(patch, PLAIN)
        free, own = model.whole(1), model.loaded.processor.stop_ids
        lengths = {
            id: {one.ids.index(id) if id in one.ids else TOKENS for one in free} for one in free for id in one.ids
        }
        ends = max(lengths, key=lambda id: len(lengths[id]))
        model.loaded.processor.stop_ids = own | {ends}
        answers = model.whole(1)
    assert len({len(one.ids) for one in answers}) > 1
    return answers


ROWS = pytest.mark.parametrize("rows", [1, 3, COUNT])
BATCHING = pytest.mark.parametrize("batching", ["whole", "continuous"])
PATH = pytest.mark.parametrize("path", PATHS, ids=lambda path: "graphs {} kernels {} overlap {}".format(*path))


@ROWS
@BATCHING
@PATH
def test_greedy_answers_in_float32_are_those_of_the_plain_path(
    family, exact, expected, path, batching, rows, monkeypatch
):
    played, fused = compare(exact, expected, path, batching, rows, monkeypatch)
    assert played == (path[0] != "0")
    assert fused == (family not in WITHOUT_KERNELS and path[0] != "0" and path[1] == "1")


@ROWS
@BATCHING
@PATH
def test_greedy_answers_of_weights_in_integers_are_those_of_the_plain_path(
    in_integers, expected_of_integers, path, batching, rows, monkeypatch
):
    products, quantised = [], kernels.quantised_rows
    monkeypatch.setattr(kernels, "quantised_rows", lambda *given: (products.append(quantised(*given)), products[-1])[1])
    played, _ = compare(in_integers, expected_of_integers, path, batching, rows, monkeypatch)
    assert played == (path[0] != "0")
    assert any(products) == (path[1] == "1")


@PATH
def test_greedy_answers_of_rows_that_are_read_in_parts_are_those_of_the_plain_path(exact, expected, path, monkeypatch):
    if exact.loaded.processor.square is None:
        pytest.skip("as many rows are read together as are written")
    compare(exact, expected, path, "in parts", 12, monkeypatch)


def compare(
    model: Model, expected: list[Answer], path: Sequence[str], batching: str, rows: int, monkeypatch
) -> tuple[bool, bool]:
    """Whether a step was played back from a graph, and whether one went through fused kernels."""
    if batching != "whole" and not model.joins:
        pytest.skip("declares that its rows do not join")
    switch(monkeypatch, path)
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))
    chosen, play, fused, played = kernels.chosen, cuda_graph.Graph.__call__, [], []
    monkeypatch.setattr(kernels, "chosen", lambda *given: (fused.append(chosen(*given)), fused[-1])[1])
    monkeypatch.setattr(cuda_graph.Graph, "__call__", lambda *given: (played.append(given), play(*given))[1])
    for _ in range(3 if rows == COUNT else 1):  # from the third on, prompts of a shape are played back
        at_once = 5 if batching == "in parts" else None
        found = model.whole(rows) if batching == "whole" else model.continuously(rows, at_once)
        for number, (one, plain) in enumerate(zip(found, expected, strict=True)):
            assert (one.ids, one.ended) == (plain.ids, plain.ended), number
            assert one.logprob == pytest.approx(plain.logprob, abs=1e-3), number
    return bool(played), any(fused)


STEPS = 4
# See below: of all errors together, and of a state's.
MOST_ERROR, MOST_USUAL_ERROR = 2.0, 1.4


@torch.inference_mode()
def logits(model: Model, given: Inputs, tokens: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of a prompt and of the steps behind it [1 + STEPS, B, V], and the `tokens` read in these [STEPS, B].

    Without `tokens` they are the likeliest ones.
    """
    own, like = model.loaded.model, model.loaded.model.like
    given = given.to(like.device, like.dtype)
    cache = own.new_cache(len(given.tokens), given.tokens.shape[1] + STEPS)
    found = [cuda_graph.prefill(own, given, cache).float().clone()]
    read = []
    for step in range(STEPS):
        read.append(found[-1].argmax(-1) if tokens is None else tokens[step])
        found.append(cuda_graph.step(own, read[-1], cache).float().clone())
    return torch.stack(found), torch.stack(read)


@pytest.fixture(scope="module")
def rounded(folder) -> Model:
    return model_of(folder, "bfloat16")


@pytest.fixture(scope="module")
def unrounded(folder) -> Model:
    """The same weights, computing in float32."""
    model = model_of(folder, "float32")
    for parameter in model.loaded.model.parameters():
        parameter.data.copy_(parameter.bfloat16())
    return model


@pytest.mark.parametrize("rows", [1, 3, COUNT])
@pytest.mark.parametrize("path", PATHS[1:], ids=lambda path: "graphs {} kernels {} overlap {}".format(*path))
def test_logits_in_bfloat16_are_as_near_to_those_in_float32_as_the_plain_ones(
    rounded, unrounded, path, rows, monkeypatch
):
    """In bfloat16 two correct paths differ: they add in another order, and round at other places.

    With the unit roundoff u = 2⁻⁸ a rounded sum of K products has an error of about √K · u · |x| |w| / √K, whatever the
    order, and a network adds up many of them, so that an error of a logit is about normal. What such an error may be
    follows from the model and its weights; the plain path shows it: it is one draw, a fast path is another one of the
    same distribution, or of a narrower one where kernels round once for several operations. So the fast path's errors,
    both measured against the same weights in float32, may be no larger but for chance.

    Logits come from `STEPS` + 1 states a row, of 48 numbers or more each: the root mean square of a state's errors is
    known to a tenth (1 / √(2n)). But some states have far larger errors than others: a norm enlarges those of a vector
    that came out short, as a sparse MLP's or a sum of opposite ones, by chance another one on each path. With Gemma 3n
    five states of 85 had 18 to 87 % of all squares, with its thresholds and without them, and the quotient of the two
    paths' root mean squares was 0.68 to 1.30, while that of the states' medians was 0.75 to 0.98. So states count alike
    (a geometric mean), beside a wider limit for all errors together, in which one wrong row shows: a sign, a mask or a
    scale that is wrong makes errors as large as the logits.
    """
    with monkeypatch.context() as plainly:
        switch(plainly, PLAIN)
        right, tokens = logits(unrounded, unrounded.read(rows))
        plain, _ = logits(rounded, rounded.read(rows), tokens)
    switch(monkeypatch, path)
    there = right.isfinite()
    assert torch.equal(there, plain.isfinite())
    fast, _ = logits(rounded, rounded.read(rows), tokens)
    assert torch.equal(there, fast.isfinite())
    usual, own = ((one - right).where(there, 0).square().sum(-1) / there.sum(-1) for one in (plain, fast))  # of states
    scale = right[there].std()
    assert 0 < usual.mean().sqrt() < scale / 4  # there is something to be wrong about
    error = (own.mean() / usual.mean()).sqrt().item()
    state_error = (own.log().mean() - usual.log().mean()).div(2).exp().item()
    print(f"quotients {error:.3f}, of states {state_error:.3f}; errors {usual.mean().sqrt():.3g} of {scale:.3g}")
    assert error <= MOST_ERROR and state_error <= MOST_USUAL_ERROR
