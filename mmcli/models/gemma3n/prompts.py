"""What Gemma 3n is asked. It was trained on no fixed prompts, so tasks are put into plain words."""

from mmcli.errors import UsageError
from mmcli.models.prompts import fill_prompt
from mmcli.speech.languages import NAMES

PROMPTS = {
    "caption": "Describe this picture in one sentence.",
    "caption:low": "Describe this picture in one sentence.",
    "caption:medium": "Describe this picture in three sentences.",
    "caption:high": "Describe this picture in detail.",
    "read": "Write down the text in this picture, word for word and nothing else.",
    "chat": "{}",
}

TRANSCRIBE = (
    "Transcribe the following speech segment{language}. Write only what is said, in the language it is said in, "
    "without line breaks."
)
TRANSLATE = (
    "Translate the following speech segment{language} into English. Write only the translation, without line breaks."
)
HINT = " These names and words may occur in it, spelt like this: {}"


def task_prompt(task: str, words: str) -> str:
    """The question that stands for a task about images. Raises UsageError for one that needs more than words."""
    return fill_prompt(PROMPTS, task, words, "Gemma 3n", "transcribe")


def transcription_prompt(task: str, language: str | None, hint: str | None) -> str:
    """The question about a recording with speech in it. `task` is transcribe or translate; raises UsageError."""
    if task not in ("transcribe", "translate"):
        raise UsageError(f"Gemma 3n knows no task {task!r} for speech", "It knows transcribe, translate")
    form = TRANSLATE if task == "translate" else TRANSCRIBE
    named = "" if language is None else f" in {language_name(language)}"
    return form.format(language=named) + (HINT.format(hint.strip()) if hint and hint.strip() else "")


def language_name(language: str) -> str:
    """ "de" → "German", for the prompt; a name stays what it is. Raises UsageError for a code that nobody knows."""
    code = language.strip().lower()
    if code in NAMES:
        return NAMES[code]
    if len(code) < 4:
        raise UsageError(f"There is no language {language!r}", "Give its code, such as de, or its English name")
    return language.strip()
