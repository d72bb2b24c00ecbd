"""The arrays in a mask decoder's file, .npz or .safetensors: never unpickled, never more than such a file can hold."""

import lzma
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmcli.errors import ModelError, raise_if_interrupted
from mmcli.hub.safetensors_files import read_header

LARGEST = 64_000_000  # bytes of a file, and of what it unfolds into; the published one has 8 million
MOST_ARRAYS = 1000
WHAT_TO_DO = "Use big_vision's vae-oid.npz, or a mask model that mmcli wrote"


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The tensors of a mask decoder's file by their names. Raises ModelError for one that is none, or hostile."""
    if not path.is_file():
        raise ModelError(f"The mask decoder {path} does not exist", "Give the path of a file with --mask-decoder")
    if path.suffix not in (".npz", ".safetensors"):
        raise ModelError(f"The mask decoder {path} is neither .npz nor .safetensors", WHAT_TO_DO)
    if path.stat().st_size > LARGEST:
        raise ModelError(f"The mask decoder {path} is larger than any should be ({LARGEST / 1e6:.0f} MB)", WHAT_TO_DO)
    try:
        if path.suffix == ".safetensors":
            read_header(path)
            return load_file(path)
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _array(archive, name) for name in _names(archive)}
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise_if_interrupted(error)
        raise ModelError(f"The mask decoder {path} cannot be read ({error})", WHAT_TO_DO) from error
    except (zipfile.BadZipFile, SafetensorError, zlib.error, lzma.LZMAError, struct.error) as error:
        raise ModelError(f"The mask decoder {path} is damaged ({error})", "Download it again") from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    """The arrays in an .npz. Raises ValueError for one that would unfold into more than a mask model can be."""
    names = archive.namelist()
    if len(names) > MOST_ARRAYS or sum(info.file_size for info in archive.infolist()) > LARGEST:
        raise ValueError(f"it unfolds into more than {MOST_ARRAYS} arrays or {LARGEST / 1e6:.0f} MB")
    return names


def _array(archive: zipfile.ZipFile, name: str) -> Tensor:
    """One array of numbers, whose size is compared with its header before any memory is taken. Nothing is unpickled."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"{name} is an array of the unknown version {version}")
        shape, columns, dtype = read(file)
        count = math.prod(shape)
        if dtype.kind not in "fiub" or count * dtype.itemsize != size - file.tell():
            raise ValueError(f"{name} holds no numbers, or not as many as it says")
        array = np.frombuffer(bytearray(file.read()), dtype=dtype)
    if len(array) != count:
        raise ValueError(f"{name} is cut off")
    return torch.from_numpy(array.reshape(shape, order="F" if columns else "C").astype(dtype.newbyteorder("=")))
