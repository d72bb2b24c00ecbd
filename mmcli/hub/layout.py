"""Where models lie and what they consist of: the bundled ones, and the files of any checkpoint."""

from pathlib import Path

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {"nano": ASSETS / "nano", "whisper-tiny.en": ASSETS / "whisper-tiny.en"}

# What a checkpoint may consist of; code and pickles are never fetched.
PATTERNS = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "chat_template.jinja")
