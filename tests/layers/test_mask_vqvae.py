"""The mask VQ-VAE against the documented computation, written out in plain numpy."""

import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmcli.errors import ModelError
from mmcli.layers.mask_vqvae import MaskVQVAE, MaskVQVAEConfig, load_mask_vqvae

SMALL = MaskVQVAEConfig(codes=16, embedding_width=24, hidden=16)


@pytest.fixture(scope="module")
def small() -> MaskVQVAE:
    torch.manual_seed(0)
    return MaskVQVAE(SMALL)


@pytest.fixture(scope="module")
def masks() -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = ((y - 30) ** 2 + (x - 35) ** 2 < 400).float()
    return torch.stack([disc, 1 - disc, (x > y).float()])


# The reference: channels last, one image at a time, weights in torch's layout as the published file stores them.


def convolve(weights, name, x, stride=1):
    """A sum over the kernel's taps of shifted images; SAME padding."""
    kernel, bias = weights[name + ".weight"], weights[name + ".bias"]
    size = kernel.shape[-1]
    side = x.shape[0] // stride
    before = ((side - 1) * stride + size - x.shape[0]) // 2
    padded = np.pad(x, [(before, size), (before, size), (0, 0)])
    y = np.zeros((side, side, kernel.shape[0]))
    for i in range(size):
        for j in range(size):
            taps = padded[i : i + stride * side : stride, j : j + stride * side : stride]
            y += taps @ kernel[:, :, i, j].T
    return y + bias


def scatter(weights, name, x):
    """Transposed convolution, kernel 4, stride 2: every input pixel adds a 4 × 4 stamp, and a rim of 1 is cut off."""
    kernel, bias = weights[name + ".weight"], weights[name + ".bias"]
    side = x.shape[0]
    y = np.zeros((2 * side + 2, 2 * side + 2, kernel.shape[1]))
    for row in range(side):
        for column in range(side):
            stamp = np.einsum("c,cohw->hwo", x[row, column], kernel)
            y[2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += stamp
    return y[1:-1, 1:-1] + bias


def relu(x):
    return np.maximum(x, 0)


def residual(weights, name, x):
    y = relu(convolve(weights, name + ".net.0", x))
    y = relu(convolve(weights, name + ".net.2", y))
    return x + convolve(weights, name + ".net.4", y)


def reference_encode(weights, mask):
    x = 2.0 * (mask[:, :, None] - 0.5)
    for n in 0, 2, 4, 6:
        x = relu(convolve(weights, f"encoder.{n}", x, stride=2))
    x = residual(weights, "encoder.9", residual(weights, "encoder.8", x))
    x = convolve(weights, "encoder.10", x).reshape(16, -1)
    distances = ((x[:, None] - weights["_vq_vae._embedding"][None]) ** 2).sum(-1)
    return distances.argmin(1)


def reference_decode(weights, codes):
    x = weights["_vq_vae._embedding"][codes].reshape(4, 4, -1)
    x = relu(convolve(weights, "decoder.0", x))
    x = residual(weights, "decoder.3", residual(weights, "decoder.2", x))
    for n in 4, 6, 8, 10:
        x = relu(scatter(weights, f"decoder.{n}", x))
    return convolve(weights, "decoder.12", x)[:, :, 0]


def as_numpy(model):
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


def test_decoding_equals_the_documented_computation(small):
    codes = torch.randint(SMALL.codes, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        decoded = small.decode(codes)
    assert decoded.shape == (2, 64, 64)
    for row, mask in zip(codes, decoded, strict=True):
        np.testing.assert_allclose(mask.numpy(), reference_decode(as_numpy(small), row.numpy()), atol=1e-5)


def test_encoding_equals_the_documented_computation(small, masks):
    # Codes of untrained vectors lie far from the features; codes drawn from the features make the choice matter.
    spread = MaskVQVAE(SMALL)
    spread.load_state_dict(small.state_dict())
    with torch.no_grad():
        spread._vq_vae._embedding.copy_(small.features(masks).flatten(0, 1)[::3])
    codes = spread.encode(masks)
    assert codes.dtype == torch.int64 and len(codes.unique()) > 4
    for mask, row in zip(masks, codes, strict=True):
        assert row.tolist() == reference_encode(as_numpy(spread), mask.double().numpy()).tolist()


def test_the_default_has_the_names_and_shapes_of_vae_oid():
    shapes = {name: tuple(tensor.shape) for name, tensor in MaskVQVAE().state_dict().items()}
    expected = {"_vq_vae._embedding": (128, 512)}
    for side, residuals in ("encoder", (8, 9)), ("decoder", (2, 3)):
        for block in residuals:
            for n, kernel in (0, 3), (2, 3), (4, 1):
                expected[f"{side}.{block}.net.{n}.weight"] = (128, 128, kernel, kernel)
                expected[f"{side}.{block}.net.{n}.bias"] = (128,)
    for name, weight in {
        "encoder.0": (16, 1, 4, 4), "encoder.2": (32, 16, 4, 4), "encoder.4": (64, 32, 4, 4),
        "encoder.6": (128, 64, 4, 4), "encoder.10": (512, 128, 1, 1), "decoder.0": (128, 512, 1, 1),
        "decoder.12": (1, 16, 1, 1),
    }.items():  # fmt: skip
        expected |= {f"{name}.weight": weight, f"{name}.bias": weight[:1]}
    channels = 128, 128, 64, 32, 16
    for n, before, after in zip((4, 6, 8, 10), channels, channels[1:], strict=False):
        expected |= {f"decoder.{n}.weight": (before, after, 4, 4), f"decoder.{n}.bias": (after,)}
    assert shapes == expected


def test_the_default_fills_the_published_file_to_the_byte():
    # 8,479,556 bytes are the parameters, the two running averages of its training, and 269 bytes of framing for each
    # of 49 arrays (npy header 128, zip entries 76 + twice the name): the sizes can be nothing else.
    parameters = {name: tensor.numel() for name, tensor in MaskVQVAE().state_dict().items()}
    parameters |= {"_vq_vae._ema_w": 128 * 512, "_vq_vae._ema_cluster_size": 128}
    assert len(parameters) == 49
    framing = 8_479_556 - 4 * sum(parameters.values())
    assert 49 * 230 < framing < 49 * 300


def test_training_moves_encoder_codebook_and_decoder(masks):
    torch.manual_seed(3)
    model = MaskVQVAE(SMALL)
    reconstruction, loss, codes = model(masks)
    assert codes.tolist() == model.encode(masks).tolist()
    (torch.nn.functional.mse_loss(reconstruction, 2 * masks - 1) + loss).backward()
    for part in model.encoder[0].weight, model._vq_vae._embedding, model.decoder[12].weight:
        assert part.grad.abs().sum() > 0


def test_the_reconstruction_in_training_is_the_decoded_code(small, masks):
    with torch.no_grad():
        reconstruction, _, codes = small(masks)
        torch.testing.assert_close(reconstruction, small.decode(codes), atol=1e-5, rtol=1e-5)


def test_a_short_training_that_revives_lost_codes_learns_its_masks(masks):
    torch.manual_seed(4)
    # The last layers have an eighth of the channels: with SMALL's two, ReLU can shut both for good.
    model = MaskVQVAE(MaskVQVAEConfig(codes=32, embedding_width=24, hidden=64))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(120):
        if step % 10 == 0 and step < 80:
            model.revive(masks)
        reconstruction, loss, codes = model(masks)
        optimiser.zero_grad()
        (torch.nn.functional.mse_loss(reconstruction, 2 * masks - 1) + loss).backward()
        optimiser.step()
    agreement = ((model.decode(model.encode(masks)) > 0) == (masks > 0.5)).float().mean()
    assert agreement > 0.9


def test_reviving_keeps_used_codes_and_moves_the_others_onto_features(small, masks):
    model = MaskVQVAE(SMALL)
    model.load_state_dict(small.state_dict())
    before, used = model._vq_vae._embedding.detach().clone(), model.encode(masks).unique()
    assert model.revive(masks) == SMALL.codes - len(used)
    after = model._vq_vae._embedding.detach()
    assert torch.equal(after[used], before[used])
    features = model.features(masks).flatten(0, 1)
    lost = [code for code in range(SMALL.codes) if code not in used]
    assert all((features == after[code]).all(1).any() for code in lost)


# Files.


def save(path, tensors):
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        save_file(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("with_encoder", [True, False])
def test_a_saved_model_comes_back(small, masks, tmp_path, suffix, with_encoder):
    tensors = {name: t for name, t in small.state_dict().items() if with_encoder or not name.startswith("encoder")}
    loaded = load_mask_vqvae(save(tmp_path / f"mask{suffix}", tensors))
    assert loaded.config == SMALL and not loaded.training
    codes = torch.arange(16)[None]
    torch.testing.assert_close(loaded.decode(codes), small.decode(codes))
    if with_encoder:
        assert torch.equal(loaded.encode(masks), small.encode(masks))
    else:
        with pytest.raises(ModelError, match="decoder only"):
            loaded.encode(masks)


def test_the_running_averages_of_the_published_file_are_dropped(small, tmp_path):
    extra = {"_vq_vae._ema_w": torch.zeros(16, 24), "_vq_vae._ema_cluster_size": torch.zeros(16)}
    loaded = load_mask_vqvae(save(tmp_path / "mask.npz", small.state_dict() | extra))
    assert loaded.state_dict().keys() == small.state_dict().keys()


def test_half_precision_is_widened(small, tmp_path):
    halves = {name: tensor.half() for name, tensor in small.state_dict().items()}
    loaded = load_mask_vqvae(save(tmp_path / "mask.safetensors", halves))
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())


def change(name, value):
    return lambda tensors: tensors | {name: value}


def remove(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (remove("decoder.12.bias"), "lacks decoder.12.bias"),
        (remove("encoder.4.weight"), "lacks encoder.4.weight"),  # half an encoder is not an absent one
        (remove("_vq_vae._embedding"), "no codebook"),
        (lambda tensors: {"x": torch.zeros(1)}, "not a mask decoder"),
        (change("decoder.14.weight", torch.zeros(1)), "unknown decoder.14.weight"),
        (change("decoder.4.bias", torch.zeros(3)), r"decoder.4.bias as \(3,\) and not \(16,\)"),
        (change("decoder.4.bias", torch.zeros(16, dtype=torch.int32)), "not as floats"),
        (change("decoder.0.weight", torch.zeros(12, 24, 1, 1)), "multiple of 8"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_that_does_not_fit_is_named_with_what_is_wrong(small, tmp_path, edit, sentence, suffix):
    path = save(tmp_path / f"mask{suffix}", edit(small.state_dict()))
    with pytest.raises(ModelError, match=sentence) as caught:
        load_mask_vqvae(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.99])
def test_a_cut_off_file_is_a_model_error(small, tmp_path, suffix, keep):
    path = save(tmp_path / f"mask{suffix}", small.state_dict())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match=path.name):
        load_mask_vqvae(path)


def test_flipped_bytes_inside_an_npz_are_a_model_error(small, tmp_path):
    path = save(tmp_path / "mask.npz", small.state_dict())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        load_mask_vqvae(path)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "mask.npz"
    np.savez(path, **{"_vq_vae._embedding": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ModelError, match="cannot be read"):
        load_mask_vqvae(path)


def test_a_bare_array_under_the_name_npz_is_a_model_error(tmp_path):
    path = tmp_path / "mask.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ModelError, match="is damaged"):
        load_mask_vqvae(path)


def npy(shape: tuple[int, ...], data: bytes, kind: str = "<f4") -> bytes:
    """An array file whose header may promise what is not there."""
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


ZEROS = b"zeros"  # written as 96 MB of them
HOSTILE = {
    "a bomb of zeros": ZEROS,
    "a shape beyond its data": npy((1 << 40,), b"1234"),
    "a shape beyond all numbers": npy((1 << 62, 1 << 62), b""),
    "objects": npy((1,), b"cposix\nsystem\n.", kind="|O"),
    "a header of 60,000 characters": b"\x93NUMPY\x01\x00\x60\xea" + b"(" * 60_000,
    "nothing": b"",
}


@pytest.mark.parametrize("array", HOSTILE.values(), ids=HOSTILE)
def test_hostile_arrays_are_refused_before_they_are_unfolded(tmp_path, array):
    path = tmp_path / "mask.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("decoder.0.weight.npy", npy((24_000_000,), bytes(96_000_000)) if array is ZEROS else array)
    tracemalloc.start()
    with pytest.raises(ModelError, match="mask.npz"):
        load_mask_vqvae(path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_safetensors_of_another_size_than_promised_are_refused(tmp_path):
    path = tmp_path / "mask.safetensors"
    path.write_bytes((9 << 30).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="mask.safetensors is damaged"):
        load_mask_vqvae(path)


@pytest.mark.parametrize(("name", "sentence"), [("none.npz", "does not exist"), ("mask.pt", "neither .npz nor")])
def test_other_paths_are_model_errors(tmp_path, name, sentence):
    if name == "mask.pt":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=sentence):
        load_mask_vqvae(tmp_path / name)
