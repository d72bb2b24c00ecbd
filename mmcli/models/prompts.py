"""Prompts by which models know the tasks."""

from collections.abc import Mapping

from mmcli.errors import UsageError

# Those of models that write places as location tokens: the words of the mixes that big_vision published.
LOCATION_PROMPTS = {"caption": "caption en", "detect": "detect {}", "segment": "segment {}", "chat": "answer en {}"}
# Those of the published models, which were also taught to read and to describe at length.
READING_PROMPTS = LOCATION_PROMPTS | {"read": "ocr", "caption:low": "caption en", "caption:high": "describe en"}


def fill_prompt(prompts: Mapping[str, str], task: str, words: str, model: str, *more: str) -> str:
    """The prompt of a task with the user's words in it.

    Raises UsageError for a task that `prompts` lacks; the sentence names the `model`, and `more` tasks that it knows.
    """
    if task not in prompts:
        *known, last = *(name for name in prompts if ":" not in name), *more
        raise UsageError(f"{model} knows no task {task!r}", f"It knows {', '.join(known)} and {last}")
    return prompts[task].format(words.strip())
