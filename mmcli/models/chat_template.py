"""The text of a conversation: by the chat template that comes with a checkpoint, else by its family's own layout."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from mmcli.errors import ModelError
from mmcli.hub.json_files import read_json
from mmcli.hub.tokenizer import named_tokens

# As chat templates expect it: `role` is system, user or assistant, `content` a list of parts, each with its `type`
# (text, image or audio) and a text's `text`.
Message = dict[str, Any]

PLACES = ("processor_config.json", "chat_template.json", "chat_template.jinja", "tokenizer_config.json")
PROGRAM = Path(__file__).with_name("chat_template_process.py")
LARGEST = 1_000_000  # bytes of a template; published ones have some thousand
PATIENCE = 10  # seconds until a rendering is given up: far more than starting and stopping one takes


@dataclass(frozen=True)
class ChatTemplate:
    """How turns become text."""

    path: Path  # where it stands
    source: str | None  # Jinja; None: there is none
    tokens: dict[str, str]  # by the names that templates use, such as bos_token
    begin: str = ""  # what every text begins with, whether the template writes it or not
    layout: Callable[[Sequence[Message]], str] | None = None  # the family's own, where there is no template

    @classmethod
    def open(cls, folder: Path, begin: str = "", layout: Callable[[Sequence[Message]], str] | None = None) -> Self:
        """Find a checkpoint's template where transformers looks for it. Raises ModelError for a damaged one.

        `begin` is the token that begins a text where the family's texts have one. `layout` writes the whole text, and
        raises ModelError for turns that it does not know.
        """
        path, source = find_template(folder)
        begun = {"bos_token": begin} if begin else {}
        return cls(path, source, begun | named_tokens(folder), begin, layout)

    def text(self, messages: Sequence[Message]) -> str:
        """The conversation's text up to where the model writes. Raises ModelError where the template refuses or fails.

        Where the last message is the model's own, the text ends behind that. A text that does not begin with the token
        for it gets it, as from transformers' tokenizer.
        """
        if self.source is None:
            if self.layout is None:
                raise ModelError(f"{self.path} has no chat template", "Use a revision of the model that has it")
            return self.layout(messages)
        asks = not messages or messages[-1]["role"] != "assistant"
        variables = {"messages": messages, "add_generation_prompt": asks, "tools": None, "documents": None}
        asked = json.dumps({"template": self.source, "variables": self.tokens | variables})
        answer = _rendered(asked, str(self.path))
        if "error" in answer:
            words = " ".join(answer["error"].split())
            raise ModelError(f"The chat template in {self.path} cannot lay out this conversation: {words}")
        text = answer["text"]
        return text if text.startswith(self.begin) else self.begin + text


def find_template(folder: Path) -> tuple[Path, str | None]:
    """Where a checkpoint's chat template stands, and the template itself; None where there is none. ModelError."""
    for name in PLACES:
        path = folder / name
        if not path.is_file():
            continue
        found = _read(path) if path.suffix == ".jinja" else read_json(path).get("chat_template")
        if isinstance(found, list):  # several templates with names
            found = next((one for one in found if isinstance(one, dict) and one.get("name") == "default"), {})
            found = {"default": found.get("template")}
        if isinstance(found, dict):
            found = found.get("default")
        if isinstance(found, str):
            if len(found) > LARGEST:
                raise ModelError(f"{path} holds a template larger than any should be ({LARGEST / 1e6:.0f} MB)")
            return path, found
    return folder, None


def _read(path: Path) -> str:
    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path} is larger than any template should be ({LARGEST / 1e6:.0f} MB)")
    try:
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error})", "Download the model again") from error


@lru_cache(maxsize=16)  # the rows of a run differ in images and recordings, hardly ever in words
def _rendered(asked: str, name: str) -> dict[str, str]:
    command = [sys.executable, "-P", str(PROGRAM)]
    try:
        done = subprocess.run(command, input=asked.encode(), capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"The chat template in {name} does not come to an end") from error
    except OSError as error:
        raise ModelError(f"The chat template in {name} cannot be run ({error})") from error
    if done.returncode > 0:  # not the template's fault: its errors are answers
        reason = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ModelError(f"The chat template in {name} cannot be run ({reason[:200]})")
    if done.returncode < 0:  # the system ended it
        raise ModelError(f"The chat template in {name} had to be stopped: it takes too much time or memory")
    return json.loads(done.stdout)
