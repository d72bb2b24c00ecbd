"""64 × 64 masks of objects, cut to their boxes: from polygons drawn by hand, else from maps of classes."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmcli.training.recipes.nano.annotations import VOC20, LabelledBox, Photo, overlap

SIDE = 64
FIT = 0.6  # how well the class's own extent must fill the box
ALONE = 0.15  # how much of the box another object of the class may share


def collect(photos: list[Photo], folder: Path) -> np.ndarray:
    """Number the masks into the photos' objects; return them all, uint8 [count, 64, 64], 0 to 255."""
    masks: list[np.ndarray] = []
    with zipfile.ZipFile(folder / "class_maps.zip") as maps:
        names = {Path(name).stem: name for name in maps.namelist()}
        for photo in photos:
            for i, obj in enumerate(photo.objects):
                if i in photo.polygons:
                    mask = _from_polygons(photo, obj, photo.polygons[i])
                elif obj.label in VOC20 and _alone(photo, obj) and Path(photo.file).stem in names:
                    name = names[Path(photo.file).stem]
                    mask = _from_class_map(np.array(Image.open(io.BytesIO(maps.read(name)))), obj)
                else:
                    continue
                if mask is not None:
                    obj.mask = len(masks)
                    masks.append(mask)
    return np.stack(masks)


def _from_polygons(photo: Photo, obj: LabelledBox, polygons: list) -> np.ndarray | None:
    x0, y0, x1, y1 = obj.box[0] * photo.width, obj.box[1] * photo.height, obj.box[2], obj.box[3]
    width, height = x1 * photo.width - x0, y1 * photo.height - y0
    if width < 4 or height < 4:
        return None
    scale = 4  # drawn larger and reduced, so that the edge is soft
    canvas = Image.new("L", (SIDE * scale, SIDE * scale))
    for polygon in polygons:
        points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
        if len(points) >= 3:
            points = (points - (x0, y0)) / (width, height) * SIDE * scale
            ImageDraw.Draw(canvas).polygon([tuple(p) for p in points], fill=255)
    mask = np.array(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))
    return mask if mask.mean() > 12 else None


def _from_class_map(classes: np.ndarray, obj: LabelledBox) -> np.ndarray | None:
    """The map covers the whole image; class numbers are VOC's, 1 to 20. None where it does not fit the box."""
    inside = classes == 1 + VOC20.index(obj.label)
    side = classes.shape[0]
    x0, y0, x1, y1 = (v * side for v in obj.box)
    if (x1 - x0) < 12 or (y1 - y0) < 12:
        return None
    columns, rows = slice(round(x0), round(x1)), slice(round(y0), round(y1))
    part = inside[rows, columns]
    if part.mean() < 0.15:
        return None
    ys, xs = np.nonzero(part)
    extent = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    if overlap(extent, (0, 0, part.shape[1], part.shape[0])) < FIT:
        return None
    soft = Image.fromarray(inside.astype(np.uint8) * 255)
    return np.array(soft.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1)))


def _alone(photo: Photo, obj: LabelledBox) -> bool:
    box = np.array(obj.box)
    area = np.prod(box[2:] - box[:2])
    for other in photo.objects:
        if other is not obj and other.label == obj.label:
            sides = np.minimum(box[2:], other.box[2:]) - np.maximum(box[:2], other.box[:2])
            if np.prod(np.clip(sides, 0, None)) > ALONE * area:
                return False
    return True
