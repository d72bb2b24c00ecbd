"""Prompts by which models know the tasks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmcli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from mmcli.models.family import Processor

# Those of models that write places as location tokens: the words of the mixes that big_vision published.
LOCATION_PROMPTS = {"caption": "caption en", "detect": "detect {}", "segment": "segment {}", "chat": "answer en {}"}
# Those of the published models, which were also taught to read and to describe at length.
READING_PROMPTS = LOCATION_PROMPTS | {"read": "ocr", "caption:low": "caption en", "caption:high": "describe en"}


def question_prompt(processor: "Processor", question: str) -> str:
    """What `mmcli chat` gives a model that answers each question by itself; the question alone where it would refuse.

    So a model can be taught other questions than it knows, which `--prompt` then asks. What is such a prompt already
    stays as it is.
    """
    try:
        prompt = processor.task_prompt("chat", question)
    except (ModelError, UsageError):
        return question
    before = prompt.removesuffix(question.strip())
    return question if before != prompt and question.startswith(before) else prompt


def fill_prompt(prompts: Mapping[str, str], task: str, words: str, model: str, *more: str) -> str:
    """The prompt of a task with the user's words in it.

    Raises UsageError for a task that `prompts` lacks; the sentence names the `model`, and `more` tasks that it knows.
    """
    if task not in prompts:
        *known, last = *(name for name in prompts if ":" not in name), *more
        raise UsageError(f"{model} knows no task {task!r}", f"It knows {', '.join(known)} and {last}")
    return prompts[task].format(words.strip())
