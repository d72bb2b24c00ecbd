"""From a folder to a model that runs."""

import shutil

import pytest
import support
import torch
from safetensors.torch import load_file, save_file

from mmcli.errors import ModelError
from mmcli.hub.resolve import resolve
from mmcli.hub.weights import Mapped
from mmcli.models.load import left_in_file, load, memory_estimate


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    support.write_checkpoint(folder, support.tiny_reference(support.tiny_config(True)))
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_is_what_the_loaded_weights_take(saved, dtype):
    loaded = load(resolve(str(saved)), "cpu", dtype)
    taken = sum(parameter.nbytes for parameter in loaded.model.parameters())
    assert memory_estimate(loaded.checkpoint, dtype) == taken
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {dtype}
    assert not any(tensor.is_meta for tensor in [*loaded.model.parameters(), *loaded.model.buffers()])


def test_auto_keeps_a_small_model_in_float32(saved):
    assert load(resolve(str(saved)), "cpu", "auto").dtype is torch.float32


NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_CUDA)])
@torch.inference_mode()
def test_weights_loaded_in_inference_mode_are_ordinary_tensors(saved, device):
    model = load(resolve(str(saved)), device, "bfloat16").model
    assert not any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()])


def test_a_head_trained_on_its_own_is_refused_not_dropped(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    support.rename_as_of_2024(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["language_model.lm_head.weight"] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match="lm_head.weight .* differs from"):
        load(resolve(str(folder)), "cpu", "float32")


def test_weights_of_another_size_are_named_with_both_shapes(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    config = resolve(str(folder)).config
    support.edit_json(folder / "config.json", text_config=config["text_config"] | {"intermediate_size": 96})
    message = r"mlp\.\w+_proj\.weight has the shape \[(80, 48|48, 80)\], but .* needs \[(96, 48|48, 96)\]"
    with pytest.raises(ModelError, match=message):
        load(resolve(str(folder)), "cpu", "float32")


def test_the_mask_codebook_beside_the_weights_is_the_models_own(saved, tmp_path):
    from mmcli.layers.mask_vqvae import MaskVQVAE, MaskVQVAEConfig

    folder = shutil.copytree(saved, tmp_path / "model")
    torch.manual_seed(0)
    codebook = MaskVQVAE(MaskVQVAEConfig(embedding_width=16, hidden=16))
    save_file(codebook.state_dict(), folder / "mask_decoder.safetensors")
    loaded = load(resolve(str(folder)), "cpu", torch.bfloat16)
    masks = loaded.mask_vqvae().decode(torch.zeros(1, 16, dtype=torch.long))
    assert masks.shape == (1, 64, 64) and masks.dtype is torch.float32
    assert loaded.mask_vqvae() is loaded.mask_vqvae()


def test_a_mask_codebook_that_lacks_codes_is_refused(saved, tmp_path):
    from mmcli.layers.mask_vqvae import MaskVQVAE, MaskVQVAEConfig

    folder = shutil.copytree(saved, tmp_path / "model")
    codebook = MaskVQVAE(MaskVQVAEConfig(embedding_width=16, hidden=16, codes=127))
    save_file(codebook.state_dict(), folder / "mask_decoder.safetensors")
    loaded = load(resolve(str(folder)), "cpu", torch.float32)
    with pytest.raises(ModelError, match="mask_decoder.safetensors knows 127 codes, but answers have 128"):
        loaded.mask_vqvae()


class Table(Mapped):
    """What may stay in its file."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(1000, 8, device="meta"))


def test_a_table_is_put_on_a_gpu_with_room_to_spare(monkeypatch):
    model = torch.nn.ModuleDict({"table": Table(), "rest": torch.nn.Linear(10, 200, bias=False, device="meta")})
    free = [30_000]  # bytes; all weights take 20,000 in bfloat16
    monkeypatch.setattr("mmcli.models.load.free_memory", lambda device: free[0])
    left = {
        (table, device): left_in_file(model, table, torch.device(device), torch.bfloat16)
        for table in ("auto", "cpu", "device") for device in ("cpu", "cuda")
    }  # fmt: skip
    assert {key for key, names in left.items() if not names} == {
        ("auto", "cuda"),
        ("device", "cpu"),
        ("device", "cuda"),
    }
    assert left["auto", "cpu"] == {"table.weight"}
    free[0] -= 1
    assert left_in_file(model, "auto", torch.device("cuda"), torch.bfloat16) == {"table.weight"}
