"""Loss, logits and gradients of what is taught, against transformers on the same batch: small models in float32."""

import random
from pathlib import Path

import gemma3n_folders
import gemma3n_models
import pytest
import smolvlm_folders
import support
import torch
import whisper_folders
from audio_files import wav_bytes
from smolvlm_pairs import make_pair
from torch import Tensor

from mmcli.example import Example, Exchange, LabelledObject
from mmcli.hub.resolve import resolve
from mmcli.hub.save import reference_name
from mmcli.models.load import load
from mmcli.models.loaded import Loaded
from mmcli.models.teaching import IGNORED, Batch
from mmcli.training.loss import token_loss

CLOSE = 1e-5  # relative
SMALL = 1e-3  # of gradients
WINDOW = 12  # tokens: fewer than one image has


def near(ours: Tensor, theirs: Tensor, least: float = 1e-12) -> float:
    """The relative error: the length of the difference in shares of the length of `theirs`, or of `least`."""
    return ((ours - theirs).norm() / theirs.norm().clamp(min=least)).item()


def batch_of(loaded: Loaded, *examples: Example) -> Batch:
    teaching = loaded.family.teaching
    numbered = enumerate(examples)
    rows = [row for number, example in numbered for row in teaching.rows(loaded, example, random.Random(number))]
    return teaching.batch(rows)


def labels_of(batch: Batch) -> Tensor:
    """What transformers calls labels: the learned tokens at their own places."""
    labels = torch.full_like(batch.targets, IGNORED)
    labels[:, 1:] = batch.targets[:, :-1]
    return labels


def learn(loaded: Loaded, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits of all places and the mean loss, which has left its gradients."""
    model, teaching = loaded.model, loaded.family.teaching
    model.requires_grad_(True)
    model.zero_grad()
    states = teaching.states(model, batch)
    loss = token_loss(teaching, model, states, batch.targets) / batch.learned
    loss.backward()
    with torch.no_grad():
        logits = teaching.logits(model, states)
    return logits, loss.detach()


def compare_gradients(loaded: Loaded, reference: torch.nn.Module, close: float = CLOSE) -> None:
    """Every gradient of ours against that of the reference's parameter, by the name that LoRA files have for it."""
    theirs, rules = dict(reference.named_parameters()), loaded.family.rules(loaded.config)
    whole: list[tuple[Tensor, Tensor]] = []
    for name, parameter in loaded.model.named_parameters():
        other = theirs[reference_name(rules, loaded.family.teaching.modules, name)].grad
        if other is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        assert parameter.grad is not None, name
        # Of the bias of keys there is no gradient but what rounding leaves: a softmax does not see it.
        assert near(parameter.grad, other, least=SMALL) < 10 * close, name
        whole.append((parameter.grad.flatten(), other.flatten()))
    ours, others = (torch.cat(parts) for parts in zip(*whole, strict=True))
    assert len(whole) > 10 and near(ours, others) < close


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        support.random_image(number).save(path)
    return paths


@pytest.fixture(scope="module", params=["PaliGemma", "PaliGemma 2"])
def paligemma(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paligemma")
    reference = support.tiny_reference(support.tiny_config(request.param.endswith("2"), window=WINDOW), 1)
    support.write_checkpoint(folder, reference)
    return reference, load(resolve(str(folder)), "cpu", torch.float32, fused=False)


@pytest.fixture(scope="module")
def gemma3n(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma3n")
    reference = gemma3n_models.tiny_text_reference()
    gemma3n_folders.write_checkpoint(folder, reference)
    return reference, load(resolve(str(folder)), "cpu", torch.float32, fused=False)


CONVERSATIONS = (
    Example("chat", "a", exchanges=(Exchange("what is a cat", "a dog"),)),
    Example(
        "chat",
        "b",
        system="be brief",
        exchanges=(
            Exchange("what is on the mat", "the cat"),
            Exchange("and the red ball", "on the left of the dog"),
            Exchange("is it so", "it is"),
        ),
    ),
)


def test_conversations(gemma3n):
    """Several turns in one row; only the answers and their ends are learned."""
    reference, loaded = gemma3n
    batch = batch_of(loaded, *CONVERSATIONS)
    processor = loaded.processor
    for row, example in enumerate(CONVERSATIONS):
        learned = [id for id in batch.targets[row].tolist() if id != IGNORED]
        said = "".join(one.answer for one in example.exchanges)
        assert processor.decode(learned).replace(" ", "") == said.replace(" ", "")
        assert sum(id in processor.stop_ids for id in learned) == len(example.exchanges)
    logits, loss = learn(loaded, batch)
    valid = batch.inputs.valid
    out = reference.train().requires_grad_(True)(
        input_ids=batch.inputs.tokens, attention_mask=valid.long(), labels=labels_of(batch)
    )
    out.loss.backward()
    assert near(loss, out.loss) < CLOSE
    assert near(logits[valid], out.logits[valid]) < CLOSE
    compare_gradients(loaded, reference, 3 * CLOSE)  # the reference's own in float32 and float64 differ by 2e-5


@pytest.mark.parametrize("multilingual", [True, False])
def test_recordings(multilingual, tmp_path):
    reference = whisper_folders.write_checkpoint(tmp_path, multilingual=multilingual)
    loaded = load(resolve(str(tmp_path)), "cpu", torch.float32, fused=False)
    examples = []
    for number, text in enumerate(("the cat", "a dog on the mat", "", "the mat")):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(wav_bytes(whisper_folders.audio(number), 16_000))
        examples.append(Example("transcribe", path.name, audio=(path,), exchanges=(Exchange(None, text),)))
    batch = batch_of(loaded, *examples)
    times = batch.inputs.tokens == loaded.processor.special.times
    assert times.any() and not times.any(dim=1).all(), "both forms are to be among them"
    kept = [loaded.family.teaching.states(loaded.model, batch) for _ in range(2)]  # of an encoder that is not trained
    logits, loss = learn(loaded, batch)
    assert all(torch.equal(loaded.family.teaching.logits(loaded.model, one), logits) for one in kept)
    valid = batch.inputs.valid
    out = reference.train().requires_grad_(True)(
        input_features=batch.inputs.audio, decoder_input_ids=batch.inputs.tokens, decoder_attention_mask=valid.long()
    )
    theirs = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), batch.targets.flatten())
    theirs.backward()
    assert near(loss, theirs) < CLOSE
    assert near(logits[valid], out.logits[valid]) < CLOSE
    compare_gradients(loaded, reference)


PLACED = "<loc0204><loc0102><loc0921><loc0512> cat"


def test_prefix_and_suffix(paligemma, tmp_path):
    """Rows of several lengths, of one image and of two, with objects and with words, and of several turns."""
    first, second = pictures(tmp_path, 2)
    cat = LabelledObject("cat", (0.1, 0.2, 0.5, 0.9))
    examples = (
        Example("caption", "a", (first,), exchanges=(Exchange(None, "a cat on the mat"),)),
        Example("detect", "b", (second,), objects=(cat,), exhaustive=frozenset({"dog"})),
        Example(
            "chat",
            "c",
            (first, second),
            exchanges=(Exchange("what is on the left", "the red ball"), Exchange("and the dog", "a mat")),
        ),
        Example("detect", "d", (first,), exchanges=(Exchange("detect cat", PLACED),)),
    )
    reference, loaded = paligemma
    batch = batch_of(loaded, *examples)
    said = [loaded.processor.decode(row[row != IGNORED].tolist()).strip() for row in batch.targets]
    *turns, placed = [text.removesuffix("<eos>") for text in said[2:]]
    assert turns == ["the red ball", "a mat"], "a turn is a row of its own"
    assert placed == PLACED, "places that stand in a suffix are learned as they are"
    logits, loss = learn(loaded, batch)
    valid = batch.inputs.valid
    out = reference.train().requires_grad_(True)(
        input_ids=batch.inputs.tokens,
        attention_mask=valid.long(),
        token_type_ids=(~batch.prefix & valid).long(),
        pixel_values=torch.stack(batch.inputs.images),
        labels=labels_of(batch),
    )
    out.loss.backward()
    assert near(loss, out.loss) < CLOSE
    assert near(logits[valid], out.logits[valid]) < CLOSE
    compare_gradients(loaded, reference)


@pytest.mark.parametrize("kind", smolvlm_folders.KINDS)
def test_conversations_about_images(kind, tmp_path):
    """Rows of two images and three turns, of one image, and of none; images are cut into tiles."""
    pair = make_pair(kind, tmp_path)
    loaded = load(resolve(str(tmp_path)), "cpu", torch.float32, fused=False)
    first, second = pictures(tmp_path, 2)
    examples = (
        Example(
            "chat",
            "a",
            images=(first, second),
            exchanges=(
                Exchange("what is on the left", "a cat"),
                Exchange("say it again", "a cat"),
                Exchange("?", "hello"),
            ),
        ),
        Example("caption", "b", images=(second,), exchanges=(Exchange(None, "a dog on the mat"),)),
        Example("chat", "c", system="be kind", exchanges=(Exchange("who is here", "the dog"),)),
    )
    batch = batch_of(loaded, *examples)
    counts = [(row == smolvlm_folders.IMAGE).sum().item() for row in batch.inputs.tokens]
    assert counts[0] > counts[1] > counts[2] == 0
    learned = (batch.targets != IGNORED).sum(dim=1)
    assert (batch.targets[0] == smolvlm_folders.END).sum() == 3 and learned[1] > 1
    logits, loss = learn(loaded, batch)
    valid = batch.inputs.valid
    out = pair.reference.train().requires_grad_(True)(
        input_ids=batch.inputs.tokens,
        attention_mask=valid.long(),
        pixel_values=by_rows(loaded, examples),
        labels=labels_of(batch),
    )
    out.loss.backward()
    assert near(loss, out.loss) < CLOSE
    assert near(logits[valid], out.logits[valid]) < CLOSE
    compare_gradients(loaded, pair.reference)


def by_rows(loaded: Loaded, examples: tuple[Example, ...]) -> Tensor:
    """The tiles of each example, those that are missing black, as transformers has them: [B, tiles, 3, side, side]."""
    teaching = loaded.family.teaching
    rows = [row.images for one in examples for row in teaching.rows(loaded, one, random.Random(0))]
    tiles = [torch.cat(images) if images else torch.zeros(0) for images in rows]
    whole = tiles[0].new_zeros(len(rows), max(map(len, tiles)), *tiles[0].shape[1:])
    for row, own in zip(whole, tiles, strict=True):
        if len(own):
            row[: len(own)] = own
    return whole
