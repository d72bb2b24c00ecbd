"""What Llama 3.2 Vision is asked. It was trained on no fixed prompts: tasks are put into plain words.

A checkpoint that was not taught to converse goes on with what it is given, so it is given a beginning.
"""

from mmcli.models.prompts import fill_prompt

QUESTIONS = {
    "caption": "Describe this picture in one sentence.",
    "read": "Write down the text in this picture, word for word and nothing else.",
    "chat": "{}",
}
BEGINNINGS = {"caption": "This picture shows", "read": "The text in this picture says:", "chat": "{}"}


def task_prompt(task: str, words: str, instruct: bool) -> str:
    """The question that stands for a task, or the beginning of its answer. UsageError for one that it cannot do."""
    return fill_prompt(QUESTIONS if instruct else BEGINNINGS, task, words, "Llama 3.2 Vision")
