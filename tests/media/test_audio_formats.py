"""Recordings in every container, of any rate and number of channels, as one channel at 16 kHz."""

import numpy as np
import pytest
from audio_files import (
    KINDS,
    fails,
    float_wav_bytes,
    lag,
    level,
    load,
    pitch,
    save,
    save_silent_video,
    save_sweep,
    sweep,
    tone,
)
from audio_files import wav_bytes as wav

from mmcli.media.audio import RATE


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_keeps_its_length_its_level_and_its_times(tmp_path, kind):
    late = KINDS[kind][2]
    samples, audio = load(save_sweep(tmp_path / f"a.{kind}", 20))
    expected = sweep(20, RATE)
    assert len(samples) == pytest.approx(len(expected), abs=(late + 0.02) * RATE)
    assert audio.seconds == pytest.approx(20, abs=0.3)
    assert audio.notes == ()
    assert 0 <= lag(samples, expected) <= late
    assert np.std(samples) == pytest.approx(np.std(expected), rel=0.06)  # LAME turns down by 5 %


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_the_same_as_that_part_of_the_whole(tmp_path, kind):
    late = KINDS[kind][2]
    path = save_sweep(tmp_path / f"a.{kind}", 20)
    for start in (0.3, 13.77):
        part, audio = load(path, start=start, duration=4.5)
        assert len(part) == 4.5 * RATE
        expected = sweep(20, RATE)[round(start * RATE) :]
        assert -0.0011 <= lag(part, expected) <= late + 0.0011  # WebM counts in milliseconds
        assert audio.seconds == pytest.approx(20, abs=0.5), "the whole recording's"
        assert not audio.notes


@pytest.mark.parametrize("kind", ["mp3", "opus", "m4a", "flac"])
def test_a_part_sounds_as_the_whole_does_from_its_first_sample(tmp_path, kind):
    """Decoders that begin in the midst need some of what came before."""
    path = save_sweep(tmp_path / f"a.{kind}", 20)
    whole, _ = load(path)
    for start in (3.21, 13.77):
        part, _ = load(path, start=start, duration=0.1)
        expected = whole[round(start * RATE) :][: len(part)]
        near = max(np.corrcoef(part[40:-40], np.roll(expected, shift)[40:-40])[0, 1] for shift in range(-20, 21))
        assert near > 0.99 and np.std(part) == pytest.approx(np.std(expected), rel=0.05)


def test_the_part_up_to_the_end(tmp_path):
    path = save_sweep(tmp_path / "a.flac", 10)
    assert len(load(path, start=8)[0]) == 2 * RATE
    assert len(load(path, start=8, duration=100)[0]) == 2 * RATE
    assert "ends after 10.0 s, before the start at 11.0 s" in fails(path, start=11)
    assert "duration is 0" in fails(path, duration=0)


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "ts"])
def test_the_audio_of_a_video(tmp_path, kind):
    rate = KINDS[kind][1]
    samples, audio = load(save(tmp_path / f"a.{kind}", sweep(8, rate), layout="stereo", video=True))
    assert abs(lag(samples, sweep(8, RATE))) <= 0.03
    assert audio.notes == ()
    part, _ = load(tmp_path / f"a.{kind}", start=5, duration=2)
    assert abs(lag(part, sweep(8, RATE)[5 * RATE :])) <= 0.03


def test_a_video_without_audio(tmp_path):
    assert "is a video without an audio track" in fails(save_silent_video(tmp_path / "a.mp4"))


def test_of_several_audio_tracks_one_is_used_and_that_is_said(tmp_path):
    samples, audio = load(save(tmp_path / "a.mkv", tone(500, 2, 32000), tracks=2))
    assert level(samples) == pytest.approx(0.5, rel=0.01)
    assert audio.notes == ("audio track 1 of 2 is used",)


# -- rates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_tone_keeps_its_frequency_and_its_level(tmp_path, rate, channels):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.stack([tone(3000, 2, rate)] * channels, axis=1), rate))
    samples, _ = load(path)
    assert len(samples) == 2 * RATE
    assert pitch(samples) == pytest.approx(3000, abs=1)
    assert level(samples) == pytest.approx(0.5, rel=0.002)


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize(
    "frequency, decibels",
    [(100, 0), (5000, 0), (7000, 0), (7200, 0), (7500, 0)]  # what consonants are made of stays
    + [(8200, -80), (9000, -90), (11025, -90), (15000, -90), (20000, -90)],  # what would fold back vanishes
)
def test_what_16_khz_can_carry_stays_and_what_it_cannot_vanishes(tmp_path, rate, frequency, decibels):
    path = tmp_path / "a.wav"
    path.write_bytes(float_wav_bytes(tone(frequency, 2, rate), rate))
    measured = 20 * np.log10(level(load(path)[0]) / 0.5)
    assert abs(measured) < 0.15 if decibels == 0 else measured < decibels


def test_a_voice_on_both_sides_of_stereo_keeps_its_level(tmp_path):
    """FFmpeg alone would turn it up by 3 dB."""
    levels = {
        kind: level(load(save(tmp_path / f"a.{kind}", tone(1000, 3, KINDS[kind][1]), layout="stereo"))[0])
        for kind in ("wav", "flac", "m4a", "opus", "mp3")
    }
    assert levels == pytest.approx(dict.fromkeys(levels, 0.5), rel=0.06)


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_mulaw", "pcm_alaw", "adpcm_ima_wav"]
)
def test_samples_of_every_type(tmp_path, codec):
    path = save(tmp_path / "a.wav", tone(440, 1, 8000), codec=codec, rate=8000)
    assert level(load(path)[0]) == pytest.approx(0.5, rel=0.03)


def test_samples_that_are_no_numbers_are_silence(tmp_path):
    values = tone(440, 2, RATE)
    values[1000], values[16500] = np.nan, np.inf
    (tmp_path / "a.wav").write_bytes(float_wav_bytes(values, RATE))
    samples, audio = load(tmp_path / "a.wav")
    assert np.isfinite(samples).all()
    assert level(samples) == pytest.approx(0.5, rel=0.02)
    assert audio.notes == ("samples that are no finite numbers are taken for silence",)


# -- channels ----------------------------------------------------------------------------------------------------


def shares(tmp_path, channels: int, **options) -> list[float]:
    """The level at which each channel alone comes out."""
    levels = []
    for index in range(channels):
        values = np.zeros((channels, 48000), np.float32)
        values[index] = tone(1000, 1, 48000)
        levels.append(level(load(save(tmp_path / "a.wav", values, rate=48000, **options))[0]) / 0.5)
    return levels


@pytest.mark.parametrize(("share", "inverted"), [(0.95, True), (0.8, True), (0.4, False), (-0.8, False)])
def test_a_channel_is_inverted_where_most_of_it_is_the_other_upside_down(tmp_path, share, inverted):
    """`share` of the right channel is the left one upside down, the rest noise: the mean must keep the voice."""
    voice, noise = np.random.default_rng(0).normal(0, 0.1, (2, 4 * RATE))
    right = -share * voice + (1 - share**2) ** 0.5 * noise
    samples, audio = load(save(tmp_path / "a.wav", [voice, right], layout="stereo", rate=RATE))
    assert any("opposite phase" in note for note in audio.notes) is inverted
    expected = (voice - right if inverted else voice + right) / 2
    assert np.corrcoef(samples, expected[: len(samples)])[0, 1] > 0.99


def test_both_channels_of_stereo_count_the_same(tmp_path):
    assert shares(tmp_path, 2, layout="stereo") == pytest.approx([0.5, 0.5], rel=0.01)


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le"])
def test_surround_is_mixed_by_the_places_of_its_loudspeakers(tmp_path, codec):
    """ITU-R BS.775: the centre, where people speak, is the loudest; the low effects are left out."""
    left, right, centre, low, *back = shares(tmp_path, 6, layout="5.1", codec=codec)
    assert left == pytest.approx(right, rel=0.01)
    assert left == pytest.approx(centre * 0.5**0.5, rel=0.01)
    assert low == pytest.approx(0, abs=1e-3)
    assert back == pytest.approx([centre / 2] * 2, rel=0.01)
    assert left + right + centre + sum(back) == pytest.approx(1, rel=0.01), "all together never clip"


@pytest.mark.parametrize("channels", [3, 7, 10, 64])
def test_channels_without_places_count_the_same(tmp_path, channels):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.stack([tone(1000, 1, 48000)] * channels, axis=1), 48000))
    assert level(load(path)[0]) == pytest.approx(0.5, rel=0.01)


def test_a_stream_that_changes_on_the_way(tmp_path):
    """Radio streams do, and MP3s that were glued together."""
    one = save(tmp_path / "1.mp3", tone(500, 3, 44100), layout="mono").read_bytes()
    two = save(tmp_path / "2.mp3", tone(1500, 3, 22050), layout="stereo", rate=22050).read_bytes()
    (tmp_path / "a.mp3").write_bytes(one + two)
    samples, _ = load(tmp_path / "a.mp3")
    assert len(samples) == pytest.approx(6 * RATE, abs=0.2 * RATE)
    assert pitch(samples[RATE : 2 * RATE]) == pytest.approx(500, abs=2)
    assert pitch(samples[4 * RATE : 5 * RATE]) == pytest.approx(1500, abs=2)


# -- times -------------------------------------------------------------------------------------------------------


def test_audio_that_begins_after_the_video_begins_with_silence(tmp_path):
    path = save(tmp_path / "a.mkv", sweep(4, 32000), video=True, begin=1.5)
    samples, audio = load(path)
    assert not samples[: int(1.49 * RATE)].any()
    assert lag(samples[int(1.5 * RATE) :], sweep(4, RATE)) == pytest.approx(0, abs=0.002)
    assert audio.notes == ()
    part, _ = load(path, start=1, duration=2)
    assert lag(part[RATE // 2 :], sweep(4, RATE)) == pytest.approx(0, abs=0.002)


def test_silence_stands_for_what_is_missing(tmp_path):
    """What browsers record while a connection is gone; without it all that follows would be too early."""
    samples, audio = load(save(tmp_path / "a.mkv", sweep(10, 32000), hole=(3, 5)))
    assert len(samples) == pytest.approx(10 * RATE, abs=0.1 * RATE)
    assert lag(samples[6 * RATE :], sweep(10, RATE)[6 * RATE :]) == pytest.approx(0, abs=0.002)
    assert not samples[int(3.2 * RATE) : int(4.8 * RATE)].any()
    (note,) = audio.notes
    assert note.endswith("s are missing in one place, silence stands for them")


@pytest.mark.parametrize("until", [3.3, 3.9])
def test_silence_stands_for_a_short_piece_that_is_missing(tmp_path, until):
    samples, audio = load(save(tmp_path / "a.mkv", sweep(6, 32000), hole=(3, until)))
    assert lag(samples[4 * RATE :], sweep(6, RATE)[4 * RATE :]) == pytest.approx(0, abs=0.002)
    (note,) = audio.notes
    assert note.endswith("s are missing in one place, silence stands for them")


def test_what_a_clock_is_sloppy_by_is_no_gap(tmp_path):
    samples, audio = load(save(tmp_path / "a.mkv", sweep(6, 32000), leap=(3, 0.06)))
    assert audio.notes == () and len(samples) == pytest.approx(6 * RATE, abs=2)


def test_a_leap_of_the_clock_puts_in_nothing(tmp_path):
    samples, audio = load(save(tmp_path / "a.ts", sweep(6, 48000), leap=(3, 90_000)))
    assert lag(samples, sweep(6, RATE)) == pytest.approx(0, abs=0.03)
    assert len(samples) == pytest.approx(6 * RATE, abs=0.1 * RATE)
    assert audio.notes == ("its clock leaps on the way, times are counted by what is decoded",)


def test_a_clock_that_begins_again_drops_nothing(tmp_path):
    """As where two recordings of a camera were joined with cat."""
    parts = [save(tmp_path / f"{frequency}.ts", tone(frequency, 3, 48000)) for frequency in (500, 1500)]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    samples, _ = load(tmp_path / "a.ts")
    assert len(samples) == pytest.approx(6 * RATE, abs=0.2 * RATE)
    assert pitch(samples[RATE : 2 * RATE]) == pytest.approx(500, abs=2)
    assert pitch(samples[4 * RATE : 5 * RATE]) == pytest.approx(1500, abs=2)
