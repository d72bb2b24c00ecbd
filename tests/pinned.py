"""What the bundled models answer about the example files, in one table a model; `test_pinned.py` compares.

`python tests/pinned.py` writes the tables anew, `python tests/pinned.py nano` that of one model: after its weights, or
what they are run by, were changed on purpose.
"""

import json
import sys
from pathlib import Path

from command import mmcli

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
IMAGES = ("astronaut.jpg", "cat.jpg", "coffee.jpg", "rocket.jpg", "tower.jpg")
EXACT = (
    "--json",
    "--token-ids",
    "--device",
    "cpu",
    "--dtype",
    "float32",
)  # no arithmetic that depends on the CPU's kind

COMMANDS = {
    "nano": (
        ("caption",),
        ("caption", "--prompt", "describe en"),
        ("detect", "person ; cat ; cup ; spoon ; dining table ; clock"),
        ("segment", "person ; cat ; cup"),
        ("chat", "-m", "how many people are there?"),
        ("chat", "-m", "what is in the picture?"),
    ),
    "whisper": (
        ("transcribe",),
        ("transcribe", "--words"),
        ("transcribe", "--beams", "3"),
        ("transcribe", "--start", "3", "--duration", "5"),
        ("transcribe", "--task", "translate"),
    ),
}
Answers = dict[str, dict[str, dict]]  # of each command about each file


def table(model: str) -> Path:
    """Where the answers of a bundled model are written down."""
    return Path(__file__).parent / f"pinned_{model}.json"


def files(command: tuple[str, ...]) -> tuple[str, ...]:
    """The examples that a command is about; what nothing is to be found in is asked about all the same."""
    if "translate" in command:
        return ("service.opus",)
    return {"transcribe": ("jfk.flac",), "chat": ("astronaut.jpg", "coffee.jpg")}.get(command[0], IMAGES)


def answers(command: tuple[str, ...]) -> dict[str, dict]:
    """What a command says about its examples today."""
    paths = [EXAMPLES / name for name in files(command)]
    if command[0] == "chat":  # about all its images at once
        records = [record for path in paths for record in _records(command, [path])]
    else:
        records = _records(command, paths)
    return {Path(record["source"]).name: answer(record) for record in records}


def _records(command: tuple[str, ...], paths: list[Path]) -> list[dict]:
    words = 2 if command[0] in ("detect", "segment") else 1
    done = mmcli(*command[:words], *paths, *command[words:], *EXACT)
    assert done.code == 0, done.err
    return done.records


def answer(record: dict) -> dict:
    """What stays of a record: text, tokens, boxes in pixels, the pixels of a mask, times in seconds."""
    found = {"text": record["text"], "tokens": record["token_ids"]}
    if record.get("objects"):
        found["objects"] = [_object(entry) for entry in record["objects"]]
    if record.get("segments"):
        found["segments"] = [_segment(entry) for entry in record["segments"]]
    return found


def _object(entry: dict) -> dict:
    from pycocotools.mask import area

    found = {key: entry[key] for key in ("label", "box", "found_by")}
    return found | ({"mask_pixels": int(area(entry["mask"]))} if "mask" in entry else {})


def _segment(entry: dict) -> dict:
    found = {key: entry[key] for key in ("start", "end", "text")}
    words = [[word["start"], word["end"], word["text"]] for word in entry.get("words", ())]
    return found | ({"words": words} if words else {})


def written(model: str) -> Answers:
    """The table as it was written."""
    return json.loads(table(model).read_text("utf-8"))


def renew(model: str) -> None:
    """Write a table: a line for each answer, so that a change shows which it is of."""
    parts = []
    for command in COMMANDS[model]:
        lines = [f"    {json.dumps(name)}: {json.dumps(found)}" for name, found in answers(command).items()]
        parts.append(f"  {json.dumps(' '.join(command))}: {{\n" + ",\n".join(lines) + "\n  }")
    table(model).write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or COMMANDS:
        renew(chosen)
