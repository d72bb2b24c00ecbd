"""The record: what mmcli says about one input, field by field.

A record is about images (`caption`, `detect`, `segment`, `chat`), about a recording (`transcribe`), or it tells of an
input that failed: each field says by its `Doc` which of them have it. From these classes come the JSON that is written
(`output/record.py`), the JSON Schema and the page that describes it (`output/json_schema.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from mmcli.output.kinds import ANSWER, AUDIO, FAILED, IMAGE
from mmcli.rle import Mask
from mmcli.types import Doc, Segment, brief
from mmcli.version import __version__

SCHEMA: Final = 2


Quad = tuple[float, float, float, float, float, float, float, float]  # four corners x0, y0, … x3, y3


@dataclass(frozen=True)
class Object:
    """One object that was found in an image."""

    label: Annotated[str, Doc("What it is, as it was asked for.")]
    box: Annotated[
        tuple[float, float, float, float],
        Doc(
            "Its edges x0, y0, x1, y1 in pixels of the image as displayed, from the upper left corner. A point, which "
            "has no extent, has its place twice.",
            digits=2,
        ),
    ]
    raw_box: Annotated[
        tuple[int, ...],
        Doc(
            "The integers that the model wrote for the box, in its own order and scale: <locNNNN> are y0, x0, y1, x1 "
            "from 0 to 1023, <loc_NNN> x0, y0, x1, y1 from 0 to 999, <box> y0, x0, y1, x1 and <point> x, y in half "
            "pixels of the image as the model saw it. Of a quad they are x and y of each corner; of polygons the box "
            "around them."
        ),
    ]
    score: Annotated[
        float | None,
        Doc(
            "Mean log-probability of the object's own tokens, no probability; null where it wrote none. Of boxes that "
            "were given to be outlined, like the probability, what the model that found them said.",
            digits=4,
        ),
    ] = None
    probability: Annotated[
        float | None, Doc("How likely it is right, from models that are calibrated.", optional=True, digits=4)
    ] = None
    found_by: Annotated[
        str | None, Doc("Which part of a model with several found it: decoder, detector or both.", optional=True)
    ] = None
    mask: Annotated[Mask | None, Doc("Its outline, from segment.", optional=True)] = None
    quad: Annotated[
        Quad | None,
        Doc(
            "Of text that was read: its four corners x0, y0, … x3, y3 in pixels, in the order in which they were "
            "written; the box holds them.",
            optional=True,
            digits=2,
        ),
    ] = None

    def __repr__(self) -> str:
        return brief(self, without=("raw_box",))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the answer depends on beside the input, the model and the prompt. What does not apply is left out."""

    temperature: Annotated[
        float | None,
        Doc(
            "0: the likeliest token. Left out of a transcript: 0, and warmer where that fails.",
            optional=True,
        ),
    ] = None
    top_k: Annotated[int | None, Doc("Draw among so many tokens.", optional=True)] = None
    top_p: Annotated[float | None, Doc("Draw among tokens that have this probability in all.", optional=True)] = None
    seed: Annotated[int | None, Doc("Of what is drawn.", optional=True)] = None
    max_tokens: Annotated[int | None, Doc("The most that an answer may have.", optional=True)] = None
    beams: Annotated[int | None, Doc("Texts that were followed side by side.", optional=True)] = None
    min_score: Annotated[float | None, Doc("Less likely objects were left out.", optional=True)] = None
    nms: Annotated[
        float | None,
        Doc("Of objects of one label that overlapped by more than this share the better were kept.", optional=True),
    ] = None
    max_objects: Annotated[int | None, Doc("Only so many of the best were kept.", optional=True)] = None
    loc_divisor: Annotated[int | None, Doc("1024 where boxes are not read in 1023rds of a side.", optional=True)] = None
    mask_decoder: Annotated[str | None, Doc("The file that decoded masks, if one was named.", optional=True)] = None
    boxes_by: Annotated[str | None, Doc("The model that found the boxes, where they were given.", optional=True)] = None
    system: Annotated[str | None, Doc("How the model is to answer.", optional=True)] = None
    language: Annotated[str | None, Doc("The language that was given, not found out.", optional=True)] = None
    hint: Annotated[str | None, Doc("Words that might be said, as they are spelt.", optional=True)] = None
    words: Annotated[bool | None, Doc("Whether times of words were asked for.", optional=True)] = None
    start: Annotated[float | None, Doc("Seconds of the recording that were passed over.", optional=True)] = None
    duration: Annotated[float | None, Doc("Seconds of the recording that were used from there.", optional=True)] = None
    track: Annotated[int | None, Doc("The audio track that was chosen, from 1.", optional=True)] = None
    dtype: Annotated[str | None, Doc("Type in which the model computed.", optional=True)] = None
    adapter: Annotated[str | None, Doc("Weights that were put on top of the model's.", optional=True)] = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """What mmcli says about one input."""

    schema: Annotated[int, Doc("The version of this form.")] = SCHEMA
    task: Annotated[str, Doc("caption, detect, segment, read, chat, transcribe or translate.")]
    source: Annotated[
        str | tuple[str, ...] | None,
        Doc("The input as it was named; of a question about several things a list, about nothing null."),
    ]
    model: Annotated[str, Doc("The model as it was named.")]
    revision: Annotated[str | None, Doc("The model's commit on the hub; null for folders and bundled models.")] = None
    version: Annotated[str, Doc("The version of mmcli.")] = __version__
    key: Annotated[
        str | None,
        Doc(
            "A hash of all that decides the answer: task, model and its weights, prompt, settings, and the input by "
            "name, size and time of change. A record with the key of a run still answers it. Null where the input "
            "cannot be told apart (a pipe), where earlier turns of a conversation decide too, and where no model was "
            "needed.",
            of=ANSWER,
        ),
    ] = None
    settings: Annotated[Settings, Doc("What else the answer depends on.")] = Settings()
    width: Annotated[int | None, Doc("Pixels of the image as it is displayed, after its EXIF turn.", of=IMAGE)] = None
    height: Annotated[int | None, Doc("The same, downwards; null where there is not one image.", of=IMAGE)] = None
    time: Annotated[
        float | None,
        Doc("Of a frame of a video: seconds from its beginning.", of=IMAGE, optional=True, digits=3),
    ] = None
    frame: Annotated[
        int | None,
        Doc(
            "Its number, from 0: the time in frames of the video's average rate, which counts them where that is "
            "constant.",
            of=IMAGE,
            optional=True,
        ),
    ] = None
    seconds: Annotated[float | None, Doc("Where in the recording reading ended.", of=AUDIO, digits=3)] = None
    language: Annotated[str | None, Doc("The language that most of it is in; null where none is known.", of=AUDIO)] = (
        None
    )
    prompt: Annotated[str, Doc("The text that went to the model.", of=IMAGE)] = ""
    text: Annotated[str, Doc("The whole answer.", of=ANSWER)] = ""
    truncated: Annotated[bool, Doc("Whether the model had not finished.", of=ANSWER)] = False
    objects: Annotated[tuple[Object, ...], Doc("What was found, in the order of the answer.", of=IMAGE)] = ()
    segments: Annotated[tuple[Segment, ...], Doc("What is said, in the order of time.", of=AUDIO)] = ()
    timestamps: Annotated[
        str | None,
        Doc("What the model gives times of: segment, word, or window, which is the stretch it was given.", of=AUDIO),
    ] = None
    problems: Annotated[tuple[str, ...], Doc("Faults of the answer.", of=IMAGE)] = ()
    notes: Annotated[tuple[str, ...], Doc("What happened to the input on its way in.", of=ANSWER)] = ()
    timings: Annotated[
        Mapping[str, float],
        Doc(
            "Of images seconds: load is the image's own, prefill that of the batch it was read in, whose size stands "
            "beside it, and decode from there to the end of the batch, or of this answer where each ends by itself; "
            "then the number of tokens written for this image. Of recordings: read and model are seconds, "
            "real_time_factor their share of the recording, windows a count, left_out and unused seconds of audio "
            "without speech and without words.",
            of=ANSWER,
            digits=4,
        ),
    ] = field(default_factory=dict)
    token_ids: Annotated[tuple[int, ...] | None, Doc("What the model wrote, on request.", of=ANSWER, optional=True)] = (
        None
    )
    error: Annotated[str | None, Doc("Why the input failed.", of=FAILED, optional=True)] = None

    def __repr__(self) -> str:
        return brief(self, without=("schema", "version", "key", "settings", "timings"))

    @property
    def kind(self) -> str:
        """Which fields it has: those of an "image", of "audio", or of what "failed"."""
        return "failed" if self.error is not None else "image" if self.timestamps is None else "audio"
