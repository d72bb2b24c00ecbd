"""Numbers and tables as people read them."""

from mmcli.escape import escape_line


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


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows in aligned columns, a line each; the last column is not padded."""
    if not rows:
        return ""
    rows = [tuple(map(escape_line, row)) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)
