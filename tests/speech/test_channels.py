"""Several channels and several audio tracks: what is said in them is transcribed, whatever the others hold."""

from pathlib import Path

import numpy as np
import pytest
from audio_files import save_tracks, source
from spoken import example, letters, talk, transcribed

from mmcli.media.audio import RATE, read_audio
from mmcli.speech.channels import Voices

SAID = "whatyourcountrycandoforyou"
TURNED = "its channels have opposite phase, so some are inverted before they are mixed"
LEFT_OUT = "a channel without speech is left out where it would disturb the others"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return example()


def noise(speech: np.ndarray, level: float) -> np.ndarray:
    return level * np.random.default_rng(0).standard_normal(len(speech))


CHANNELS = {
    "upside down": (lambda x: (x, -x), [TURNED]),
    "upside down from the middle on": (lambda x: (x, np.where(np.arange(len(x)) < len(x) // 2, x, -x)), [TURNED]),
    "upside down with other offsets": (lambda x: (0.1 * x + 0.2, -0.1 * x - 0.2), [TURNED]),
    "a silent one": (lambda x: (0 * x, x), []),
    "loud noise": (lambda x: (0.2 * x, noise(x, 0.3)), [LEFT_OUT]),
    "a hum": (lambda x: (0.8 * np.sin(np.arange(len(x)) / 50), x), [LEFT_OUT]),
    "four, two upside down": (lambda x: (x, -x, x, -x), [TURNED]),
    "four, one with speech": (lambda x: (noise(x, 0.1), 0 * x, x, noise(x, 0.2)), [LEFT_OUT]),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_speech_is_transcribed_whatever_the_other_channels_hold(name, bundled_audio, speech):
    make, notes = CHANNELS[name]
    record = transcribed(bundled_audio, talk(*make(speech)))
    assert SAID in letters(record) and record.notes == tuple(notes)


@pytest.mark.parametrize(("correlation", "differ"), [(1.0, False), (0.8, False), (0.6, True), (0.0, True)])
@pytest.mark.parametrize("level", [1.0, 0.02])
def test_channels_are_taken_one_by_one_where_they_are_less_than_alike(correlation, differ, level):
    voice, other = np.random.default_rng(0).normal(0, 0.1, (2, 4 * RATE))
    channel = level * (correlation * voice + (1 - correlation**2) ** 0.5 * other)
    assert Voices([], None)._differ(np.stack((voice, channel), 1)) is differ
    assert Voices([], None)._differ(np.stack((voice, 0.005 * other), 1)) is False, "too soft to disturb"


def test_two_who_speak_on_a_channel_each_are_both_transcribed(bundled_audio, speech):
    silence = np.zeros_like(speech)
    record = transcribed(bundled_audio, talk(np.concatenate((speech, silence)), np.concatenate((silence, speech))))
    assert letters(record).count(SAID) == 2 and record.notes == ()


def test_a_audio_read_at_once_is_turned_too(speech):
    samples, audio = read_audio(talk(speech, -speech))
    np.testing.assert_allclose(samples, speech, atol=1e-3)
    assert audio.notes == (TURNED,)


@pytest.fixture(scope="module")
def film(speech, tmp_path_factory) -> Path:
    """Three tracks: silence, speech, and half a second of it."""
    audios = (np.zeros_like(speech), speech, speech[: RATE // 2])
    return save_tracks(tmp_path_factory.mktemp("film") / "film.mkv", audios, RATE, ("eng", "deu", "fra"))


def test_the_first_audio_track_in_which_somebody_speaks_is_transcribed(bundled_audio, film):
    record = transcribed(bundled_audio, source(film))
    assert SAID in letters(record)
    assert record.notes == ("audio track 2 of 3 (deu) is used", "no speech was found in audio track 1")


def test_a_track_that_is_asked_for_is_transcribed(bundled_audio, film):
    assert SAID in letters(transcribed(bundled_audio, source(film), track=2))
    silent = transcribed(bundled_audio, source(film), track=1)
    assert silent.notes == ("audio track 1 of 3 (eng) is used", "no speech was found in it")


@pytest.mark.parametrize(
    ("track", "sentence"), [(4, "film.mkv has 3 audio tracks and no track 4. Choose --track 1 to 3.")]
)
def test_a_track_that_is_missing(bundled_audio, film, track, sentence):
    assert transcribed(bundled_audio, source(film), track=track).error.endswith(sentence)


def test_one_track_and_no_second(bundled_audio, tmp_path, speech):
    path = save_tracks(tmp_path / "one.mkv", (speech[:RATE],), RATE, ("eng",))
    assert (
        "one.mkv has one audio track and no track 2. Leave --track out"
        in transcribed(bundled_audio, source(path), track=2).error
    )


def test_without_speech_in_any_track_that_is_said(bundled_audio, tmp_path):
    silence = np.zeros(RATE, np.float32)
    path = save_tracks(tmp_path / "mute.mkv", (silence, silence), RATE, ("eng", "deu"))
    assert transcribed(bundled_audio, source(path)).notes[-1] == "no speech was found in it"
