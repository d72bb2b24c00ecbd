"""What a record says of how an answer was made, and the key by which it is known again."""

from typing import TYPE_CHECKING

from mmcli.output.schema import Settings

if TYPE_CHECKING:
    from mmcli.models.loaded import Loaded
    from mmcli.tasks.task import Request
    from mmcli.tasks.transcribe import TranscribeRequest


def image_settings(request: "Request", loaded: "Loaded | None" = None, system: str = "") -> Settings:
    """Those of a question about images; without a model, which a run may fail to load, its type is not known."""
    drawn = request.temperature > 0
    grammar = loaded.processor.grammar if loaded is not None else None
    usual = (None, *grammar.divisors[:1]) if grammar is not None else (None,)
    return Settings(
        temperature=request.temperature,
        top_k=request.top_k if drawn and request.top_k else None,
        top_p=request.top_p if drawn and request.top_p < 1 else None,
        seed=request.seed if drawn else None,
        max_tokens=request.token_limit,
        beams=request.beams,
        min_score=request.min_score,
        nms=request.nms,
        max_objects=request.max_objects,
        loc_divisor=None if request.loc_divisor in usual else request.loc_divisor,
        mask_decoder=str(loaded.mask_decoder) if loaded is not None and loaded.mask_decoder else None,
        system=system or None,
        dtype=dtype_of(loaded),
        adapter=adapter_of(loaded),
    )


def audio_settings(
    request: "TranscribeRequest",
    loaded: "Loaded | None" = None,
    *,
    start: float = 0.0,
    duration: float | None = None,
    track: int | None = None,
) -> Settings:
    """Those of a transcript of the part of a recording from `start` on, in seconds, read from the audio `track`."""
    return Settings(
        temperature=request.temperature,
        seed=None if request.temperature == 0 else request.seed or 0,
        beams=request.beams,
        language=request.language,
        hint=request.hint,
        words=request.words,
        start=start or None,
        duration=duration,
        track=track,
        dtype=dtype_of(loaded),
        adapter=adapter_of(loaded),
    )


def adapter_of(loaded: "Loaded | None") -> str | None:
    """The folder of the weights that were put on top of a model's."""
    return None if loaded is None or loaded.checkpoint.adapter is None else str(loaded.checkpoint.adapter)


def dtype_of(loaded: "Loaded | None") -> str | None:
    """The type of a model's weights: "float32", or "int8" and "int4" where most of them are kept in integers."""
    if loaded is None:
        return None
    if loaded.storage is not None:
        return loaded.storage
    return "int8" if loaded.quantised else str(loaded.dtype).removeprefix("torch.")


def key_of(task: str, loaded: "Loaded", prompt: str | None, settings: Settings, source: str | None) -> str | None:
    """The record's key; `source` identifies the input (`media/identity.py`), None where nothing does."""
    from mmcli.hub.fingerprint import weights_of
    from mmcli.output.record import run_key

    if source is None:
        return None
    checkpoint = loaded.checkpoint
    return run_key(
        task=task,
        model=checkpoint.name,
        weights=weights_of(checkpoint),
        prompt=prompt,
        settings=settings,
        source=source,
    )
