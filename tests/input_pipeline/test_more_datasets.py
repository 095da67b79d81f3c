"""Data sets that are not downloaded: tiny trees in the official layouts, with real sound."""

import itertools
import shutil

import numpy as np
import pytest
import soundfile
import soxr

from input_pipeline import DataError, survey
from tests.input_pipeline.conftest import assert_left_out, ids, prepare_quietly


@pytest.fixture
def place(data_dir, tmp_path):
    """A function that stores real clips under the given names, writes tables, and returns the folder."""
    rain_and_sea = sorted((data_dir / "esc10_44k1" / "audio").glob("*-1[01].ogg"))  # these are never silent
    sounds = itertools.cycle(rain_and_sea)

    def put(*names, table=None):
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = next(sounds)
            if path.suffix == ".ogg":
                shutil.copy(sound, path)
            else:
                samples, rate = soundfile.read(sound)
                soundfile.write(path, samples[: 2 * rate], rate)
        for name, lines in (table or {}).items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / "data"

    return put


def labels(prepared, split):
    return {row.id: row.labels for row in prepared.manifest(split).rows}


def assert_real(prepared, split, index, path, start=0.0, end=None):
    """Check that a stored clip is what soundfile and soxr make of (a part of) the file."""
    samples, rate = soundfile.read(path, dtype="float32")
    samples = samples[round(start * rate) : None if end is None else round(end * rate)]
    expected = np.rint(soxr.resample(samples, rate, 8000, "HQ") * 32768)
    stored = prepared.source(split)[index]["audio"]
    np.testing.assert_array_equal(stored, np.clip(expected, -32768, 32767).astype(np.int16))
    assert np.abs(stored).max() > 0


class TestGtzan:
    NAMES = tuple(f"genres/{genre}/{genre}.0000{i}.au" for genre in ("blues", "rock") for i in range(4))

    def test_folds_of_each_genre(self, place, tmp_path):
        folder = place(*self.NAMES)
        prepared = prepare_quietly("gtzan", folder, tmp_path / "p", folds=4)
        assert prepared.splits == ("fold1", "fold2", "fold3", "fold4")
        assert prepared.labels[0] == "blues"
        assert prepared.labels[9] == "rock"
        for split in prepared.splits:
            assert sorted(labels(prepared, split).values()) == [("blues",), ("rock",)]
        found = survey("gtzan", data_dir=str(folder), folds=4)
        assert (found.dealt, found.splits_from) == (True, "config.dataset.folds=4")
        name = ids(prepared, "fold1")[0]
        assert_real(prepared, "fold1", 0, folder / "genres" / name.partition(".")[0] / f"{name}.au")

    def test_fault_filtered_lists(self, place, tmp_path):
        lists = {
            "train_filtered.txt": ["blues/blues.00002.wav", "rock/rock.00001.wav"],
            "valid_filtered.txt": ["blues/blues.00000.wav"],
            "test_filtered.txt": ["rock/rock.00003.wav", "rock/rock.00099.wav"],
        }
        folder = place(*self.NAMES, table=lists)
        prepared = prepare_quietly("gtzan", folder, tmp_path / "p", max_failed_share=0.5)
        assert labels(prepared, "train") == {"blues.00002": ("blues",), "rock.00001": ("rock",)}
        assert ids(prepared, "valid") == ["blues.00000"]
        found = survey("gtzan", data_dir=str(folder))
        assert (found.dealt, found.splits_from) == (False, "data set 'gtzan'")
        (absent,) = prepared.manifest("test").rejected
        assert (absent.id, absent.reason) == ("rock.00099", "no sound file rock.00099")

    def test_unknown_file_names_are_left_out(self, place, tmp_path, capsys):
        folder = place(*self.NAMES, "genres/polka/polka.00000.au")
        prepared = prepare_quietly("gtzan", folder, tmp_path / "p", folds=2)
        assert_left_out(prepared, ["genres/polka/polka.00000.au"], capsys)
        for part in ("train", "valid", "test"):
            (folder / f"{part}_filtered.txt").write_text("rock/rock.00001.wav\npolka/polka.00000.wav\n")
        with pytest.raises(DataError, match=r"1 of 2 files .*polka.00000: not named as in GTZAN"):
            prepare_quietly("gtzan", folder, tmp_path / "p", max_failed_share=0.0)


@pytest.mark.parametrize(("name", "device"), [("dcase2019_task1a", "a"), ("dcase2020_task1a", "s1")])
def test_dcase(place, tmp_path, name, device):
    files = [f"audio/{scene}-lyon-{i}-0-{device}.ogg" for scene in ("tram", "bus") for i in range(2)]
    rows = [f"{file[:-4]}.wav\t{file.partition('/')[2].partition('-')[0]}" for file in files]
    head = "filename\tscene_label"
    folder = place(
        *files,
        table={
            "evaluation_setup/fold1_train.csv": [head, *rows[1:]],
            "evaluation_setup/fold1_evaluate.csv": [head, rows[0], f"audio/bus-oslo-9-9-{device}.wav\tbus"],
            "evaluation_setup/fold1_test.csv": ["filename", rows[0].partition("\t")[0]],
        },
    )
    prepared = prepare_quietly(name, folder, tmp_path / "p", max_failed_share=0.5)
    assert len(prepared.labels) == 10
    assert list(labels(prepared, "train").values()) == [("tram",), ("bus",), ("bus",)]
    assert labels(prepared, "test") == {f"audio/tram-lyon-0-0-{device}.wav": ("tram",)}
    assert prepared.manifest("test").listed == 2
    assert_real(prepared, "test", 0, folder / files[0])


def test_msos(place, tmp_path):
    folder = place(
        "Development/Effects/01.wav",
        "Development/Urban/01.wav",
        "Evaluation/ab12.wav",
        table={
            "Logsheet_Development.csv": ["Category,Event,File", "Effects,Beep,01.wav", "Urban,Car,01.wav"],
            "Logsheet_EvaluationMaster.csv": ["Category,Event,File", "Urban,Train,ab12.wav"],
        },
    )
    prepared = prepare_quietly("msos", folder, tmp_path / "p")
    assert labels(prepared, "train") == {  # categories may share file names
        "Development/Effects/01.wav": ("Effects",),
        "Development/Urban/01.wav": ("Urban",),
    }
    assert labels(prepared, "test") == {"Evaluation/ab12.wav": ("Urban",)}
    assert_real(prepared, "train", 1, folder / "Development/Urban/01.wav")


def test_birdcall(place, tmp_path):
    names = [("aldfly", f"XC{i}.mp3") for i in range(5)] + [("ameavo", f"XC1{i}.mp3") for i in range(5)]
    rows = [f"3.5,{code},{file},[]" for code, file in [*names, ("aldfly", "XC9.mp3")]]
    folder = place(
        *(f"train_audio/{code}/{file}" for code, file in names),
        table={"train.csv": ["rating,ebird_code,filename,secondary_labels", *rows]},
    )
    prepared = prepare_quietly("birdcall", folder, tmp_path / "p", max_failed_share=0.5)
    assert prepared.labels == ("aldfly", "ameavo")
    assert len(prepared.splits) == 5
    every = {key: value for split in prepared.splits for key, value in labels(prepared, split).items()}
    assert every == {file: (code,) for code, file in names}
    np.testing.assert_array_equal([prepared.targets(s).sum(axis=0)[1] for s in prepared.splits], 1)
    rejected = prepared.manifest("+".join(prepared.splits)).rejected
    assert [source.reason for source in rejected] == ["no sound file train_audio/aldfly/XC9.mp3"]


def test_rfcx(place, tmp_path, data_dir):
    """Excerpts around calls stay within the minute and have the labels of all calls in them."""
    folder = place(
        table={
            "train_tp.csv": [
                "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max",
                "003bec244,14,1,44.5,2531.25,45.5,5531.25",
                "003bec244,3,1,48.0,2531.25,49.0,5531.25",
                "003bec244,3,4,0.5,2531.25,1.5,5531.25",
                "006ab765f,23,1,59.0,7235.15,60.0,11283.39",
            ]
        }
    )
    sound = sorted((data_dir / "esc10_44k1" / "audio").iterdir())[0]
    samples, rate = soundfile.read(sound)
    (folder / "train").mkdir()
    for number, recording in enumerate(("003bec244", "006ab765f")):
        minute = np.resize(np.roll(samples, 1000 * number), 60 * rate)
        soundfile.write(folder / "train" / f"{recording}.flac", minute, rate)
    prepared = prepare_quietly("rfcx", folder, tmp_path / "p", folds=2)
    assert len(prepared.labels) == 24
    assert len(prepared.splits) == 2  # folds hold whole recordings, not single excerpts
    every = {key: value for split in prepared.splits for key, value in labels(prepared, split).items()}
    assert every == {
        "003bec244_00.0000": ("s3",),
        "003bec244_40.0000": ("s14", "s3"),
        "003bec244_43.5000": ("s14", "s3"),
        "006ab765f_50.0000": ("s23",),
    }
    split = next(split for split in prepared.splits if "003bec244_40.0000" in ids(prepared, split))
    assert len(ids(prepared, split)) == 3
    assert_real(prepared, split, 1, folder / "train" / "003bec244.flac", 40.0, 50.0)
    (folder / "train_tp.csv").write_text("recording_id,species_id,t_min,t_max\n003bec244,1,1e9,2e9\n")
    with pytest.raises(DataError, match=r"train_tp.csv: '1e9' is not a number from 0 to 60"):
        prepare_quietly("rfcx", folder, tmp_path / "p")


def test_icbhi(place, tmp_path):
    names = ["101_1b1_Al_sc_Meditron", "102_1b1_Ar_sc_Meditron", "226_1b1_Pl_sc_LittC2SE"]
    folder = place(
        *(f"ICBHI_final_database/{name}.wav" for name in names),
        table={
            "ICBHI_challenge_train_test.txt": [
                f"{names[0]}\ttrain",
                f"{names[1]}\ttest",
                "226_1b1_Pl_sc_Meditron\ttest",  # as published: the device differs from the file's
                "104_1b1_Ar_sc_Litt3200\ttest",
            ],
            f"ICBHI_final_database/{names[2]}.txt": ["0.2\t1.2\t1\t0"],
            f"ICBHI_final_database/{names[0]}.txt": ["0.036\t0.579\t0\t0", "0.579\t1.450\t1\t0"],
            f"ICBHI_final_database/{names[1]}.txt": ["0.1\t1.0\t0\t1", "1.0\t1.5\t1\t1", "5.0\t6.0\t0\t0"],
        },
    )
    prepared = prepare_quietly("icbhi", folder, tmp_path / "p", max_failed_share=0.5)
    assert labels(prepared, "train") == {f"{names[0]}_00": ("normal",), f"{names[0]}_01": ("crackle",)}
    assert labels(prepared, "test") == {
        f"{names[1]}_00": ("wheeze",),
        f"{names[1]}_01": ("both",),
        f"{names[2]}_00": ("crackle",),
    }
    assert [source.reason for source in prepared.manifest("test").rejected] == [
        "no sound from 5 to 6 s",
        "no annotation 104_1b1_Ar_sc_Litt3200.txt",
    ]
    assert not prepared.unlisted()
    assert_real(prepared, "train", 0, folder / "ICBHI_final_database" / f"{names[0]}.wav", 0.036, 0.579)
    (folder / "ICBHI_final_database" / f"{names[1]}.txt").write_text("0.036 0.579 0\n")
    prepared = prepare_quietly("icbhi", folder, tmp_path / "p", max_failed_share=0.7)
    assert ids(prepared, "test") == [f"{names[2]}_00"]
    broken = prepared.manifest("test").rejected[0]
    assert broken.id == names[1]
    assert broken.reason.endswith("'0.036 0.579 0' is not start, end, crackles, wheezes")


def test_voxceleb(place, tmp_path):
    files = [f"id1000{speaker}/na8-QEFmj44/0000{n}.wav" for speaker in (1, 3) for n in (1, 2, 3)]
    folder = place(
        *(f"wav/{file}" for file in files),
        table={"iden_split.txt": [f"{n % 3 + 1} {file}" for n, file in enumerate(files)]},
    )
    prepared = prepare_quietly("voxceleb", folder, tmp_path / "p")
    assert prepared.labels == ("id10001", "id10003")
    assert prepared.splits == ("train", "valid", "test")
    for n, split in enumerate(("train", "valid", "test")):
        assert ids(prepared, split) == [files[n][:-4], files[n + 3][:-4]]
        np.testing.assert_array_equal(prepared.targets(split), np.eye(2))
    assert_real(prepared, "train", 1, folder / "wav" / files[3])
    (folder / "iden_split.txt").write_text("4 id10001/a/b.wav\n")
    with pytest.raises(DataError, match=r"is not a part \(1 to 3\) and a file"):
        prepare_quietly("voxceleb", folder, tmp_path / "p")


@pytest.mark.fast
@pytest.mark.parametrize("name", ["dcase2019_task1a", "msos", "birdcall", "rfcx", "icbhi", "voxceleb"])
def test_a_missing_official_list_is_refused(write_sounds, tmp_path, name):
    folder = write_sounds({"a.wav": 100})
    with pytest.raises(DataError, match=r"config.data_dir: .* lacks .*: add the official list") as caught:
        prepare_quietly(name, folder, tmp_path / "p")
    assert "\n" not in str(caught.value)
