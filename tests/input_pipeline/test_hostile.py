"""Unusual clips, one at a time through the whole preparation: kept, or rejected with a reason."""

import struct

import numpy as np
import pytest
import soundfile

from input_pipeline import DataError, prepare
from tests.input_pipeline.conftest import encoded, noise, prepare_folder

RATE = 16000
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)  # 1 s


@pytest.fixture
def prepare_one(tmp_path):
    """A function that prepares an odd file beside a plain one; returns its row and samples, or the reason."""

    def prepared(content: bytes, name: str = "a.wav"):
        folder = tmp_path / "sounds"
        for label in ("odd", "plain"):
            (folder / label).mkdir(parents=True)
        soundfile.write(folder / "plain" / "b.wav", TONE, RATE)
        (folder / "odd" / name).write_bytes(content)
        (folder / "one.csv").write_text(f"filename,label,split\nodd/{name},odd,s\nplain/b.wav,plain,s\n")
        copy = prepare_folder(folder, tmp_path / "p", sample_rate=RATE, max_failed_share=0.5)
        manifest = copy.manifest("s")
        assert manifest.listed == 2  # nothing disappears silently
        assert manifest.rows[-1].id == "plain/b.wav"
        if manifest.rejected:
            assert manifest.rejected[0].id == f"odd/{name}"
            return manifest.rejected[0].reason
        return manifest.rows[0], copy.source("s")[0]["audio"]

    return prepared


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite_are_rejected(prepare_one, subtype, value):
    samples = TONE.copy()
    samples[-1] = value
    assert prepare_one(encoded(samples, RATE, subtype=subtype)) == "NaN or infinite samples"


@pytest.mark.parametrize(
    ("container", "subtype", "steps"),
    [
        ("WAV", "PCM_U8", 256),
        ("WAV", "PCM_24", 1),
        ("WAV", "PCM_32", 1),
        ("WAV", "FLOAT", 1),
        ("WAV", "DOUBLE", 1),
        ("FLAC", "PCM_24", 1),
        ("AIFF", "PCM_32", 1),
    ],
)
def test_sample_formats(prepare_one, container, subtype, steps):
    """The samples are within `steps` 16-bit steps of the tone, without clipping."""
    row, samples = prepare_one(encoded(TONE, RATE, container=container, subtype=subtype))
    np.testing.assert_allclose(samples, TONE * 32768, rtol=0, atol=steps)
    assert (row.source_rate, row.channels, row.clipped) == (RATE, 1, 0)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_rates(prepare_one, rate):
    """Resampling keeps a tone's length, level and frequency."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    row, samples = prepare_one(encoded(tone, rate))
    assert (len(samples), row.source_rate) == (RATE, rate)
    middle = samples[2000:-2000] / 32768
    np.testing.assert_allclose(middle, TONE[2000:-2000], atol=2e-3)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(prepare_one, channels):
    gains = np.linspace(-0.5, 1.0, channels)
    row, samples = prepare_one(encoded(TONE[:, None] * gains, RATE, subtype="FLOAT"))
    assert row.channels == channels
    np.testing.assert_allclose(samples, TONE * gains.mean() * 32768, atol=1)


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "a.wav", "not decodable: Format not recognised."),
        (encoded(TONE, RATE)[:44], "a.wav", "truncated: its data has 0 of 32000 bytes"),
        (encoded(TONE[:0], RATE), "a.wav", "no samples"),
        (encoded(TONE, RATE)[:16000], "a.wav", "truncated: its data has 15956 of 32000 bytes"),
        (encoded(TONE, RATE, container="FLAC")[:-500], "a.flac", "not decodable"),
        (b"<!DOCTYPE html><title>404</title>", "a.mp3", "not decodable"),
    ],
    ids=["no_bytes", "header", "no_samples", "half_wave", "cut_flac", "page"],
)
def test_incomplete_files_are_rejected(prepare_one, content, name, reason):
    assert prepare_one(content, name).startswith(reason)


@pytest.mark.parametrize(
    ("container", "name"), [("WAV", "a.mp3"), ("FLAC", "a.wav"), ("OGG", "a.flac"), ("MP3", "a.aiff")]
)
def test_a_wrong_extension_changes_nothing(prepare_one, container, name):
    row, samples = prepare_one(encoded(TONE, RATE, container=container), name)
    assert (row.source_rate, row.channels) == (RATE, 1)
    np.testing.assert_allclose(samples[4000:-4000], TONE[4000:-4000] * 32768, atol=1000)


def wave_header(data_bytes: int) -> bytes:
    """Return the header of a file with 8-bit mono PCM at 8 kHz."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + data_bytes, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8,
        b"data", data_bytes,
    )  # fmt: skip


def test_hours_of_sound_are_rejected(prepare_one):
    hours = 8000 * 3600 * 3
    assert prepare_one(wave_header(hours) + b"\x80" * hours) == "longer than config.prepare.max_seconds=600"


def test_declared_hours_without_data_are_rejected(prepare_one):
    reason = prepare_one(wave_header(8000 * 3600 * 3) + b"\x80" * 8000)
    assert reason == "truncated: its data has 8000 of 86400000 bytes"


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_silence_is_accepted(prepare_one, container):
    row, samples = prepare_one(encoded(np.zeros(RATE), RATE, container=container))
    assert (row.peak, row.clipped, len(samples)) == (0.0, 0, RATE)
    assert not samples.any()


def test_one_sample_is_accepted(prepare_one):
    row, samples = prepare_one(encoded(np.array([0.5]), RATE))
    assert (row.samples, samples.tolist()) == (1, [16384])


def test_unknown_labels_and_duplicate_ids_are_rejected(write_sounds, tmp_path):
    """In a data set with fixed classes, bad rows are rejected one by one; only too many stop the run."""
    names = [f"audio/tram-lyon-{i}-0-a.wav" for i in range(8)]
    folder = write_sounds(dict.fromkeys(names, 800))
    rows = [f"{name}\ttram" for name in names]
    head = "filename\tscene_label\n"
    test = [rows[0], f"{names[1]}\ttramway", rows[0], rows[7]]
    (folder / "fold1_evaluate.csv").write_text(head + "\n".join(test) + "\n")
    (folder / "fold1_train.csv").write_text(head + "\n".join([*rows[2:7], rows[2]]) + "\n")
    options = {"data_dir": str(folder), "prepared_dir": str(tmp_path / "p"), "sample_rate": 8000}
    with pytest.raises(
        DataError, match=r"1 of 6 files of split 'train', 2 of 4 of 'test' .*max_failed_share=0,"
    ):
        prepare("dcase2019_task1a", progress=False, max_failed_share=0.0, **options)
    prepared = prepare("dcase2019_task1a", progress=False, max_failed_share=0.5, **options)
    assert [row.id for row in prepared.manifest("train").rows] == names[2:7]
    assert [(bad.id, bad.reason) for bad in prepared.manifest("train+test").rejected] == [
        (names[2], "listed a second time"),
        (names[1], "unknown label 'tramway'"),
        (names[0], "listed a second time"),
    ]


def test_a_training_clip_is_not_in_the_test_split(write_sounds, tmp_path):
    folder = write_sounds({f"audio/bus-oslo-{i}-0-a.wav": 800 for i in range(3)})
    head, row = "filename\tscene_label\n", "audio/bus-oslo-{}-0-a.wav\tbus\n"
    (folder / "fold1_train.csv").write_text(head + row.format(0) + row.format(1))
    (folder / "fold1_evaluate.csv").write_text(head + row.format(1) + row.format(2))
    prepared = prepare(
        "dcase2019_task1a",
        data_dir=str(folder),
        prepared_dir=str(tmp_path / "p"),
        sample_rate=8000,
        max_failed_share=0.5,
        progress=False,
    )
    assert [row.id for row in prepared.manifest("test").rows] == ["audio/bus-oslo-2-0-a.wav"]


def test_noise_beyond_full_scale_is_clipped_and_counted(prepare_one):
    loud = 2.1 * noise(RATE)  # a twentieth of it is beyond full scale
    row, samples = prepare_one(encoded(loud, RATE, subtype="FLOAT"))
    assert row.clipped == np.count_nonzero((np.rint(loud * 32768) > 32767) | (np.rint(loud * 32768) < -32768))
    assert row.peak == 1.0
    np.testing.assert_array_equal(samples, np.clip(np.rint(loud.astype(np.float32) * 32768), -32768, 32767))
