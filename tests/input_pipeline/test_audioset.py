"""AudioSet's official lists, with real sound under the names that existing copies use."""

import csv
import shutil

import numpy as np
import pytest
import soundfile

from configs.audioset import get_config
from input_pipeline import DataError, prepare, train_batches
from input_pipeline.datasets.audioset_lists import class_names
from rann_jax.experiment import data_options
from tests.input_pipeline.conftest import AUDIOSET_CLASSES, prepare_audioset


def rows_of(lines):
    """Return the labels by id of a segment list, read without a csv parser."""
    rows = [line.rstrip().split(", ", 3) for line in lines if not line.startswith("#")]
    return {youtube_id: labels.strip('"').split(",") for youtube_id, _, _, labels in rows}


@pytest.fixture
def audioset(data_dir, tmp_path):
    """Four rows each of two official lists, with ESC-10's sound for all rows but the last."""
    folder, meta = tmp_path / "audioset", data_dir / "audioset_meta"
    sounds = sorted((data_dir / "esc10_44k1" / "audio").iterdir())
    (folder / "metadata").mkdir(parents=True)
    shutil.copy(meta / AUDIOSET_CLASSES, folder / "metadata")
    listed = {}
    for split in ("balanced_train", "eval"):
        with (meta / f"{split}_segments.csv").open() as file:
            lines = [next(file) for _ in range(7)]
        (folder / "metadata" / f"{split}_segments.csv").write_text("".join(lines))
        listed[split] = rows_of(lines)
    nested = folder / "audios" / "balanced_train_segments"
    nested.mkdir(parents=True)
    for youtube_id, sound in zip(listed["balanced_train"], sounds, strict=False):
        samples, rate = soundfile.read(sound)
        soundfile.write(nested / f"Y{youtube_id}.wav", samples, rate)  # the names that PANNs uses
    for youtube_id, sound in zip(list(listed["eval"])[:-1], sounds[10:], strict=False):
        shutil.copy(sound, folder / f"{youtube_id}.ogg")
    return folder, listed


def test_official_lists_and_real_sound(audioset, data_dir, tmp_path, capsys):
    folder, listed = audioset
    prepared = prepare_audioset(folder, tmp_path / "p")
    assert prepared.splits == ("eval", "balanced")
    with (data_dir / "audioset_meta" / AUDIOSET_CLASSES).open() as file:
        classes = {row["mid"]: (int(row["index"]), row["display_name"]) for row in csv.DictReader(file)}
    assert list(prepared.labels) == [name for _, name in sorted(classes.values())]
    assert len(prepared.labels) == 527
    for split, name in (("balanced", "balanced_train"), ("eval", "eval")):
        expected = dict(list(listed[name].items())[: 4 if split == "balanced" else 3])
        assert [row.id for row in prepared.manifest(split).rows] == list(expected)
        targets = [set(np.flatnonzero(target)) for target in prepared.targets(split)]
        assert targets == [{classes[mid][0] for mid in mids} for mids in expected.values()]
    assert max(map(len, listed["balanced_train"].values())) > 1  # several labels a clip
    (missing,) = prepared.manifest("eval").rejected
    assert missing.id == list(listed["eval"])[-1]
    assert missing.reason == f"no sound file named {missing.id} or Y{missing.id}"
    assert "1 of 4 files of split 'eval'" in capsys.readouterr().err
    samples, rate = soundfile.read(folder / f"{next(iter(listed['eval']))}.ogg")
    first = prepared.source("eval")[0]
    assert len(first["audio"]) == round(len(samples) * 16000 / rate)


def test_the_config_reads_it_class_balanced(audioset, tmp_path):
    folder, listed = audioset
    config = get_config("size=small")
    config.data_dir, config.prepared_dir = str(folder), str(tmp_path / "p")
    prepared = prepare(**data_options(config), progress=False)
    assert len(prepared.labels) == config.num_classes
    assert (config.sampling, get_config().sampling) == ("balanced", "balanced")
    classes = {mid for mids in listed["balanced_train"].values() for mid in mids}
    batches = train_batches(
        prepared,
        config.splits.train,
        crop_samples=int(config.t_c * config.sample_rate),
        batch_size=len(classes),
        seed=0,
        sampling=config.sampling,
    )
    first = next(batches)
    batches.close()
    assert first["audio"].shape == (len(classes), 64000)
    assert np.count_nonzero(first["labels"].any(axis=0)) == len(classes)  # every round has every class


@pytest.fixture
def tiny(data_dir, tmp_path):
    """A folder with three sounds of 0.1 s and a list, and a function that writes lists."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    shutil.copy(data_dir / "audioset_meta" / AUDIOSET_CLASSES, folder)
    for i in range(3):
        soundfile.write(folder / f"Yid_-{i}345678.wav", np.full(1600, 0.1), 16000)

    def write(*rows, name="eval_segments.csv"):
        head = "# Segments csv\n# num_ytids=3\n# YTID, start_seconds, end_seconds, positive_labels\n"
        (folder / name).write_text(head + "".join(f"{row}\n" for row in rows))

    write(*(f'Yid_-{i}34567, 0.000, 10.000, "/m/09x0r"' for i in range(3)))
    return folder, write


def test_ids_that_begin_with_y_are_not_confused(tiny, tmp_path, capsys):
    """An 11-character id may begin with Y: 'Yid_-034567' must not match 'Y' + 'id_-0345678'."""
    folder, write = tiny
    write('Yid_-034567, 0.000, 10.000, "/m/09x0r"', 'id_-0345678, 0.000, 10.000, "/m/09x0r"')
    manifest = prepare_audioset(folder, tmp_path / "p").manifest("eval")
    assert [row.id for row in manifest.rows] == ["id_-0345678"]
    assert (
        "note: audioset: 2 sounds of the folder are in no split and were left out" in capsys.readouterr().err
    )
    assert [source.id for source in manifest.rejected] == ["Yid_-034567"]


def test_rejected_rows_have_their_reasons(tiny, tmp_path):
    folder, write = tiny
    write('id_-0345678, 30.000, 40.000, "/m/09x0r,/m/05zppz,/m/09x0r"')
    write(
        'id_-0345678, 30.000, 40.000, "/m/09x0r"',
        'id_-1345678, 0.000, 10.000, "/m/nothing,/m/09x0r"',
        'id_-2345678, 0.000, 10.000, "/m/09x0r"',
        'longlonglon, 0.000, 3.000, "/m/09x0r"',
        'twicetwicet, 0.000, 3.000, "/m/09x0r"',
        name="balanced_train_segments.csv",
    )
    soundfile.write(folder / "longlonglon.flac", np.zeros(16000 * 5), 16000)
    for suffix in ("flac", "wav"):
        soundfile.write(folder / f"twicetwicet.{suffix}", np.zeros(1600), 16000)
    prepared = prepare_audioset(folder, tmp_path / "p", max_failed_share=0.9)
    assert [row.labels for row in prepared.manifest("eval").rows] == [("Speech", "Male speech, man speaking")]
    manifest = prepared.manifest("balanced")
    assert [row.id for row in manifest.rows] == ["id_-2345678"]
    assert {source.id: source.reason for source in manifest.rejected} == {
        "id_-0345678": "listed a second time",
        "id_-1345678": "unknown label '/m/nothing'",
        "longlonglon": "5.0 s long, but its segment has 3 s: cut the segment out",
        "twicetwicet": "several sound files: twicetwicet.flac, twicetwicet.wav",
    }


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("id_-0345678, 30.000, 40.000", "line 4: expected id"),
        ('id_-0345678, 40.000, 30.000, "/m/09x0r"', "line 4: expected id"),
        ('id_-0345678, zero, 30.000, "/m/09x0r"', "line 4: expected id"),
        ('id_-0345678, 0.000, 10.000, "/m/09x0r', "not a csv table"),
    ],
    ids=["three_values", "backwards", "no_number", "open_quote"],
)
def test_broken_lists_are_refused(tiny, tmp_path, row, says):
    folder, write = tiny
    write(row)
    with pytest.raises(DataError, match=says) as caught:
        prepare_audioset(folder, tmp_path / "p")
    assert "\n" not in str(caught.value)


def test_missing_or_changed_lists_are_refused(tiny, tmp_path):
    folder, _ = tiny
    (folder / "copy").mkdir()
    shutil.copy(folder / "eval_segments.csv", folder / "copy")
    with pytest.raises(DataError, match=r"copy/eval_segments.csv and eval_segments.csv .*remove one"):
        prepare_audioset(folder, tmp_path / "p")
    shutil.rmtree(folder / "copy")
    (folder / "eval_segments.csv").unlink()
    with pytest.raises(DataError, match=r"none of the lists eval_segments.csv"):
        prepare_audioset(folder, tmp_path / "p")
    lines = (folder / AUDIOSET_CLASSES).read_text().splitlines()
    (folder / AUDIOSET_CLASSES).write_text("\n".join(lines[:-1]))
    with pytest.raises(DataError, match="not AudioSet's list of 527 classes"):
        prepare_audioset(folder, tmp_path / "p")
    (folder / AUDIOSET_CLASSES).unlink()
    with pytest.raises(DataError, match=f"lacks {AUDIOSET_CLASSES}"):
        prepare_audioset(folder, tmp_path / "p")


@pytest.mark.fast
def test_a_class_list_with_a_duplicate_name_is_refused(tmp_path):
    (tmp_path / AUDIOSET_CLASSES).write_text("index,mid,display_name\n0,/m/0,Dog\n1,/m/1,Dog\n")
    with pytest.raises(
        DataError, match=rf"{AUDIOSET_CLASSES}, column display_name: 'Dog' names two"
    ) as caught:
        class_names(tmp_path / AUDIOSET_CLASSES, 2)
    assert "\n" not in str(caught.value)
