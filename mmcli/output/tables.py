"""Numbers and tables as people read them."""

from collections.abc import Sequence

from mmcli.escape import escape_line, wrap

GAP = 2  # columns between those of a table
NARROWEST = 16  # columns that the last one of a table may be squeezed into


def bytes_text(count: float) -> str:
    """1536 → "1.5 kB": powers of 1000, as disks and the hub count."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def count_text(count: int) -> str:
    """2_923_335_408 → "2.92 B": a count of parameters."""
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return str(count)


def table(rows: Sequence[tuple[str, ...]], columns: int | None = None) -> str:
    """Rows in aligned columns, a line each; the last column is not padded.

    On a terminal of so many `columns` the last column is wrapped where it is; where there is too little room for that,
    all that follows the first cell goes below it.
    """
    if not rows:
        return ""
    rows = [tuple(map(escape_line, row)) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    start = sum(widths[:-1]) + GAP * (len(widths) - 1)
    if columns and start + widths[-1] > columns and columns - start < NARROWEST:
        lines = [line for first, *rest in rows for line in (first, *_below(rest, columns))]
    else:
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        if columns:
            lines = [
                part for line in lines for part in (wrap(line, columns, " " * start) if len(line) > columns else [line])
            ]
    return "".join(f"{line}\n" for line in lines)


def _below(cells: list[str], columns: int) -> list[str]:
    text = ", ".join(cell for cell in cells if cell)
    return wrap(f"    {text}", columns, " " * 4) if text else []


def fit(text: str, columns: int | None) -> str:
    """Text with its lines wrapped for a terminal of so many `columns`, what follows indented under its beginning."""
    if columns is None:
        return text
    lines = [wrap(line, columns, " " * (len(line) - len(line.lstrip()) + 2)) for line in text.splitlines()]
    return "".join(f"{part}\n" for parts in lines for part in parts)
