"""What a question is about: images and recordings, told apart by what is in them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmcli.media.limits import PROBE, WHOLE
from mmcli.tasks.conversation import audio_seconds
from mmcli.types import Audio

if TYPE_CHECKING:
    from mmcli.media.image import LoadedImage
    from mmcli.media.sources import Source
    from mmcli.models.family import Capabilities, Processor
    from mmcli.types import Part

Able = Callable[[], "Capabilities | None"]


@dataclass(frozen=True, eq=False)
class Attachment:
    """An image or a recording that questions are about; `notes` say what happened to it as it was read."""

    source: "Source"
    content: "LoadedImage | Audio"
    notes: tuple[str, ...] = ()
    side: int = WHOLE  # above which an image was read

    @property
    def kind(self) -> str:
        """What it is, "picture" or "recording"."""
        return "recording" if isinstance(self.content, Audio) else "picture"

    def parts(self, processor: "Processor", model: str) -> "tuple[list[Part], tuple[str, ...]]":
        """What the model is given, and what is to be said about it: a recording longer than it reads becomes several.

        Raises ModelError if there is a recording and the model takes no audio. An image that was read before it was
        known how the model reads it is read again: InputError.
        """
        if not isinstance(self.content, Audio):
            from mmcli.media.image import load_image

            side = processor.capabilities.min_read_side
            known = self.side == side or not processor.capabilities.images
            return [(self.content if known else load_image(self.source, side=side)).image], self.notes
        from mmcli.media.mixing import RATE
        from mmcli.output.writers.text import clock
        from mmcli.speech.pauses import cut

        longest = audio_seconds(processor.capabilities, model)
        samples = cut(self.content.samples, longest)
        if len(samples) == 1:
            return [self.content], self.notes
        seconds = clock(sum(map(len, samples)) / RATE)
        note = f"read in {len(samples)} parts of at most {longest:g} s, cut at pauses; all {seconds} are used"
        return [replace(self.content, samples=part) for part in samples], (*self.notes, note)


LONGEST_AUDIO = 5400.0  # seconds: more than any model reads at once


def load_attachment(
    source: "Source", kind: str | None = None, able: Able = lambda: None, model: str = "The model"
) -> Attachment:
    """One source, read for a `model`; `able` tells what it can do, or None where that is not known yet.

    `kind` ("picture" or "recording") says what it must be; else it is what its content is like, or where that does not
    tell, its suffix. Raises InputError where it cannot be read, and ModelError before a recording is decoded if the
    model takes no audio.
    """
    kind = kind or _kind_of(source)
    if kind == "recording":
        from mmcli.media.audio import read_audio

        if known := able():
            audio_seconds(known, model)
        samples, audio = read_audio(source, longest=LONGEST_AUDIO)
        return Attachment(source, Audio(source.name, samples), audio.notes)
    from mmcli.media.image import load_image

    known = able()
    side = PROBE if known is None else known.min_read_side
    image = load_image(source, side=side)
    return Attachment(source, image, image.notes, side)


def _kind_of(source: "Source") -> str:
    """Whether a source is a "picture" or a "recording"."""
    from mmcli.media.sniff import image_format, is_audio
    from mmcli.media.sources import RECORDING_EXTENSIONS

    head = source.head()
    if image_format(head) is None and (is_audio(head) or _suffix(source) in RECORDING_EXTENSIONS):
        return "recording"
    return "picture"


def _suffix(source: "Source") -> str:
    return source.relative.suffix.lower()


def names_of(attachments: Iterable[Attachment]) -> list[str]:
    """What the user calls them."""
    return [attachment.source.name for attachment in attachments]
