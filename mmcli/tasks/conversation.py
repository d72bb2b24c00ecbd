"""A conversation with one model: its turns, and what the model keeps of them from one answer to the next."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from mmcli.errors import InputError, ModelError, UsageError
from mmcli.hub.fields import Fields
from mmcli.models.offered import any_of, such_as
from mmcli.tasks.answer import in_words
from mmcli.tasks.task import Request, text_of
from mmcli.types import Part, Turn

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.engine.generate import TokenEvent
    from mmcli.engine.inputs import Inputs
    from mmcli.engine.kv_cache import KVCache
    from mmcli.models.family import Capabilities
    from mmcli.models.loaded import Loaded
    from mmcli.types import Completion

Steps: TypeAlias = "Generator[list[TokenEvent]]"  # of the one row that a conversation is

ANSWER_TOKENS = 1024  # a turn's limit where nobody says: those who converse are given whole paragraphs
TRIMMED = 8  # tokens of white space at an answer's end, at most, that a template may cut off


def audio_seconds(able: "Capabilities", model: str) -> float:
    """The longest audio, in seconds, that may be one part of a prompt. ModelError if the model takes none."""
    if not able.audio or able.max_audio_seconds is None:
        raise ModelError(
            f"{model} takes no audio",
            f"Choose a model that does, such as {such_as('audio')}, or write the words down with mmcli transcribe",
        )
    return able.max_audio_seconds


class Conversation:
    """Questions to one model, each with images and recordings of its own, and the answers.

    A model that knows turns reads only what is new: the rest stands in its cache. What the cache holds is known as
    text, and kept as far as the template's text of all turns begins with that; so it does not matter what a template
    does to earlier turns. With a model that knows none, every question stands alone.
    """

    def __init__(self, loaded: "Loaded", system: str = ""):
        """`system` says how to answer. Raises ModelError if the model takes no such text."""
        if system and not loaded.processor.capabilities.turns:
            raise ModelError(
                f"{loaded.checkpoint.name} takes no --system text: it answers every question alone",
                f"Leave it out, or choose a model that converses, such as {such_as('turns')}",
            )
        self.loaded = loaded
        self.keeps_turns = loaded.processor.capabilities.turns
        self.context = _context(loaded.checkpoint.config)
        self._opening = [Turn("system", (text_of(system),))] if system else []
        self.clear()

    def clear(self) -> None:
        """Forget every turn but the system's."""
        self.turns: list[Turn] = list(self._opening)
        self.full = False  # whether the last answer was cut off because the model reads no more
        self._cache: KVCache | None = None
        self._forget()

    def _forget(self) -> None:
        """Take nothing in the cache as read."""
        self._read_text = ""  # the template's text that was read before the last answer
        self._turns_read = 0  # … which is that of so many turns
        self._start = 0  # … and so many places of the cache
        self._ids: list[int] = []  # the last answer; the cache holds all of it, or all but its last token
        if self._cache is not None:
            _truncate(self._cache, 0)

    def ask(
        self,
        request: Request,
        parts: Sequence[Part] = (),
        on_token: Callable[[int, int], None] | None = None,
    ) -> "Completion":
        """Ask, and give `on_token` every token as it is written; the rest as for `asking`."""
        from mmcli.engine.collect import drive

        return drive(self.asking(request, parts), on_token)

    def asking(self, request: Request, parts: Sequence[Part] = ()) -> "Generator[tuple[int, int], None, Completion]":
        """Ask about `parts` and, where the model knows turns, all that came before; yields (0, token) as they come.

        Ctrl-C ends the answer, and what was written by then stays. Before the first token it is raised on
        (KeyboardInterrupt) and the question is as good as never asked, as after every error: InputError where the
        conversation is longer than the model reads, UsageError and ModelError where the model cannot take it.
        """
        started = time.perf_counter()
        self._check_number(Turn("user", tuple(parts)).images())
        prompt = request.prompt_for(self.loaded.processor)
        if not self.keeps_turns:
            images = Turn("user", tuple(parts)).images()
            inputs = self.loaded.processor.inputs([images], [prompt])
            return (yield from self._writing(self._steps(inputs, request, request.token_limit), started))
        turns = [*self.turns, Turn("user", (*parts, prompt))]
        text = self.loaded.processor.apply_chat_template(turns)
        cache, inputs = self._unread(text, turns)
        wanted = request.max_tokens or ANSWER_TOKENS
        room = self._room(cache.length + inputs.tokens.shape[1], wanted)
        steps = self._steps(inputs, request, min(wanted, room), cache)
        completion = yield from self._writing(self._kept(steps, cache, text, len(turns)), started)
        self.turns = [*turns, Turn("model", (self.loaded.processor.decode(completion.ids),))]
        self.full = room < wanted and not completion.ended and not completion.stopped
        return completion

    @property
    def images_needed(self) -> int:
        """How many images every question must be about, at least."""
        return self.loaded.processor.capabilities.images_needed

    def remark(self, parts: Sequence[Part]) -> str | None:
        """What is to be said of a question about `parts`: that it is about more images than the model is used to."""
        usual = self.loaded.processor.capabilities.usual_images
        images = sum(len(turn.images()) for turn in (*self.turns, Turn("user", tuple(parts))))
        if usual is None or images <= usual:
            return None
        number = "one picture" if usual == 1 else f"{usual} pictures"
        return f"trained on prompts about {number}; this one is about {images}, and the answer may mix them up"

    def _check_number(self, images: "list[Image.Image]") -> None:
        able, name = self.loaded.processor.capabilities, self.loaded.checkpoint.name
        if images and not able.images:
            raise ModelError(f"{name} takes no pictures", f"Use {any_of('images')}")
        least, most = able.images_needed, able.max_images
        if least <= len(images) and (most is None or len(images) <= most):
            return
        wanted = least if len(images) < least else most
        number = "one picture" if wanted == 1 else f"{wanted} pictures"
        if not images:
            raise UsageError(
                f"{name} answers questions about {number}, but none was given",
                "Name one after mmcli chat, or with /image PATH in a conversation",
            )
        several = "Leave out the others, or choose a model that takes several, with --model"
        raise UsageError(
            f"{name} answers questions about {number} at a time, but {len(images)} were given",
            "Name more" if len(images) < least else several,
        )

    def _unread(self, text: str, turns: list[Turn]) -> "tuple[KVCache, Inputs]":
        """The cache, cut back to what it shares with `text`, the template's of `turns`, and the rest of that text."""
        processor = self.loaded.processor
        if self._cache is None:
            self._cache = self.loaded.model.new_cache(1, 1)
        cache = self._cache
        if processor.capabilities.rereads_for_images and any(one.images() for one in turns[self._turns_read :]):
            self._forget()
        rest, ids, new = text, [], turns
        for count in dict.fromkeys([*range(len(self._ids), max(len(self._ids) - TRIMMED, 0), -1), 0]):
            before = self._read_text + processor.decode(self._ids[:count])
            if text.startswith(before):
                read = min(count, cache.length - self._start)
                _truncate(cache, self._start + read)
                rest, ids, new = text[len(before) :], self._ids[read:count], turns[self._turns_read :]
                break
        else:
            self._forget()
        images = [image for turn in new for image in turn.images()]
        audios = [audio for turn in new for audio in turn.audios()]
        return cache, _behind(ids, processor.text_inputs(rest, images, audios))

    def _room(self, length: int, wanted: int) -> int:
        """How many tokens may follow `length` of them; `wanted` where the model names no limit."""
        if self.context is None:
            return wanted
        if length >= self.context:
            begun = len(self.turns) > len(self._opening)
            raise InputError(
                f"That would make {length} tokens, and {self.loaded.checkpoint.name} reads {self.context} at most",
                "Keep the conversation with /save FILE if you like, and begin another with /clear"
                if begun
                else "Ask about less: fewer pictures, shorter recordings, a shorter text",
            )
        return self.context - length

    def _steps(self, inputs: "Inputs", request: Request, limit: int, cache: "KVCache | None" = None) -> Steps:
        from mmcli.engine.generate import generate
        from mmcli.engine.sampling import Sampling

        sampling = Sampling(request.temperature, request.top_k, request.top_p, request.seed)
        stop_ids = self.loaded.processor.stop_ids
        return generate(self.loaded.model, inputs, stop_ids=stop_ids, max_tokens=limit, sampling=sampling, cache=cache)

    def _kept(self, steps: Steps, cache: "KVCache", text: str, turns: int) -> Steps:
        """Pass steps on, and keep account of what the cache holds, whatever ends them."""
        before = good = cache.length
        try:
            for [event] in steps:
                if good == before:  # all of `text` is read
                    self._read_text, self._turns_read, self._start, self._ids = text, turns, cache.length, []
                good = cache.length
                if event.id not in self.loaded.processor.stop_ids:
                    self._ids.append(event.id)
                yield [event]
        finally:
            _truncate(cache, good)  # an interrupted step may have begun another place

    def _writing(self, steps: Steps, started: float) -> "Generator[tuple[int, int], None, Completion]":
        """The tokens that come of `steps` → the answer; of one that Ctrl-C ends, what was written by then."""
        from mmcli.engine.collect import collecting

        stop_ids = self.loaded.processor.stop_ids
        try:
            [completion] = yield from collecting(steps, 1, stop_ids, started=started, interruptible=True)
        except RuntimeError as error:
            raise in_words(error, 1, "question") from error
        return completion


def _truncate(cache: "KVCache", length: int) -> None:
    import torch

    with torch.inference_mode():  # the cache has grown within it
        cache.truncate(length)


def _behind(ids: list[int], inputs: "Inputs") -> "Inputs":
    """The same row behind tokens that were written and not read yet."""
    if not ids:
        return inputs
    import torch

    first = torch.tensor([ids])
    tokens = torch.cat((first, inputs.tokens), dim=1)
    valid = torch.cat((torch.ones_like(first, dtype=torch.bool), inputs.valid), dim=1)
    return replace(inputs, tokens=tokens, valid=valid)


def _context(raw: dict[str, Any]) -> int | None:
    """How many tokens a model was made to read, from its config.json; None where that does not say."""
    whole = Fields(raw, "config.json")
    text = whole.part("text_config") if "text_config" in whole else whole
    return text.maybe_whole("max_position_embeddings", 1, 1 << 30)
