"""What `inspect` shows of a model: the stages an image and a prompt pass through, every parameter counted once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # families are declared without torch's types
    from torch import nn


@dataclass(frozen=True)
class Stage:
    """One stage."""

    name: str
    kind: str
    output: str  # shape as text, e.g. "256 × 1152"
    parameters: int
    notes: tuple[str, ...] = ()


def parameter_count(*modules: "nn.Module") -> int:
    """How many numbers parts of a model have learned."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def parts(config: Any, model: "nn.Module") -> list[Stage]:
    """A stage for each part of a model: what a family shows that describes none itself."""
    return [Stage(name, type(part).__name__, "", parameter_count(part)) for name, part in model.named_children()]


def squeezed(side: int, resample: str = "bicubic, ", name: str = "image") -> Stage:
    """Images that are all resized to one square."""
    return Stage(name, "squeeze", f"3 × {side} × {side}", 0, (f"{resample}sides not kept in proportion",))


def patches_note(side: int, patch: int) -> str:
    """How a tower cuts its images, both in pixels."""
    return f"{side // patch} × {side // patch} patches of {patch} pixels"


def layers_note(config: Any) -> str:
    """The layers of a tower: `config` has their depth, heads and mlp_width."""
    return f"{config.depth} layers, {config.heads} heads, mlp {config.mlp_width}"


def decoder_notes(config: Any) -> tuple[str, str]:
    """The layers of a decoder with grouped keys: `config` has their depth, mlp_width, heads, key_heads, head_width."""
    return (
        f"{config.depth} layers, mlp {config.mlp_width}",
        f"{config.heads} heads of {config.head_width}, {config.key_heads} for keys and values",
    )


def text_stages(
    decoder: Any,
    kind: str,
    notes: Sequence[str],
    *,
    rows: str = "",
    table: Sequence[str] = (),
    head: Sequence[str] = (),
) -> tuple[Stage, Stage, Stage]:
    """Embedding, layers and head of a decoder that has an `embedding`, `layers`, a `norm`, and maybe a head of its own.

    `notes` are about the layers, `table` and `head` about the others; `rows` goes on behind the number of rows.
    """
    vocabulary, width = decoder.config.vocabulary, f"T × {decoder.config.width}"
    embedding, layers = parameter_count(decoder.embedding), parameter_count(decoder.layers, decoder.norm)
    own_head = parameter_count(decoder) - embedding - layers
    tied = () if own_head else ("tied with the head",)
    return (
        Stage("embedding", "table", width, embedding, (f"{vocabulary} rows{rows}", *tied, *table)),
        Stage("decoder", kind, width, layers, tuple(notes)),
        Stage("head", "linear" if own_head else "tied", f"{vocabulary}", own_head, tuple(head)),
    )
