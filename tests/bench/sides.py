"""The two things compared: mmcli and transformers, each loading the same folder and answering the same tensors.

Both are timed alike: from inputs in the host's memory to the first token's id, then to the last token's id.
"""

import inspect
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def finished(device: Any) -> float:
    """The time when the device has done all it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


class Mmcli:
    """What `mmcli caption` does, from the model on."""

    def __init__(self) -> None:
        from mmcli.engine.beams import beam_search
        from mmcli.engine.generate import generate
        from mmcli.models.load import load
        from mmcli.models.registry import family_of  # noqa: F401 (part of what is imported before loading)

        self._generate, self._beam_search, self._load = generate, beam_search, load

    def load(self, checkpoint: Any, device: Any, dtype: Any, table: str, is_open: bool, quantize: str = "none") -> str:
        """Loads in `dtype`, or where that `is_open`, in what mmcli chooses by itself → the arithmetic's name."""
        self.device = device
        loaded = self._load(checkpoint, device, "auto" if is_open else dtype, table=table, quantize=quantize)
        self.model = loaded.model
        if loaded.storage is not None:
            return loaded.storage
        return "int8" if loaded.quantised else str(loaded.dtype).removeprefix("torch.")

    def warm_up(self, inputs: Any, tokens: int) -> float:
        """Answer until nothing is compiled or recorded any more → seconds to the very first token.

        The prompts of a shape are recorded at the second of them.
        """
        return [self.answer(inputs, tokens)[0] for _ in range(2)][0]

    def answer(self, inputs: Any, tokens: int) -> tuple[float, float, list[list[int]]]:
        """(seconds to the first token, seconds from there to the last, ids a row)."""
        if inputs.search is not None and inputs.search.beams > 1:
            return self._with_beams(inputs, tokens)
        start = finished(self.device)
        steps = self._generate(self.model, inputs, stop_ids=frozenset(), max_tokens=tokens)
        events = [next(steps)]
        first = time.perf_counter()  # The host has read the token; the device may be at work on the next one.
        events += steps
        last = finished(self.device)
        rows = [[step[row].id for step in events] for row in range(len(inputs.tokens))]
        return first - start, last - first, rows

    def _with_beams(self, inputs: Any, tokens: int) -> tuple[float, float, list[list[int]]]:
        """The same, as the model's publisher had it search."""
        beams = inputs.search.beams
        inputs = replace(inputs, search=replace(inputs.search, forced_end=False))  # write to the end
        rows = self._beam_search(self.model, inputs, stop_ids=frozenset(), max_tokens=tokens, beams=beams)
        finished(self.device)
        return rows[0].timings.prefill, rows[0].timings.decode, [list(row.ids) for row in rows]

    def read_each_token(self) -> int:
        """Bytes of weights that one written token reads: every layer and the head, which may be the embedding table."""
        from mmcli.hub.weights import Mapped

        part = getattr(self.model, "decoder", self.model)
        rows = {id(weight) for each in part.modules() if isinstance(each, Mapped) for weight in each.parameters()}
        if getattr(part, "head", None) is not None:  # one of its own
            rows.add(id(part.embedding.weight))
        weights = [*part.parameters(), *part.buffers()]
        return sum(weight.nbytes for weight in weights if id(weight) not in rows)

    def waits(self, inputs: Any, tokens: int) -> float:
        """How often a written token makes the host wait for the device (CUDA)."""
        import warnings

        import torch

        steps = self._generate(self.model, inputs, stop_ids=frozenset(), max_tokens=tokens)
        next(steps)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            for _ in steps:
                pass
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in caught) / (tokens - 1)


def _pixels(images: Any) -> Any:
    """Images of a batch as transformers takes them: patches in one row, tiles filled up with tiles of zeros."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    kinds = {2: torch.cat, 3: torch.stack, 4: lambda tiles: pad_sequence(tiles, batch_first=True)}
    return kinds[images[0].ndim](images)


def _read_tokens(given: Any, model: Any) -> tuple[Any, Any]:
    """What the model reads, and which of it is real: of an encoder-decoder what the encoder reads, image first."""
    import torch

    if not getattr(model.config, "is_encoder_decoder", False):
        return given.tokens, given.valid
    prompts, device, vision = given.context, given.tokens.device, model.config.vision_config
    side = given.images[0].shape[-1]
    for patch, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
        side = (side + 2 * padding - patch) // stride + 1
    image = torch.full((len(prompts.tokens), side**2 + 1), model.config.image_token_id, device=device)
    there = torch.ones_like(image, dtype=torch.bool)
    return torch.cat((image, prompts.tokens.to(device)), 1), torch.cat((there, prompts.valid.to(device)), 1)


class Transformers:
    """`generate` of the model's own class, greedy, with its default cache and attention."""

    settings: dict[str, Any] = {}  # for `generate`

    def __init__(self) -> None:
        import foreign  # noqa: F401 (before transformers)
        from transformers import AutoModelForImageTextToText, StoppingCriteria, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._class = AutoModelForImageTextToText
        side = self

        class Clock(StoppingCriteria):
            """Notes when the first token is there; stops nothing."""

            def __call__(self, input_ids: Any, scores: Any, **rest: Any) -> Any:
                import torch

                if side.first is None:
                    side.first = finished(side.device)
                return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

        self.first: float | None = None
        self._clock = Clock()

    def load(self, checkpoint: Any, device: Any, dtype: Any, table: str, is_open: bool) -> str:
        """`table` cannot be chosen: all of the model is on the device. Returns the arithmetic's name."""
        self.device, self.dtype, self.config = device, dtype, checkpoint.config
        # Straight onto the device where it can; it needs that package for it.
        placed = {"device_map": device} if find_spec("accelerate") else {}
        self.model = self._class.from_pretrained(Path(checkpoint.folder), dtype=dtype, **placed).to(device).eval()
        self.model.generation_config.eos_token_id = None  # write to the end, whatever the random weights say
        self.model.generation_config.forced_eos_token_id = None
        return str(dtype).removeprefix("torch.")

    def warm_up(self, inputs: Any, tokens: int) -> float:
        """As `Mmcli.warm_up`: nothing is compiled, a few tokens do."""
        return self.answer(inputs, min(tokens, 8))[0]

    def answer(self, inputs: Any, tokens: int) -> tuple[float, float, list[list[int]]]:
        """As `Mmcli.answer`."""

        self.first = None
        start = finished(self.device)
        given = inputs.to(self.device, self.dtype)
        tokens_read, valid = _read_tokens(given, self.model)
        written = self.model.generate(
            input_ids=tokens_read,
            attention_mask=valid.long(),
            **self._more(given),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=[self._clock],
            **self.settings,
        )
        rows = written[:, given.tokens.shape[1] :].tolist()
        last = finished(self.device)
        return self.first - start, last - self.first, rows

    def _more(self, given: Any) -> dict[str, Any]:
        """What this model takes beside the tokens."""
        import mllama_checkpoint
        import torch

        if self.config["model_type"] == "mllama":
            return mllama_checkpoint.reference_inputs(given, self.config)
        # PaliGemma reads all of its prefix in both directions.
        prefix = {"token_type_ids": torch.zeros_like(given.tokens)} if self.config["model_type"] == "paligemma" else {}
        # Before transformers 5.23 Fuyu's images went by another name.
        takes = inspect.signature(self.model.forward).parameters
        name = "pixel_values" if "pixel_values" in takes else "image_patches"
        return {name: _pixels(given.images)} | prefix


class CompiledTransformers(Transformers):
    """The same with a cache of fixed size, for which it compiles the step."""

    settings = {"cache_implementation": "static"}

    def warm_up(self, inputs: Any, tokens: int) -> float:
        """As `Mmcli.warm_up`: whole answers, since the size of the cache is that of the answer."""
        return [self.answer(inputs, tokens)[0] for _ in range(2)][0]


SIDES = {"mmcli": Mmcli, "transformers": Transformers, "transformers, compiled": CompiledTransformers}
