"""What SmolVLM is asked. It was trained on questions in plain words."""

from mmcli.models.prompts import fill_prompt

PROMPTS = {
    "caption": "Describe this image in one sentence.",
    "read": "Write down the text in this image, word for word and nothing else.",
    "chat": "{}",
}


def task_prompt(task: str, words: str) -> str:
    """The question that stands for a task. Raises UsageError for one that needs more than words."""
    return fill_prompt(PROMPTS, task, words, "SmolVLM")
