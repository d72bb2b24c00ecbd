"""What a question is about: pictures and recordings, told apart by what is in them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmcli.cli.environment import Environment
from mmcli.cli.options import ModelOptions
from mmcli.cli.start import checkpoint_here
from mmcli.tasks.conversation import audio_seconds
from mmcli.types import Audio

if TYPE_CHECKING:
    from mmcli.media.image import Picture
    from mmcli.media.sources import Source
    from mmcli.models.family import Processor
    from mmcli.types import Part


@dataclass(frozen=True, eq=False)
class Attachment:
    """A picture or a sound that questions are about; `notes` say what happened to it as it was read."""

    source: "Source"
    content: "Picture | Audio"
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What it is, "picture" or "sound"."""
        return "sound" if isinstance(self.content, Audio) else "picture"

    def parts(self, processor: "Processor", model: str) -> "tuple[list[Part], tuple[str, ...]]":
        """What the model is given, and what is to be said about it: a sound longer than it hears becomes several.

        Raises ModelError if there is a sound and the model takes no audio.
        """
        if not isinstance(self.content, Audio):
            return [self.content.image], self.notes
        from mmcli.media.mixing import RATE
        from mmcli.output.writers.text import clock
        from mmcli.speech.pauses import cut

        longest = audio_seconds(processor.capabilities, model)
        samples = cut(self.content.samples, longest)
        if len(samples) == 1:
            return [self.content], self.notes
        seconds = clock(sum(map(len, samples)) / RATE)
        said = f"read in {len(samples)} parts of at most {longest:g} s, cut at pauses; all {seconds} are used"
        return [replace(self.content, samples=part) for part in samples], (*self.notes, said)


LONGEST_SOUND = 5400.0  # seconds: more than any model reads at once


def require_audio(options: ModelOptions) -> None:
    """Raise ModelError where a model that is on this machine takes no audio."""
    checkpoint = checkpoint_here(options)
    if checkpoint is not None:
        from mmcli.models.registry import family_of

        family = family_of(checkpoint.config, checkpoint.name)
        audio_seconds(family.capabilities(family.read_config(checkpoint.config)), options.model)


def load_attachments(
    environment: Environment, names: list[str], kind: str | None = None, model: ModelOptions | None = None
) -> list[Attachment]:
    """Everything that `names` name, read; raises as `load_attachment`."""
    return [load_attachment(source, kind, model) for source in find_attachments(environment, names, kind)]


def find_attachments(environment: Environment, names: list[str], kind: str | None = None) -> "list[Source]":
    """What `names` name: files, folders, globs, addresses, standard input. `kind` as for `load_attachment`."""
    if not names:
        return []
    from mmcli.media.sources import AUDIO_EXTENSIONS, IMAGE_EXTENSIONS, SOUND_EXTENSIONS, expand

    extensions = {"picture": IMAGE_EXTENSIONS, "sound": SOUND_EXTENSIONS, None: IMAGE_EXTENSIONS | AUDIO_EXTENSIONS}
    return list(expand(names, extensions=extensions[kind], stdin=environment.stdin))


def load_attachment(source: "Source", kind: str | None = None, model: ModelOptions | None = None) -> Attachment:
    """One source, read.

    `kind` ("picture" or "sound") says what it must be; else it is what its content is like, or where that does not
    tell, its suffix. Raises InputError where it cannot be read, and ModelError before a sound is decoded that the
    `model` takes no audio.
    """
    kind = kind or _kind_of(source)
    if kind == "sound":
        from mmcli.media.audio import read_sound

        if model is not None:
            require_audio(model)
        samples, sound = read_sound(source, longest=LONGEST_SOUND)
        return Attachment(source, Audio(source.name, samples), sound.notes)
    from mmcli.batch.runner import READ_SIDE
    from mmcli.media.image import load_picture

    picture = load_picture(source, side=READ_SIDE)
    return Attachment(source, picture, picture.notes)


def _kind_of(source: "Source") -> str:
    """Whether a source is a "picture" or a "sound"."""
    from mmcli.media.sniff import is_sound, picture_format
    from mmcli.media.sources import SOUND_EXTENSIONS

    head = source.head()
    if picture_format(head) is None and (is_sound(head) or _suffix(source) in SOUND_EXTENSIONS):
        return "sound"
    return "picture"


def _suffix(source: "Source") -> str:
    return source.relative.suffix.lower()


def names_of(attachments: Iterable[Attachment]) -> list[str]:
    """What the user calls them."""
    return [attachment.source.name for attachment in attachments]
