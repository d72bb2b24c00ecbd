"""When each token was said: the frames that the decoder attends to while it writes (openai/whisper `timing.py`).

Some heads of Whisper's cross-attention follow the audio. Their weights, normalised and smoothed, are a picture of
tokens against frames; the cheapest monotonic path through it (dynamic time warping) gives every token a time.
"""

import numpy as np
import torch

from mmcli.engine.kv_cache import KVCache
from mmcli.models.whisper.features import HOP, RATE
from mmcli.models.whisper.model import EncodedAudio, Whisper
from mmcli.models.whisper.vocabulary import Special

FRAME = 2 * HOP / RATE  # seconds between the encoder's states, which are half as many as the features
SMOOTHED = 7  # frames of the median filter

Heads = tuple[tuple[int, int], ...]


def alignment_heads(special: Special, depth: int, heads: int) -> tuple[Heads, str]:
    """(layer, head) of the heads that follow the audio, and how they are known.

    "alignment heads": the checkpoint names them. "upper half of layers": it does not, so all heads of those layers
    serve, as in openai/whisper; times are coarser.
    """
    if special.alignment_heads:
        return special.alignment_heads, "alignment heads"
    return tuple((layer, head) for layer in range(depth // 2, depth) for head in range(heads)), "upper half of layers"


@torch.inference_mode()
def token_times(
    model: Whisper, encoded: EncodedAudio, prompt: list[int], ids: list[int], end: int, heads: Heads, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Align text with one recording: `ids` without times, behind `prompt` (which ends with <|notimestamps|>).

    Returns the seconds at which each token starts, and at the last place the last one's end [T + 1], and each token's
    probability among text tokens [T].
    """
    watched: dict[int, list[int]] = {}
    for layer, head in heads:
        watched.setdefault(layer, []).append(head)
    tokens = torch.tensor([[*prompt, *ids, end]], device=encoded.device)
    cache: KVCache = model.new_cache(1, tokens.shape[1])
    cache.context = encoded
    encoded.scores = []
    hidden = model.read(tokens, None, cache, watched)
    frames = max(1, min(round(seconds / FRAME), model.config.audio_positions))
    weights = torch.cat([scores[0, :, :, :frames] for scores in encoded.scores]).softmax(dim=-1)
    spread, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    matrix = smooth((weights - mean) / spread.clamp(min=1e-10)).mean(dim=0)
    first = len(prompt) - 1  # what stands at a place is written from the place before it
    path = starts(-matrix[first : first + len(ids) + 1].double().cpu().numpy())
    logits = model.logits(hidden[0, first : first + len(ids)])[:, :end]
    chosen = torch.tensor(ids, device=logits.device)[:, None]
    return path * FRAME, logits.softmax(dim=-1).gather(-1, chosen)[:, 0].cpu().numpy()


def smooth(weights: torch.Tensor) -> torch.Tensor:
    """Median over `SMOOTHED` neighbouring frames, mirrored at the ends: [..., F] → [..., F]."""
    pad = SMOOTHED // 2
    if weights.shape[-1] <= pad:
        return weights
    padded = torch.nn.functional.pad(weights, (pad, pad), mode="reflect")
    return padded.unfold(-1, SMOOTHED, 1).median(dim=-1).values


def starts(cost: np.ndarray) -> np.ndarray:
    """The first frame of each row on the cheapest monotonic path: cost [T, F] → [T].

    Steps go one row on, one frame on, or both (Sakoe & Chiba, 1978). Within a row the recurrence
    D[j] = cost[j] + min(above[j], D[j-1]) is a running minimum of `above` less the row's running sum.
    """
    rows, frames = cost.shape
    total = np.empty((rows, frames))
    total[0] = np.cumsum(cost[0])
    for row in range(1, rows):
        above = total[row - 1].copy()
        np.minimum(above[1:], total[row - 1, :-1], out=above[1:])
        sums = np.cumsum(cost[row])
        total[row] = sums + np.minimum.accumulate(above - (sums - cost[row]))
    found = np.zeros(rows, dtype=np.int64)
    row, frame = rows - 1, frames - 1
    while row > 0:
        if frame == 0:
            break  # all rows before begin at the first frame
        both, up, left = total[row - 1, frame - 1], total[row - 1, frame], total[row, frame - 1]
        if left <= both and left <= up:
            frame -= 1
            continue
        found[row] = frame
        row, frame = row - 1, frame - (both <= up)
    return found
