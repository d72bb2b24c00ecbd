"""Where models lie and what they consist of: the bundled ones, and the files of any checkpoint."""

from pathlib import Path

from mmcli.hub.known_models import KNOWN

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {model.name: ASSETS / model.name for model in KNOWN if model.bundled}

# What a checkpoint may consist of; code is never fetched, and pickles only where there are no other weights.
PATTERNS = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "chat_template.jinja")
