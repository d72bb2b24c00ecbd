"""The published MiniCPM-V checkpoints: what their config.json files say, and how large their weights are.

2.0 and 2.5 as mirrored at github.com/HwwwwwwwH/MiniCPM-V-2 and github.com/theonlyengine/VQA_Model, whose
model.safetensors.index.json files also list every tensor. 2.6 by its published code (configuration_minicpm.py); its
decoder's settings, its tensors and their size as github.com/thanhtantran/MiniCPM-V-2_6-rkllm has them. 1.0 by its
published code (modeling_minicpmv.py, as at github.com/dubai03nsr/multimodal-contrastive-decoding) and the sizes of 2.0,
whose tower and decoder it has.
"""

from minicpmv_folders import SO400M

_SECOND = {
    "2.0": {
        "model_type": "minicpmv", "vocab_size": 122753, "hidden_size": 2304, "intermediate_size": 5760,
        "num_hidden_layers": 40, "num_attention_heads": 36, "num_key_value_heads": 36, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": False,
        "max_position_embeddings": 4096, "query_num": 64, "slice_mode": True, "drop_vision_last_layer": True,
        "vision_encoder": "vit_so400m_patch14_siglip_384.webli", "patch_size": 14, "max_slice_nums": 9,
        "scale_resolution": 448, "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256, "bos_token_id": 1,
        "eos_token_id": 2,
    },
}  # fmt: skip
_SLICED = ("slice_mode", "max_slice_nums", "scale_resolution", "patch_size")
_FIRST = {key: value for key, value in _SECOND["2.0"].items() if key not in _SLICED} | {"image_size": 448}
PUBLISHED = {"1.0": _FIRST} | _SECOND | {
    "2.5": {
        "model_type": "minicpmv", "version": "2.5", "vocab_size": 128256, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": None,
        "tie_word_embeddings": False, "max_position_embeddings": 8192, "query_num": 96, "slice_mode": True,
        "drop_vision_last_layer": False, "patch_size": 14, "slice_config": {"max_slice_nums": 9, "patch_size": 14},
        "vision_config": SO400M | {"model_type": "idefics2", "image_size": 980, "patch_size": 14},
        "bos_token_id": 128000, "eos_token_id": 128001,
    },
    "2.6": {
        "model_type": "minicpmv", "version": 2.6, "vocab_size": 151666, "hidden_size": 3584,
        "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": False,
        "max_position_embeddings": 32768, "use_sliding_window": False, "sliding_window": 131072, "query_num": 64,
        "slice_mode": True, "drop_vision_last_layer": False, "patch_size": 14,
        "slice_config": {"max_slice_nums": 9, "patch_size": 14},
        "vision_config": SO400M | {"model_type": "siglip", "image_size": 980, "patch_size": 14},
        "bos_token_id": 151643, "eos_token_id": 151645,
    },
}  # fmt: skip
BYTES = {"1.0": 6_869_931_584, "2.0": 6_869_931_584, "2.5": 34_148_369_344, "2.6": 16_198_350_304}
WIDE = {"1.0": 2, "2.0": 2, "2.5": 4, "2.6": 2}  # bytes of a number in these files
