"""A conversation as a file: its records, or text to read."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmcli.media.naming import printable
from mmcli.output.record import to_json_line
from mmcli.output.schema import Record
from mmcli.output.writers.text import readable


@dataclass(frozen=True)
class Exchange:
    """One question with its answer."""

    question: str
    names: tuple[str, ...]  # of the images and recordings that came with it
    record: Record

    @property
    def answer(self) -> str:
        """The text, and whether there is more to it."""
        cut = " […]" if self.record.truncated else ""
        return readable(self.record.text).strip("\n") + cut


def document(exchanges: Sequence[Exchange], suffix: str, system: str = "") -> str:
    """A conversation of at least one exchange as the suffix of its file says.

    `.jsonl`: a record a line; `.json`: the records as a list; `.md`: Markdown; any other: plain text.
    """
    if suffix == ".jsonl":
        return "".join(to_json_line(exchange.record) for exchange in exchanges)
    if suffix == ".json":
        return "[\n" + ",\n".join(to_json_line(exchange.record).rstrip("\n") for exchange in exchanges) + "\n]\n"
    return _markdown(exchanges, system) if suffix in (".md", ".markdown") else _text(exchanges, system)


def _markdown(exchanges: Sequence[Exchange], system: str) -> str:
    model = exchanges[0].record.model
    blocks = [f"# A conversation with {model}"]
    if system:
        blocks += ["**System**", readable(system)]
    for exchange in exchanges:
        names = ", ".join(f"`{printable(name)}`" for name in exchange.names)
        blocks += [f"**You** ({names})" if names else "**You**", readable(exchange.question)]
        blocks += [f"**{model}**", exchange.answer]
    return "\n\n".join(blocks) + "\n"


def _text(exchanges: Sequence[Exchange], system: str) -> str:
    blocks = [f"System: {readable(system)}"] if system else []
    for exchange in exchanges:
        names = ", ".join(map(printable, exchange.names))
        who = f"You ({names})" if names else "You"
        blocks.append(f"{who}: {readable(exchange.question)}")
        blocks.append(f"{exchange.record.model}: {exchange.answer}")
    return "\n\n".join(blocks) + "\n"
