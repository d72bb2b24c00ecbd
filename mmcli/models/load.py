"""From a checkpoint on disk to a model that runs."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mmcli.engine.device import choose_device, choose_dtype, free_memory, prepare_device
from mmcli.engine.memory import give_back_freed
from mmcli.engine.model import GenerativeModel
from mmcli.errors import MemoryShortage, ModelError, ran_out_of_memory
from mmcli.hub.fields import shown
from mmcli.hub.quantized import QUANTIZED, STORAGES, Storage, parameter_count
from mmcli.hub.resolve import Checkpoint
from mmcli.hub.weights import kept_mapped, load_strict
from mmcli.layers.fusing import fuse
from mmcli.layers.int8 import Quantisable
from mmcli.layers.step_linear import for_steps
from mmcli.layers.weight_only import InIntegers, for_cpu, keep_in
from mmcli.models.adapter import add_adapter, read_adapter
from mmcli.models.family import Family
from mmcli.models.loaded import Loaded
from mmcli.models.registry import family_of

# A GPU's free memory must be so many times all weights before what could stay in the file is put there too.
ROOM = 1.5


# Weights are ordinary tensors whoever asks for them: other threads fill them, which are in no such mode.
@torch.inference_mode(False)
def load(
    checkpoint: Checkpoint,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    mask_decoder: Path | None = None,
    table: str = "auto",
    *,
    fused: bool = True,
    quantize: str = "auto",
) -> Loaded:
    """Build a checkpoint's model on `device` in `dtype`, strictly. Raises ModelError; UsageError for the device.

    It is loaded, with the checkpoint's adapter added to it, quantised where that pays and the user left the type open,
    and fused, each a step of its own: with `fused` False it keeps the weights that the checkpoint has names for, as
    training and saving need it.

    The module is built without memory and filled from memory-mapped files, so the peak is the model's own size. What a
    model asks to have left in the file (`kept_mapped`: Gemma 3n's per-layer table) is, with "cpu" for `table`; "device"
    puts it among the other weights, "auto" where a GPU has room to spare.

    With "int8" or "int4" for `quantize` the decoder's weights are kept in such integers, tensor by tensor as they are
    read, so that the peak is their size; "none" keeps them in `dtype`, "auto" as `mmcli models quantize` left them.
    """
    family = family_of(checkpoint.config, checkpoint.name)
    config = family.read_config(checkpoint.config)
    # A missing file or setting should fail before gigabytes are read.
    processor = family.processor(checkpoint.folder, config, checkpoint.config)
    adapter = None if checkpoint.adapter is None else read_adapter(checkpoint.adapter)
    device = choose_device(device) if isinstance(device, str) else device
    prepare_device(device)
    is_open = dtype == "auto"
    if isinstance(dtype, str):
        dtype = choose_dtype(dtype, device, parameter_count(checkpoint.folder))
    model = build_empty(family, config)
    storage = storage_of(checkpoint, quantize)
    if storage is not None:
        keep_in(storage, *parts_in_integers(model))
    # Where nothing is asked for, some families choose another arithmetic for the CPU.
    rounds = storage is None and is_open and fused and device.type == "cpu"
    if isinstance(model, Quantisable) and rounds and adapter is None:
        model.expect_int8()
    mapped = left_in_file(model, table, device, dtype)
    try:
        load_strict(model, checkpoint.folder, family.rules(config), device, dtype, mapped)
    except (RuntimeError, MemoryError, OSError) as error:
        if not ran_out_of_memory(error):
            raise
        needed = memory_estimate(checkpoint, dtype, table, quantize) / 1e9
        raise MemoryShortage(
            f"{checkpoint.name} needs {needed:.1f} GB for its weights, more than {device} has free",
            "Choose --quantize int8, --dtype bfloat16, --device cpu or a smaller model",
        ) from error
    if adapter is not None:
        add_adapter(model, family, config, adapter, dtype)
    quantised = False
    if isinstance(model, Quantisable) and rounds:
        give_back_freed()  # what it took to round them, before they are packed
        quantised = model.quantise()
        kinds = {parameter.dtype for parameter in model.parameters()}
        dtype = kinds.pop() if len(kinds) == 1 else dtype  # a few parts in another type do not change the model's
    if fused:
        fuse(model)
    if fused and device.type == "cpu":
        for_cpu(model)  # behind fusing, which knows no form of a processor's own
        for part in parts_in_integers(model):
            for_steps(part)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # weights that were put together leave their old places behind
    elif quantised:
        give_back_freed()  # as those that were rounded do
    return Loaded(model, processor, checkpoint, config, device, dtype, mask_decoder, family, quantised, storage)


def storage_of(checkpoint: Checkpoint, quantize: str) -> Storage | None:
    """The integers in which a checkpoint's decoder is to be kept, None for none; `quantize` as for `load`.

    Raises ModelError where its config.json names others than there are.
    """
    named = checkpoint.config.get(QUANTIZED, "none") if quantize == "auto" else quantize
    for storage in STORAGES:
        if named == storage:
            return storage
    if named != "none":
        raise ModelError(f"{checkpoint.name} is kept in {shown(named)}, which is neither int8 nor int4")
    return None


def parts_in_integers(model: GenerativeModel) -> list[nn.Module]:
    """The parts of a model that are kept in integers where that is asked for."""
    return [model.get_submodule(name) for name in model.read_each_step]


def left_in_file(model: GenerativeModel, table: str, device: torch.device, dtype: torch.dtype) -> frozenset[str]:
    """Names of the tensors that stay mapped from their file: see `load`.

    On the device a table saves every step a wait for the host; with batches, that is half of a step's time.
    """
    kept = kept_mapped(model)
    if table == "auto" and kept and device.type == "cuda":
        whole = sum(tensor.numel() * dtype.itemsize for tensor in model.state_dict().values())
        table = "device" if free_memory(device) >= ROOM * whole else "cpu"
    return frozenset() if table == "device" else kept


def build_empty(family: Family, config: Any) -> GenerativeModel:
    """A family's module without memory: every parameter on the meta device, none initialised."""
    with torch.device("meta"), _NoInitialisation():
        return family.build(config)


class _NoInitialisation(TorchFunctionMode):
    """Passes over initialisation: drawing random numbers on the meta device imports PyTorch's compiler, a second."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        drawing = getattr(function, "__name__", "") in ("normal_", "uniform_")
        if drawing or getattr(function, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def memory_estimate(checkpoint: Checkpoint, dtype: torch.dtype, table: str = "auto", quantize: str = "auto") -> int:
    """Bytes that the weights will take on the device in `dtype`: nothing is loaded. ModelError.

    What stays in its file (see `load`) is not among them.
    """
    family = family_of(checkpoint.config, checkpoint.name)
    model = build_empty(family, family.read_config(checkpoint.config))
    mapped = frozenset() if table == "device" else kept_mapped(model)
    storage = storage_of(checkpoint, quantize)
    if storage is not None:
        keep_in(storage, *parts_in_integers(model))
    integers = {f"{name}.weight": part.bits / 8 for name, part in model.named_modules() if isinstance(part, InIntegers)}
    weights = ((name, tensor) for name, tensor in model.state_dict().items() if name not in mapped)
    return int(sum(tensor.numel() * integers.get(name, dtype.itemsize) for name, tensor in weights))
