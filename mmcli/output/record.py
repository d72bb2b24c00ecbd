"""The record: what mmcli says about one picture or recording, as a plain dict with its keys in a fixed order.

A box is [x0, y0, x1, y1] in pixels of the picture as displayed (after its EXIF turn), from the upper left corner;
`loc` holds the location integers y0 x0 y1 x1 that it came from; a score is the mean log-probability of the object's
own tokens, null where it wrote none; `probability` is how likely the object is right, where a model is calibrated, and
`found_by` says which part of such a model found it; a mask is COCO's compressed run-length encoding of the picture.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmcli.errors import MmcliError
from mmcli.escape import escape_json

SCHEMA = 1

Record = dict[str, Any]


def object_record(
    label: str,
    box: Sequence[float],
    loc: Sequence[int],
    score: float,
    mask: Mapping | None = None,
    probability: float | None = None,
    found_by: str | None = None,
) -> Record:
    """One object; `probability`, `found_by` and `mask` are keys only where there is one.

    A score that is no finite number becomes null.
    """
    entry: Record = {
        "label": label,
        "box": [round(float(edge), 2) for edge in box],
        "loc": [int(value) for value in loc],
        "score": round(score, 4) if math.isfinite(score) else None,
    }
    if probability is not None:
        entry["probability"] = round(probability, 4)
    if found_by is not None:
        entry["found_by"] = found_by
    if mask is not None:
        entry["mask"] = dict(mask)
    return entry


def record(
    *,
    task: str,
    source: str,
    model: str,
    revision: str | None,
    width: int,
    height: int,
    prompt: str,
    text: str,
    truncated: bool = False,
    objects: Sequence[Record] = (),
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
    timings: Mapping[str, float] | None = None,
    token_ids: Sequence[int] | None = None,
) -> Record:
    """The record of a picture that was read and answered.

    `problems` are faults of the answer, `notes` remarks on the picture; `timings` are seconds. `token_ids` is there
    only on request.
    """
    entry: Record = {
        "schema": SCHEMA,
        "task": task,
        "source": source,
        "model": model,
        "revision": revision,
        "width": width,
        "height": height,
        "prompt": prompt,
        "text": text,
        "truncated": truncated,
        "objects": list(objects),
        "problems": list(problems),
        "notes": list(notes),
        "timings": {name: round(seconds, 4) for name, seconds in (timings or {}).items()},
    }
    if token_ids is not None:
        entry["token_ids"] = [int(token) for token in token_ids]
    return entry


def transcript_record(
    *,
    task: str,
    source: str,
    model: str,
    revision: str | None,
    seconds: float,
    language: str | None,
    text: str,
    truncated: bool,
    segments: Sequence[Record],
    timestamps: str,
    notes: Sequence[str] = (),
    timings: Mapping[str, float] | None = None,
    token_ids: Sequence[int] | None = None,
) -> Record:
    """The record of a recording that was heard.

    Segments have `start`, `end` (seconds in the recording), `text`, and `words` where word times were asked for;
    `timestamps` says what the model told times of: "segment", "word", or only "window" (the stretch it was given).
    """
    entry: Record = {
        "schema": SCHEMA,
        "task": task,
        "source": source,
        "model": model,
        "revision": revision,
        "seconds": round(seconds, 3),
        "language": language,
        "text": text,
        "truncated": truncated,
        "segments": list(segments),
        "timestamps": timestamps,
        "notes": list(notes),
        "timings": {name: round(value, 4) for name, value in (timings or {}).items()},
    }
    if token_ids is not None:
        entry["token_ids"] = [int(token) for token in token_ids]
    return entry


def failed_record(*, task: str, source: str, model: str, revision: str | None, error: MmcliError | str) -> Record:
    """The record of a picture that failed; the key `error` marks it."""
    return {
        "schema": SCHEMA,
        "task": task,
        "source": source,
        "model": model,
        "revision": revision,
        "error": str(error),
    }


def to_json_line(entry: Mapping) -> str:
    """A record as one line of JSON with its newline; non-ASCII text is kept, and the line is always valid UTF-8."""
    return to_json(entry) + "\n"


def to_json(entry: Any, indent: int | None = None) -> str:
    """JSON in which no character is invisible or ends a line for some readers: those are written as escapes.

    Among them are halves of surrogate pairs, which names of files that are not UTF-8 hold.
    """
    return escape_json(json.dumps(entry, ensure_ascii=False, allow_nan=False, indent=indent))
