"""What a terminal shows of a training run: a table in its place, and every line that is said above it."""

import io
import re
from typing import Any

from mmcli.cli.environment import Environment
from mmcli.cli.tune_view import TuneView
from mmcli.training.curves import HELD, chart


def shown(written: str) -> list[str]:
    """The lines that a terminal shows at the end, of what moves its cursor up and erases lines."""
    lines, row, column = [""], 0, 0
    for code, sign, text in re.findall(r"\x1b\[\??([0-9;]*)([A-Za-z])|([^\x1b])", written):
        if text == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif text == "\r":
            column = 0
        elif text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + 1 :]
            column += 1
        elif sign == "A":
            row = max(row - int(code or 1), 0)
        elif sign == "K":
            lines[row] = ""
    return [line.rstrip() for line in lines if line.strip()]


def update(step: int) -> dict[str, Any]:
    return {"step": step, "loss": 8.0, "rate": 1e-4, "gradient": 1.0, "samples_per_second": 2.0, "progress": step / 4,
            "spent": float(step)}  # fmt: skip


def look(step: int) -> dict[str, Any]:
    samples = [{"where": f"row {n}", "answer": f"answer {n} of step {step}", "right": "x"} for n in range(5)]
    return {"step": step, "eval_loss": 9.0 - step, "best_step": step, "samples": samples}


def test_the_table_takes_no_line_with_it():
    stderr = io.StringIO()
    environment = Environment(io.BytesIO(), io.StringIO(), stderr, stderr_tty=True, variables={"COLUMNS": "80"})
    with TuneView(environment) as view:
        view.began(3, 5, 0)
        view.evaluated(look(0))
        view.updated(update(1))
        view.updated(update(2))
        view.evaluated(look(2))
        table = shown(stderr.getvalue())[-4:]
    assert [line.split()[0] for line in table] == ["step", "loss", "rate", "held"]
    assert "50 %, 0:02 left" in table[0] and re.search(r"7\.0000 +at step 2, 9\.0000 before", table[3])
    left = shown(stderr.getvalue())
    assert left[0] == "3 examples to learn from, 5 held out, 0 replayed"
    expected = [f"  row {n}: answer {n} of step {step}  [right: x]" for step in (0, 2) for n in range(5)]
    assert [line for line in left if "answer" in line] == expected
    assert len(left) == 3 + len(expected), "and nothing of the table"


def test_a_chart_is_a_line_with_the_held_out_examples_on_it():
    rows = [{"step": 0, "eval_loss": 4.0}, *({"step": n, "loss": 4.0 - n / 2} for n in range(1, 7))]
    lines = chart([*rows, {"step": 6, "eval_loss": 1.0}], width=20, height=6)
    drawn = [line[9:] for line in lines[:6]]
    assert drawn[0][0] == HELD and drawn[-1][-1] == HELD
    columns = ["".join(row[x] for row in drawn) for x in range(4, 19)]
    assert all(any("\u2800" < sign <= "\u28ff" for sign in column) for column in columns), "no column has a gap"
