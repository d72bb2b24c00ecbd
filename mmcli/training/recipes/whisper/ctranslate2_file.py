"""Reading the `model.bin` of CTranslate2: Whisper's weights under that program's names, as Hugging Face names them."""

import struct
from pathlib import Path

import numpy as np

TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
VERSION = 6

NORMS = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
PARTS = {  # of a layer: what is stacked in one of theirs
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
WHOLE = {
    "position_encodings/encodings": "embed_positions.weight",
    "embeddings/weight": "embed_tokens.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
    "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias",
    "conv2/weight": "conv2.weight",
    "conv2/bias": "conv2.bias",
}


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Name → array of every variable, scalars included. Raises ValueError for another version or a cut-off file."""
    raw, place = path.read_bytes(), 0

    def take(form: str) -> int:
        nonlocal place
        value = struct.unpack_from("<" + form, raw, place)[0]
        place += struct.calcsize("<" + form)
        return value

    def text() -> str:
        nonlocal place
        length = take("H")
        place += length
        return raw[place - length : place - 1].decode()  # a zero closes it

    if take("I") != VERSION:
        raise ValueError(f"{path} is not of version {VERSION}")
    if text() != "WhisperSpec":
        raise ValueError(f"{path} holds no Whisper")
    take("I")  # revision of the specification
    found = {}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        kind, size = TYPES[take("B")], take("I")
        found[name] = np.frombuffer(raw, kind, size // np.dtype(kind).itemsize, place).reshape(shape)
        place += size
    return found


def hugging_face_names(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under Hugging Face's names, q, k and v apart; k's bias must be zero and is dropped."""
    found = {}
    for name, value in variables.items():
        if value.ndim == 0 or name.split("/")[-1].startswith("alignment"):
            continue
        side, rest = name.split("/", 1)
        if rest in WHOLE:
            found[f"model.{side}.{WHOLE[rest]}"] = value
            continue
        layer, part, kind = rest.split("/", 1)[0], rest.split("/", 1)[1].rpartition("/")[0], rest.rpartition("/")[2]
        targets = PARTS[part]
        for target, piece in zip(targets, np.split(value, len(targets)), strict=True):
            if target.endswith("k_proj") and kind == "bias":
                if piece.any():
                    raise ValueError(f"{name}: the keys have a bias")
                continue
            found[f"model.{side}.layers.{layer.removeprefix('layer_')}.{target}.{NORMS[kind]}"] = piece
    return found
