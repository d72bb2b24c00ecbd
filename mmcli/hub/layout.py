"""Where models lie and what they consist of: the bundled ones, and the files of any checkpoint."""

from pathlib import Path

from mmcli.hub.known import able

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {name: ASSETS / name for name in able(bundled=True)}

# What a checkpoint may consist of; code and pickles are never fetched.
PATTERNS = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "chat_template.jinja")
