"""CIDEr-D (Vedantam et al., arXiv:1411.5726): how like five people's sentences a caption is, weighed by rarity."""

import math
import re
from collections import Counter

LENGTHS = (1, 2, 3, 4)
SIGMA = 6.0  # of the penalty on differing lengths


def cider(captions: list[str], references: list[list[str]]) -> float:
    """Mean CIDEr-D over images, 0 to 10; document frequencies come from the references themselves."""
    truth = [[_grams(sentence) for sentence in sentences] for sentences in references]
    frequency: Counter = Counter()
    for sentences in truth:
        frequency.update({gram for grams in sentences for gram in grams})
    images = math.log(max(len(references), 2))
    scores = [_one(_grams(c), t, frequency, images) for c, t in zip(captions, truth, strict=True)]
    return sum(scores) / len(scores) if scores else 0.0


def _grams(sentence: str) -> Counter:
    words = re.findall(r"[a-z0-9']+", sentence.lower())
    return Counter(tuple(words[i : i + n]) for n in LENGTHS for i in range(len(words) - n + 1))


def _one(caption: Counter, references: list[Counter], frequency: Counter, images: float) -> float:
    def vector(grams: Counter, n: int) -> dict:
        weights = {g: c * (images - math.log(max(frequency[g], 1))) for g, c in grams.items() if len(g) == n}
        return weights

    def length(grams: Counter) -> int:
        return sum(c for g, c in grams.items() if len(g) == 1)

    total = 0.0
    for reference in references:
        penalty = math.exp(-((length(caption) - length(reference)) ** 2) / (2 * SIGMA**2))
        for n in LENGTHS:
            a, b = vector(caption, n), vector(reference, n)
            norm = math.sqrt(sum(v * v for v in a.values())) * math.sqrt(sum(v * v for v in b.values()))
            if norm:
                total += penalty * sum(min(a[g], b[g]) * b[g] for g in a if g in b) / norm
    return 10 * total / (len(LENGTHS) * len(references))
