"""How a checkpoint's publisher had it write: beams, and what it may not write."""

from pathlib import Path

from mmcli.engine.search import Search
from mmcli.hub.fields import ID, Fields
from mmcli.hub.json_files import read_json
from mmcli.models.florence2.capabilities import BEAMS
from mmcli.models.florence2.config import Florence2Config

MOST_BEAMS = 64
# What transformers does where generation_config.json leaves something out.
ABSENT = {"num_beams": 1, "length_penalty": 1.0, "early_stopping": False, "no_repeat_ngram_size": 0}
# What the vendor's repositories say in text_config, the only place where its code looked.
PUBLISHED = {
    "num_beams": BEAMS, "length_penalty": 1.0, "early_stopping": True, "no_repeat_ngram_size": 3,
    "forced_bos_token_id": 0, "forced_eos_token_id": 2,
}  # fmt: skip


def read_search(folder: Path, config: Florence2Config, text_config: object) -> Search:
    """The settings in a checkpoint's files, else the published ones. Raises ModelError for what is not known."""
    path = folder / "generation_config.json"
    if config.native and path.is_file():
        fields = Fields(read_json(path), str(path), ABSENT)
    else:
        fields = Fields(text_config or {}, "This Florence-2's config.json", PUBLISHED, "text_config.")
    fields.require("do_sample", False, None)
    end = fields.maybe_whole("forced_eos_token_id", *ID)
    if end not in (None, config.text.eos):
        raise fields.wrong("forced_eos_token_id", f"the token that ends answers, {config.text.eos}")
    return Search(
        beams=fields.whole("num_beams", 1, MOST_BEAMS),
        length_penalty=fields.number("length_penalty", -10, 10),
        early_stopping=fields.flag("early_stopping"),
        no_repeat=fields.whole("no_repeat_ngram_size", 0, 1024),
        first=fields.maybe_whole("forced_bos_token_id", 0, config.text.vocabulary - 1),
        forced_end=end is not None,
    )
