"""Samples as a table: medians, how far the samples lie apart, and ratios."""

from collections.abc import Callable
from statistics import median
from typing import Any

from mmcli.output.tables import bytes_text, table

# What is shown of a side's samples: its key, its name, its form, and whether more of it is better.
ROWS: tuple[tuple[str, str, Callable[[float], str], bool], ...] = (
    ("import", "import, after torch", lambda value: seconds_text(value), False),
    ("load", "load", lambda value: seconds_text(value), False),
    ("cold", "load to first token", lambda value: seconds_text(value), False),
    ("prefill", "prefill", lambda value: seconds_text(value), False),
    ("rate", "decode, tokens/s", lambda value: f"{value:.1f}", True),
    ("whole", "an answer", lambda value: seconds_text(value), False),
    ("processor", "its processor time", lambda value: seconds_text(value), False),
    ("memory", "peak memory", bytes_text, False),
)


def seconds_text(value: float) -> str:
    """0.01234 → "12.3 ms"."""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def middle(values: list[float], form: Callable[[float], str]) -> str:
    """The median, with the least and the greatest where there are several."""
    spread = f" ({form(min(values))} … {form(max(values))})" if len(values) > 1 else ""
    return form(median(values)) + spread


def ratio(ours: list[float], theirs: list[float]) -> str:
    return f"{median(ours) / median(theirs):.2f}"


def report(results: dict[str, Any]) -> str:
    """Everything measured, for people."""
    failures = {**results["failed"]}
    parts = []
    if "startup" in results:
        failures |= {pair["what"]: pair["failed"] for pair in results["startup"] if "failed" in pair}
        parts.append(startup(results["startup"]))
    for place, batch in enumerate(results["settings"]["batch"]):
        samples = {side: [one[place] for one in rounds] for side, rounds in results["samples"].items()}
        if samples:
            parts.append(_comparison(samples, batch, results))
    parts += [f"{what} failed: {words}\n" for what, words in failures.items()]
    return "\n".join(parts)


def startup(measured: list[dict]) -> str:
    """Commands beside what they could not do without, by the clock and by the processor's time of all threads."""
    rows = [("start-up", "", "mmcli", "beside", "", "ratio", "difference")]
    for pair in measured:
        for key, name in (("", "clock"), ("_processor", "processor")):
            if "failed" not in pair:
                ours, theirs = pair[f"ours{key}"], pair[f"theirs{key}"]
                more = median(a - b for a, b in zip(ours, theirs, strict=True))
                cells = pair["what"], name, middle(ours, seconds_text), pair["beside"], middle(theirs, seconds_text)
                rows.append((*cells, ratio(ours, theirs), seconds_text(more)))
    return table(rows)


def imported(packages: list[tuple[str, int, float, int]]) -> str:
    """What a command imports, package by package."""
    rows = [("imported, in order", "modules", "time", "not in import torch")]
    rows += [(name, f"{count:,}", seconds_text(taken), f"{more:,}") for name, count, taken, more in packages]
    total = [sum(own) for own in zip(*(row[1:] for row in packages), strict=True)]
    return table([*rows, ("all", f"{total[0]:,}", seconds_text(total[1]), f"{total[2]:,}")])


def _comparison(samples: dict[str, list[dict]], batch: int, results: dict[str, Any]) -> str:
    own, settings = next(iter(samples.values()))[0], results["settings"]
    threads = f", threads: {own['threads']}" if own["kind"] == "cpu" else ""
    kinds = {name: side[0]["dtype"] for name, side in samples.items()}
    kind = own["dtype"] if len(set(kinds.values())) == 1 else " and ".join(f"{v} ({k})" for k, v in kinds.items())
    title = (
        f"{results['model']} on {own['device']} in {kind}{threads}: batch {batch}, "
        f"prefix {own['prefix']}, {settings['tokens']} tokens written"
    )
    both = len(samples) == 2
    rows = [("", *samples, *(["ratio", ""] if both else []))]
    for key, name, form, more in [row for row in ROWS if row[0] in own]:
        values = [[sample[key] for sample in side] for side in samples.values()]
        better = [ratio(*values), "more is better" if more else "less is better"] if both else []
        rows.append((name, *(middle(side, form) for side in values), *better))
    return f"{title}\n{table(rows)}" + "".join(f"{line}\n" for line in _remarks(samples))


def _remarks(samples: dict[str, list[dict]]) -> list[str]:
    """What is written once: the share of the memory's bandwidth, waits for the device, and whether both wrote the
    same."""
    lines = []
    if "mmcli" in samples:
        own = samples["mmcli"]
        copy = median(sample["copy"] for sample in own)
        batch = len(own[0]["ids"])
        used = median(sample["rate"] for sample in own) / batch * own[0]["read"]
        lines.append(
            f"a step reads {bytes_text(own[0]['read'])} of weights: {bytes_text(used)}/s, "
            f"{used / copy:.0%} of what a copy within the memory moves ({bytes_text(copy)}/s)"
        )
        if "waits" in own[0]:
            lines.append(f"the host waits for the device {own[0]['waits']:.2f} times a token")
    if len(samples) == 2:
        ours, theirs = (side[0]["ids"] for side in samples.values())
        alike = [_common(a, b) for a, b in zip(ours, theirs, strict=True)]
        lines.append(f"both write the same first {min(alike)} of {len(ours[0])} tokens")
    return lines


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
