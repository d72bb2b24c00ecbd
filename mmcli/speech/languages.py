"""Languages by their codes and their English names."""

from collections.abc import Collection

_NAMES = (
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
NAMES = dict(entry.split(" ", 1) for entry in _NAMES.split("|"))  # codes of ISO 639 → English names
_OTHER_CODES = {"jv": "jw", "nb": "no", "fil": "tl"}  # as some models have them
_CODES = {name.casefold(): code for code, name in NAMES.items()} | {
    "mandarin": "zh",
    "flemish": "nl",
    "castilian": "es",
}


def code_of(language: str, known: Collection[str]) -> str:
    """A language as people call it ("German", "DE", "pt-BR") → its code among the `known` ones; else what was given."""
    plain = language.strip().casefold().replace("_", "-")
    for code in (plain, _CODES.get(plain, ""), plain.split("-")[0]):
        for one in (code, _OTHER_CODES.get(code, "")):
            if one in known:
                return one
    return language
