"""Whether the network is forbidden, by `--offline` (which sets the first of these variables) or by the environment."""

import os

VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # the first that is set counts, as in huggingface_hub


def is_offline() -> bool:
    """Whether nothing may be fetched: no model, no image, no audio."""
    value = next((value for value in map(os.environ.get, VARIABLES) if value), "")
    return value.upper() in ("1", "ON", "YES", "TRUE")
