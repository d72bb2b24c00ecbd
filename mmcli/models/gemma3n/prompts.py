"""What Gemma 3n is asked. It was trained on no fixed prompts, so tasks are put into plain words."""

from mmcli.errors import UsageError
from mmcli.models.prompts import fill_prompt

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

# Codes of ISO 639 with the languages' names: the prompt gives the model the name.
NAMES = (
    "af Afrikaans|am Amharic|ar Arabic|as Assamese|az Azerbaijani|ba Bashkir|be Belarusian|bg Bulgarian|bn Bengali|"
    "bo Tibetan|br Breton|bs Bosnian|ca Catalan|cs Czech|cy Welsh|da Danish|de German|el Greek|en English|"
    "eo Esperanto|es Spanish|et Estonian|eu Basque|fa Persian|fi Finnish|fo Faroese|fr French|fy West Frisian|"
    "ga Irish|gl Galician|gu Gujarati|ha Hausa|haw Hawaiian|he Hebrew|hi Hindi|hr Croatian|ht Haitian Creole|"
    "hu Hungarian|hy Armenian|id Indonesian|ig Igbo|is Icelandic|it Italian|ja Japanese|jv Javanese|ka Georgian|"
    "kk Kazakh|km Khmer|kn Kannada|ko Korean|ku Kurdish|ky Kyrgyz|la Latin|lb Luxembourgish|ln Lingala|lo Lao|"
    "lt Lithuanian|lv Latvian|mg Malagasy|mi Maori|mk Macedonian|ml Malayalam|mn Mongolian|mr Marathi|ms Malay|"
    "mt Maltese|my Burmese|ne Nepali|nl Dutch|nn Norwegian Nynorsk|no Norwegian|oc Occitan|or Odia|pa Punjabi|"
    "pl Polish|ps Pashto|pt Portuguese|ro Romanian|ru Russian|sa Sanskrit|sd Sindhi|si Sinhala|sk Slovak|"
    "sl Slovenian|sn Shona|so Somali|sq Albanian|sr Serbian|su Sundanese|sv Swedish|sw Swahili|ta Tamil|te Telugu|"
    "tg Tajik|th Thai|tk Turkmen|tl Tagalog|tr Turkish|tt Tatar|uk Ukrainian|ur Urdu|uz Uzbek|vi Vietnamese|"
    "xh Xhosa|yi Yiddish|yo Yoruba|yue Cantonese|zh Chinese|zu Zulu"
)
LANGUAGES = dict(entry.split(" ", 1) for entry in NAMES.split("|"))


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
    """ "de" → "German"; a name stays what it is. Raises UsageError for a code that nobody knows."""
    code = language.strip().lower()
    if code in LANGUAGES:
        return LANGUAGES[code]
    if len(code) < 4:
        raise UsageError(f"There is no language {language!r}", "Give its code, such as de, or its English name")
    return language.strip()
