"""Data sets in their official layouts: what is read, and how the rest is reported."""

import collections
import csv
import shutil

import numpy as np
import pytest
import soundfile
import soxr

from input_pipeline import DataError, prepare
from tests.input_pipeline.conftest import assert_left_out, ids, prepare_quietly


class TestQuickstart:
    @pytest.mark.fast
    def test_is_determined_by_the_seed(self, tmp_path):
        one, again, other = (
            prepare(
                "quickstart",
                prepared_dir=str(tmp_path / place),
                sample_rate=16000,
                train_clips=20,
                test_clips=20,
                seed=seed,
                progress=False,
            )
            for place, seed in (("a", 0), ("b", 0), ("a", 1))
        )
        assert one.fingerprint("train+test") == again.fingerprint("train+test")
        hashes = [row.sha256 for part in (one, other) for row in part.manifest("train+test").rows]
        assert len(set(hashes)) == 80

    @pytest.mark.fast
    def test_ten_equal_classes_of_clips_of_1_to_2_s(self, quickstart):
        assert len(quickstart.labels) == 10
        assert quickstart.splits == ("train", "test")
        np.testing.assert_array_equal(quickstart.targets("train").sum(axis=0), 5)
        lengths = [row.samples for row in quickstart.manifest("train").rows]
        assert 8000 <= min(lengths) < 9000
        assert 15000 < max(lengths) <= 16000

    def test_says_that_it_is_synthetic(self, quickstart):
        info = (quickstart.folder / "dataset_info.json").read_text()
        assert "Synthetic: no sound here was ever recorded" in info
        assert '"synthetic": true' in (quickstart.folder / "metadata.json").read_text()


class TestFsdd:
    def test_real_copy_has_the_official_split(self, data_dir, tmp_path):
        prepared = prepare_quietly("fsdd", data_dir / "fsdd", tmp_path)
        with (data_dir / "fsdd" / "meta.csv").open() as file:
            table = list(csv.DictReader(file))
        for split in ("train", "test"):
            expected = {
                row["filename"].removesuffix(".flac"): row["category"]
                for row in table
                if row["split"] == split
            }
            rows = prepared.manifest(split).rows
            assert {row.id: row.labels[0] for row in rows} == expected
            assert not prepared.manifest(split).rejected
        for index in (0, 1234, 2699):
            record = prepared.source("train")[index]
            stored, _ = soundfile.read(
                data_dir / "fsdd" / "audio" / f"{record['id'].decode()}.flac", dtype="int16"
            )
            np.testing.assert_array_equal(record["audio"], stored)

    @pytest.mark.fast
    def test_official_layout(self, write_sounds, tmp_path):
        names = [f"recordings/{d}_theo_{take}.wav" for d in (0, 7) for take in (0, 4, 5, 49)]
        prepared = prepare_quietly("fsdd", write_sounds(dict.fromkeys(names, 100)), tmp_path)
        assert ids(prepared, "test") == ["0_theo_0", "0_theo_4", "7_theo_0", "7_theo_4"]
        assert ids(prepared, "train") == ["0_theo_49", "0_theo_5", "7_theo_49", "7_theo_5"]
        assert prepared.labels[7] == "seven"
        np.testing.assert_array_equal(prepared.targets("test").argmax(axis=1), [0, 0, 7, 7])

    def test_unknown_file_names_are_left_out(self, write_sounds, tmp_path, capsys):
        folder = write_sounds({"recordings/0_theo_0.wav": 100, "recordings/hello.wav": 100})
        assert_left_out(prepare_quietly("fsdd", folder, tmp_path), ["recordings/hello.wav"], capsys)
        assert_left_out(
            prepare_quietly("fsdd", folder, tmp_path), ["recordings/hello.wav"], capsys
        )  # the copy is reused
        (folder / "recordings" / "0_theo_0.wav").unlink()
        with pytest.raises(DataError, match="lists no clips"):
            prepare_quietly("fsdd", folder, tmp_path)

    def test_a_duplicate_clip_is_refused(self, write_sounds, tmp_path):
        folder = write_sounds({"recordings/0_theo_0.wav": 100, "audio/0_theo_0.flac": 100})
        with pytest.raises(DataError, match=r"1 of 2 files .*0_theo_0: listed a second time"):
            prepare_quietly("fsdd", folder, tmp_path, max_failed_share=0.0)


@pytest.fixture
def esc(data_dir, tmp_path):
    """The first two clips of each class and fold of ESC-10, in the official layout with its table."""
    folder, taken = tmp_path / "ESC-50-master", collections.Counter()
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    with (data_dir / "esc10_44k1" / "meta.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (folder / "meta" / "esc50.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            taken[row["fold"], row["target"]] += 1
            if taken[row["fold"], row["target"]] <= 2:
                name = row["filename"]
                shutil.copy(data_dir / "esc10_44k1" / "audio" / name, folder / "audio" / name)
                writer.writerow(row | {"filename": name.replace(".ogg", ".wav")})
    return folder


class TestEsc50:
    def test_a_table_with_wav_names_finds_ogg_files(self, esc, tmp_path, data_dir):
        prepared = prepare_quietly("esc50", esc, tmp_path / "p", subset="esc10", sample_rate=16000)
        assert prepared.splits == ("fold1", "fold2", "fold3", "fold4", "fold5")
        assert prepared.labels[:3] == ("dog", "rooster", "rain")
        assert prepared.targets("fold1+fold5").shape == (40, 10)
        for split in prepared.splits:
            assert all(name.startswith(split[-1]) for name in ids(prepared, split))
            np.testing.assert_array_equal(prepared.targets(split).sum(axis=0), 2)
            assert {len(record["audio"]) for record in prepared.source(split)} == {80000}

    def test_clips_are_cut_or_padded_to_5_s(self, esc, tmp_path, data_dir):
        prepared = prepare_quietly("esc50", esc, tmp_path / "p", subset="esc10", sample_rate=16000)
        lengths = set()
        for record in prepared.source("fold1"):
            name = f"{record['id'].decode()}.ogg"
            decoded, _ = soundfile.read(esc / "audio" / name, dtype="float32")
            lengths.add(len(decoded) > 220500)
            expected = np.rint(soxr.resample(decoded, 44100, 16000, "HQ") * 32768)[:80000]
            expected = np.clip(np.pad(expected, (0, 80000 - len(expected))), -32768, 32767)
            np.testing.assert_array_equal(record["audio"], expected)
        assert True in lengths

    def test_esc50_with_only_the_subset_present_is_refused(self, esc, tmp_path):
        with pytest.raises(DataError, match=r"has 10 classes, but esc50 has 50.*config.dataset.subset"):
            prepare_quietly("esc50", esc, tmp_path / "p")

    def test_unknown_subset(self, esc, tmp_path):
        with pytest.raises(DataError, match="'esc20' must be 'esc50' or 'esc10'"):
            prepare_quietly("esc50", esc, tmp_path / "p", subset="esc20")

    def test_a_missing_file_is_rejected(self, esc, tmp_path):
        removed = sorted((esc / "audio").iterdir())[0]
        removed.unlink()
        prepared = prepare_quietly("esc50", esc, tmp_path / "p", subset="esc10")
        (absent,) = prepared.manifest("fold1").rejected
        assert (absent.id, absent.reason) == (removed.stem, f"no sound file audio/{removed.stem}.wav")
        assert prepared.targets("fold1").sum() == 19
        with pytest.raises(DataError, match=r"1 of 20 files .*no sound file audio/.*max_failed_share=0"):
            prepare_quietly("esc50", esc, tmp_path / "p", subset="esc10", max_failed_share=0.0)

    def test_files_outside_the_subset_are_not_reported(self, esc, tmp_path):
        first = sorted((esc / "audio").iterdir())[0]
        for name in ("1-0-A-49", "unheard-of"):
            shutil.copy(first, esc / "audio" / f"{name}.ogg")
        with (esc / "meta" / "esc50.csv").open("a") as table:
            table.write("1-0-A-49.wav,1,49,hand_saw,False,1,A\n")
        prepared = prepare_quietly("esc50", esc, tmp_path / "p", subset="esc10")
        assert [left_out.id for left_out in prepared.unlisted()] == ["audio/unheard-of.ogg"]

    @pytest.mark.fast
    def test_a_missing_table_is_refused(self, write_sounds, tmp_path):
        folder = write_sounds({"audio/1-100032-A-0.wav": 100})
        with pytest.raises(DataError, match=r"has neither meta/esc50.csv nor meta.csv"):
            prepare_quietly("esc50", folder, tmp_path / "p")


class TestRavdess:
    def test_real_copy_is_split_by_actor(self, data_dir, tmp_path):
        """A part of six actors has the folds, labels and rates that the data set's own table gives."""
        with (data_dir / "ravdess" / "meta.csv").open() as file:
            table = [row for row in csv.DictReader(file) if row["statement"] + row["repetition"] == "11"]
        table = [row for row in table if row["actor"] in ("1", "6", "7", "12", "13", "24")]
        for row in table:
            folder = tmp_path / "ravdess" / f"Actor_{int(row['actor']):02}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(data_dir / "ravdess" / "audio" / row["filename"], folder)
        prepared = prepare_quietly("ravdess", tmp_path / "ravdess", tmp_path / "p")
        actors = {"fold1": ("1", "6"), "fold2": ("7", "12"), "fold3": ("13",), "fold4": ("24",)}
        assert prepared.splits == tuple(actors)
        for split, members in actors.items():
            rows = prepared.manifest(split).rows
            expected = {r["filename"][:-4]: r["category"] for r in table if r["actor"] in members}
            assert {row.id: row.labels[0] for row in rows} == expected
            assert {row.source_rate for row in rows} == {48000}

    @pytest.mark.fast
    def test_each_speaker_is_in_one_fold_with_even_sexes(self, write_sounds, tmp_path, capsys):
        names = [f"Actor_{a:02}/03-01-0{e}-01-01-01-{a:02}.wav" for a in range(1, 25) for e in (1, 8)]
        folder = write_sounds(dict.fromkeys([*names, "song/03-02-01-01-01-01-01.wav"], 100))
        prepared = prepare_quietly("ravdess", folder, tmp_path / "p")
        assert_left_out(prepared, ["song/03-02-01-01-01-01-01.wav"], capsys)
        actors = [{int(name[-2:]) for name in ids(prepared, split)} for split in prepared.splits]
        assert [len(fold) for fold in actors] == [6] * 4
        assert set.union(*actors) == set(range(1, 25))
        assert [sum(actor % 2 for actor in fold) for fold in actors] == [3] * 4
        assert prepared.labels[7] == "surprised"
        with pytest.raises(DataError, match=r"config.dataset.folds=5 must divide"):
            prepare_quietly("ravdess", folder, tmp_path / "p", folds=5)

    def test_unknown_file_names_are_left_out(self, write_sounds, tmp_path, capsys):
        names = ["03-01-09-01-01-01-01.wav", "03-01-01-01-01-01-25.wav", "03-01-01-01-01-01-01.wav"]
        prepared = prepare_quietly("ravdess", write_sounds(dict.fromkeys(names, 100)), tmp_path)
        assert ids(prepared, "fold1") == ["03-01-01-01-01-01-01"]
        assert_left_out(prepared, sorted(names[:2]), capsys)


class TestEmodb:
    SPEAKERS = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")

    @pytest.mark.fast
    def test_each_speaker_is_in_one_fold(self, write_sounds, tmp_path):
        names = [
            f"wav/{speaker}a0{i + 1}{e}a.wav" for speaker in self.SPEAKERS for i, e in enumerate("WLEAFTN")
        ]
        prepared = prepare_quietly("emodb", write_sounds(dict.fromkeys(names, 100)), tmp_path / "p")
        assert [{name[:2] for name in ids(prepared, split)} for split in prepared.splits] == [
            {"03", "08"},
            {"09", "10"},
            {"11", "12"},
            {"13", "14"},
            {"15", "16"},
        ]
        # Letters in the published names: W for Wut (anger) ... T for Trauer (sadness).
        emotions = {row.id[5]: row.labels for row in prepared.manifest("fold1").rows}
        assert emotions["W"] == ("anger",)
        assert emotions["T"] == ("sadness",)
        np.testing.assert_array_equal(prepared.targets("fold5").sum(axis=0), 2)

    def test_real_sound_under_published_names(self, data_dir, tmp_path):
        sounds = sorted((data_dir / "ravdess" / "audio").iterdir())
        (tmp_path / "wav").mkdir()
        for speaker, sound in zip(self.SPEAKERS, sounds, strict=False):
            shutil.copy(sound, tmp_path / "wav" / f"{speaker}b10Fc.ogg")
        prepared = prepare_quietly("emodb", tmp_path / "wav", tmp_path / "p", folds=10)
        assert ids(prepared, "fold10") == ["16b10Fc"]
        assert len(prepared.source("fold10")[0]["audio"]) == round(soundfile.info(sounds[9]).duration * 8000)

    def test_wrong_folds_are_refused_and_unknown_speakers_left_out(self, write_sounds, tmp_path, capsys):
        folder = write_sounds({"03a01Fa.wav": 100, "04a01Fa.wav": 100})
        with pytest.raises(DataError, match=r"config.dataset.folds=4 must divide"):
            prepare_quietly("emodb", folder, tmp_path / "p", folds=4)
        prepared = prepare_quietly("emodb", folder, tmp_path / "p")
        assert ids(prepared, "fold1") == ["03a01Fa"]
        assert_left_out(prepared, ["04a01Fa.wav"], capsys)
