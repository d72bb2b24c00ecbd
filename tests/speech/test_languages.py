"""Languages as people name them."""

import pytest

from mmcli.speech.languages import NAMES, code_of

KNOWN = ("en", "de", "pt", "zh", "jw", "no", "haw", "yue")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("de", "de"), ("DE", "de"), ("German", "de"), (" german ", "de"), ("pt-BR", "pt"), ("zh_CN", "zh"),
        ("Mandarin", "zh"), ("Javanese", "jw"), ("jv", "jw"), ("nb-NO", "no"), ("Hawaiian", "haw"),
        ("fr", "fr"), ("French", "French"), ("Klingon", "Klingon"), ("", ""), ("en glish", "en glish"),
    ],
)  # fmt: skip
def test_a_language_is_known_by_its_code_and_its_name(given, code):
    assert code_of(given, KNOWN) == code


def test_every_language_of_the_bundled_model_has_a_name(bundled_audio):
    known = bundled_audio.processor.capabilities.languages
    named = {code_of(name, known) for name in NAMES.values()}
    assert len(known) == 99 and named >= set(known)
