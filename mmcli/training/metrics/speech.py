"""Word and character error rates, by jiwer, of texts whose letters' case and punctuation do not count."""

import re
import unicodedata
from collections.abc import Sequence

from mmcli.training.metrics.library import library

_APOSTROPHE = re.compile(r"[’ʼ`´]")


def normalised(text: str) -> str:
    """A text in lower case without punctuation, each word one space from the next; apostrophes within words stay."""
    plain = _APOSTROPHE.sub("'", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in plain)
    return " ".join(word for part in kept.split() if (word := part.strip("'")))


def error_rates(wanted: Sequence[str], got: Sequence[str]) -> dict[str, float]:
    """Word and character error rates of texts against references, over all of them together; 0 is best.

    A reference without words is left out, as nothing can be counted by it. Raises UsageError without jiwer.
    """
    jiwer = library("jiwer", "WER")
    pairs = [(normalised(one), normalised(other)) for one, other in zip(wanted, got, strict=True)]
    pairs = [(one, other) for one, other in pairs if one]
    if not pairs:
        return {}
    references, texts = [one for one, _ in pairs], [other for _, other in pairs]
    return {"WER": float(jiwer.wer(references, texts)), "CER": float(jiwer.cer(references, texts))}
