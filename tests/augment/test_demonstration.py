"""The program that demonstrates every augmentation on a recording: its sounds, its picture, user errors."""

import io
import os
import re

import numpy as np
import pytest
import soundfile

from rann_jax import augment
from rann_jax.augment.__main__ import main
from rann_jax.augment.demonstration import Example, demonstrate, draw, resounded

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RATE, SAMPLES = 8000, 4000
EVERY = {"original", "partner", *augment.AUGMENTATIONS}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Half a second of A4, stereo at 8 kHz, with a silent end; noise.wav beside it lasts 0.25 s at 16 kHz."""
    folder = tmp_path_factory.mktemp("sound")
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SAMPLES) / RATE)
    tone[3600:] = 0
    soundfile.write(folder / "a4.wav", np.stack([tone, tone], axis=1), RATE)
    soundfile.write(folder / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(4000), 2 * RATE)
    return folder / "a4.wav"


@pytest.fixture(scope="module")
def written(recording, tmp_path_factory):
    """The program's output folder, which did not exist before."""
    out = tmp_path_factory.mktemp("out") / "made"
    partner = str(recording.parent / "noise.wav")
    assert main([str(recording), "--with", partner, "--out", str(out), "--seed", "3"]) == 0
    return out


def test_every_augmentation_is_written_as_long_as_the_recording(recording, written):
    assert {file.name for file in written.iterdir()} == {f"{name}.wav" for name in EVERY} | {
        "augmentations.png"
    }
    sounds = {}
    for name in EVERY:
        sounds[name], rate = soundfile.read(written / f"{name}.wav")
        assert (rate, sounds[name].shape) == (RATE, (SAMPLES,))
        assert np.isfinite(sounds[name]).all()
    original = sounds["original"]
    np.testing.assert_array_equal(original, soundfile.read(recording)[0][:, 0])
    for name in EVERY - {"original"}:
        assert (sounds[name] != original).any(), name
    assert not sounds["partner"][2000:].any()  # resampled, and shorter than the recording
    louder = sounds["gain"][103] / original[103]
    np.testing.assert_allclose(sounds["gain"], louder * original, atol=1e-6)
    assert (written / "augmentations.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_writes_the_same_bytes(recording, written, tmp_path, capsys):
    partner = str(recording.parent / "noise.wav")
    assert main([str(recording), "--with", partner, "--out", str(tmp_path), "--seed", "3"]) == 0
    listed = capsys.readouterr().out.split()
    assert len(listed) == len(EVERY) + 1
    for file in written.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name
        assert str(tmp_path / file.name) in listed


def test_another_seed_draws_other_values(recording):
    tone = soundfile.read(recording, dtype="float32")[0][:, 0]
    first, second = ({e.name: e for e in demonstrate(tone, tone[::-1], RATE, seed)} for seed in (3, 4))
    for name in augment.AUGMENTATIONS:
        assert (first[name].sound != second[name].sound).any(), name
        assert first[name].how != second[name].how or name == "spec_augment", name
    assert first["between_class"].how.endswith("% original")
    assert first["spec_augment"].how.startswith("range: time_stripes 2, time_share 0.0625, ")


@pytest.mark.parametrize("seed", [3, 4])
def test_labels_tell_what_was_applied(recording, seed):
    """What the sounds themselves show: level, position, duration, pitch and signal-to-noise ratio."""
    tone = soundfile.read(recording, dtype="float32")[0][:, 0]
    length = 3000  # so short that even the slowest sound is not cut
    tone[length:] = 0
    tone[:400] *= np.linspace(0, 1, 400, dtype=np.float32) ** 2  # so that positions differ
    made = {example.name: example for example in demonstrate(tone, tone[::-1], RATE, seed)}
    told = {name: float(re.search(r"-?[\d.]+", made[name].how)[0]) for name in augment.AUGMENTATIONS}
    sounds = {name: example.sound.astype(np.float64) for name, example in made.items()}

    level = 10 * np.log10(np.sum(sounds["gain"] ** 2) / np.sum(tone.astype(np.float64) ** 2))
    assert told["gain"] == pytest.approx(level, abs=0.06)
    noise = (sounds["white_noise"] - tone)[:length]
    snr = 10 * np.log10(np.mean(tone[:length].astype(np.float64) ** 2) / np.mean(noise**2))
    assert told["white_noise"] == pytest.approx(snr, abs=0.06)
    (shift,) = (n for n in range(length) if (sounds["roll"][:length] == np.roll(tone[:length], n)).all())
    assert told["roll"] % 100 == pytest.approx(100 * shift / length, abs=0.06)
    (ends,) = np.nonzero(sounds["stretch"])
    assert told["stretch"] == pytest.approx(length / (ends[-1] + 1), rel=0.01)
    spectrum = np.abs(np.fft.rfft(sounds["pitch"][:length] * np.hanning(length), 16 * length))
    semitones = 12 * np.log2(np.argmax(spectrum) / len(spectrum) * RATE / 2 / 440)
    assert told["pitch"] == pytest.approx(semitones, abs=0.1)
    kept = round(0.8 * SAMPLES)
    (start,) = (n for n in range(length) if np.array_equal(sounds["crop"][:kept], tone[n : n + kept]))
    assert told["crop"] == pytest.approx(100 * start / SAMPLES, abs=0.06)


@pytest.mark.fast
def test_the_recording_and_its_partner_are_all_that_is_processed(monkeypatch):
    """Each example is mixed with the next one of its batch, so a batch of two is enough."""
    batches = []

    def run(augmentation, key, x, labels):
        batches.append(len(x))
        return x, labels

    monkeypatch.setattr("rann_jax.augment.demonstration._run", run)
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLES).astype(np.float32)
    demonstrate(sound, sound[::-1], RATE, 0)
    assert batches == [2] * len(augment.AUGMENTATIONS)


def test_a_change_of_the_image_is_made_audible():
    """A gain of the image in dB is applied to the sound, in frames of 128 samples and in bins."""
    tone = np.sin(2 * np.pi * 440 * np.arange(SAMPLES) / RATE).astype(np.float32)
    gain = np.zeros((128, 1 + SAMPLES // 128))
    gain[:, 10:22] = -60.0
    heard = resounded(tone, gain, RATE)
    assert np.abs(heard[15 * 128 : 17 * 128]).max() < 2e-3
    np.testing.assert_allclose(heard[: 7 * 128], tone[: 7 * 128], atol=1e-4)
    gain = np.zeros_like(gain)
    gain[64:] = -60.0  # above 1.6 kHz
    np.testing.assert_allclose(resounded(tone, gain, RATE)[600:-600], tone[600:-600], atol=1e-3)
    gain = -60.0 - gain
    assert np.abs(resounded(tone, gain, RATE)[600:-600]).max() < 2e-3


def test_panels_are_labelled_in_hertz_and_seconds():
    """Axes are in Hz and seconds, and a `$` in a file's name is not parsed as a formula."""
    image = np.full((128, 10), -60.0)
    image[50] = 0
    sound = np.zeros(RATE, np.float32)
    figure = draw([Example("original", "", sound, image), Example("mixup", "50%", sound, image)], RATE, "$_$")
    panels = [axes for axes in figure.axes if axes.get_ylabel() == "frequency (Hz)"]
    assert len(panels) == 2
    assert {axes.get_xlabel() for axes in panels} == {"time (s)"}
    assert panels[0].get_xlim() == (0, 1)
    assert "1k" in [tick.get_text() for tick in panels[0].get_yticklabels()]
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/none.wav"], "none.wav: no such file"),
        (["{folder}/text.wav"], "text.wav: not a sound file"),
        (["{folder}/nan.wav"], "nan.wav: NaN"),
        (["{folder}/loud.wav"], "loud.wav: samples of 1e+25 times full scale"),
        (["{folder}/slow.wav"], "slow.wav: its rate is 500 Hz, not between 1000 and 768000"),
        (["{folder}/a4.wav", "--with", "{folder}/none.wav"], "none.wav: no such file"),
        (["{folder}/a4.wav", "--start", "3"], "it lasts 0.5 s"),
        (["{folder}/a4.wav", "--out", "{folder}/a4.wav"], "name a folder"),
        (["{folder}/a.raw"], "a.raw: headerless sound gives no sample rate: convert"),
        (["{folder}/a4.wav", "--seed", "99999999999999999999"], "--seed=99999999999999999999: it must be"),
        (["{folder}/a4.wav", "--seed", "-1"], "--seed=-1: it must be between 0 and 4294967295"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(recording, arguments, message, capsys):
    folder = recording.parent
    (folder / "text.wav").write_text("not sound")
    (folder / "a.raw").write_bytes(bytes(8000))
    soundfile.write(folder / "nan.wav", np.full(100, np.nan), RATE, subtype="FLOAT")
    soundfile.write(folder / "loud.wav", np.full(100, 1e25), RATE, subtype="FLOAT")
    soundfile.write(folder / "slow.wav", np.zeros(100), 500)
    given = [part.format(folder=folder) for part in arguments]
    assert main(["--out", str(folder / "new"), *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "new").exists()


@pytest.mark.fast
def test_names_that_are_not_utf_8(recording, tmp_path, capsys, monkeypatch):
    example = Example("original", "", np.zeros(RATE, np.float32), np.zeros((128, 10)))
    monkeypatch.setattr("rann_jax.augment.__main__.demonstrate", lambda *_: [example])
    file, out = (tmp_path / os.fsdecode(name) for name in (b"caf\xe9.wav", b"\xe9"))
    file.symlink_to(recording)
    assert main([str(file), "--out", str(out)]) == 0
    assert capsys.readouterr().out.split() == [
        f"{tmp_path}/\\xe9/{name}" for name in ("original.wav", "augmentations.png")
    ]
    assert (out / "augmentations.png").exists()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("original.wav", ["{folder}/original.wav"]),
        ("between_class.wav", ["{folder}/../link.wav"]),
        ("partner.wav", ["{a4}", "--with", "{folder}/../new/partner.wav"]),
    ],
)
def test_a_recording_is_not_replaced(name, arguments, recording, tmp_path, capsys, monkeypatch):
    """Output names may equal those of an earlier run's sounds, or of the user's own files."""
    monkeypatch.setattr("rann_jax.augment.__main__.demonstrate", None)
    folder = tmp_path / "new"
    folder.mkdir()
    content = recording.read_bytes()
    (folder / name).write_bytes(content)
    (tmp_path / "link.wav").symlink_to(folder / name)
    given = [part.format(folder=folder, a4=recording) for part in arguments]
    assert main([*given, "--out", str(folder)]) == 2
    error = (
        f"error: --out {folder}: {folder / name} is an input and would be overwritten: name another folder\n"
    )
    assert capsys.readouterr().err == error
    assert [path.read_bytes() for path in folder.iterdir()] == [content]


def test_help_explains_options_and_outputs(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for part in ("DIR/NAME.wav", "augmentations.png", "--with", "--seed", "examples:", "FILE reversed"):
        assert part in shown
