"""Fit what counts as a trace of a class in an image: without one, no sentence may name it.

On photographs that were held out and of which every box is known, a logistic regression weighs the detector's best
logit of a class, the proposal classifier's best logit of a proposal, and its logit of the image. The least log-odds
that allow a name are those with which captions of these photographs do best: the share that names what is there less
the share that names what is not.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmcli.engine.collect import complete
from mmcli.models.loaded import Loaded
from mmcli.models.nano.capabilities import BEAMS
from mmcli.models.nano.config import CLASSES, EVIDENCE, NanoConfig
from mmcli.models.nano.finding import look
from mmcli.models.nano.sentences import Wording
from mmcli.training.recipes.nano.annotations import COCO_CLASSES, Photo
from mmcli.training.recipes.nano.boxes import BATCH, image
from mmcli.training.recipes.nano.caption_metrics import CAPTION, LONGEST
from mmcli.training.recipes.nano.hallucination import chair
from mmcli.training.recipes.nano.regression import logistic

SMALL = 0.02  # share of the image below which an object need leave no trace
ROWS = 16  # captions written side by side
SHARES = (0.8, 0.85, 0.88, 0.91, 0.94, 0.97)  # of the objects that are there and not small: how many may be named


@torch.inference_mode()
def traces(loaded: Loaded, data: Path, photos: Sequence[Photo]) -> np.ndarray:
    """What is weighed, for each photograph and class [photos, 80, EVIDENCE]."""
    rows = []
    for start in range(0, len(photos), BATCH):
        seen = look(loaded, [image(data, photo) for photo in photos[start : start + BATCH]])
        detector = torch.cat([out[:, :CLASSES].float().flatten(2) for out in seen.raw], 2).amax(2)
        parts = (torch.ones_like(detector), detector, seen.classified.amax(1), seen.there)
        rows.append(torch.stack(parts, -1).cpu().numpy())
    return np.concatenate(rows).astype(float)


def fit(found: np.ndarray, photos: Sequence[Photo]) -> tuple[tuple[float, ...], np.ndarray, np.ndarray]:
    """The weights, and of what they were fitted to: log-odds of the objects that are there, and of the absent."""
    there, absent = (np.zeros(found.shape[:2], bool) for _ in range(2))
    for row, photo in enumerate(photos):
        area = dict.fromkeys(COCO_CLASSES, 0.0)
        for obj in photo.objects:
            if obj.label in area:
                x0, y0, x1, y1 = obj.box
                area[obj.label] += (x1 - x0) * (y1 - y0)
        there[row] = [area[label] > SMALL for label in COCO_CLASSES]
        absent[row] = [area[label] == 0 and label not in photo.doubtful for label in COCO_CLASSES]
    x = np.concatenate((found[there], found[absent]))
    y = np.repeat([1.0, 0.0], [there.sum(), absent.sum()])
    weights = logistic(x, y)
    return tuple(round(float(w), 4) for w in weights), found[there] @ weights, found[absent] @ weights


def choose(loaded: Loaded, data: Path, photos: Sequence[Photo]) -> dict:
    """`evidence` and `least_evidence` of config.json. Prints what each limit gives."""
    weights, there, absent = fit(traces(loaded, data, photos), photos)
    if len(weights) != EVIDENCE:
        raise ValueError(f"expected {EVIDENCE} weights, found {len(weights)}")
    own = [{obj.label for obj in photo.objects} | photo.doubtful for photo in photos]
    best = (-np.inf, 0.0)
    for share in SHARES:
        least = round(float(np.quantile(there, 1 - share)), 3)
        config = replace(loaded.config, evidence=weights, least_evidence=least)
        loaded.model.config = config
        rates = chair(captions(loaded, data, photos, config), own)
        passed = float((absent >= least).mean())
        print(f"names with log-odds of {least}: {share:.2f} of what is there, {passed:.4f} of the absent, {rates}")
        best = max(best, (rates["named"] - rates["sentences"], least))
    loaded.model.config = loaded.config
    return {"evidence": list(weights), "least_evidence": best[1]}


def captions(loaded: Loaded, data: Path, photos: Sequence[Photo], config: NanoConfig) -> list[str]:
    processor: Any = loaded.processor  # nano's own
    texts = []
    for start in range(0, len(photos), ROWS):
        images = [image(data, photo) for photo in photos[start : start + ROWS]]
        inputs = replace(processor.rows([CAPTION] * len(images)), context=look(loaded, images))
        inputs = replace(inputs, processor=Wording(config, config.sentences.prompts[:1] * len(images)))
        settings: dict[str, Any] = {"stop_ids": processor.stop_ids, "max_tokens": LONGEST, "beams": BEAMS}
        texts += [processor.decode(answer.ids).strip() for answer in complete(loaded.model, inputs, **settings)]
    return texts
