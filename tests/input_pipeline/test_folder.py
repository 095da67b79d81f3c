"""A user's own folder of sound: layouts, labels and splits."""

import collections
import hashlib
import shutil
import unicodedata

import numpy as np
import pytest
import soundfile

from input_pipeline import DataError, source, survey
from input_pipeline.datasets.folds import dealt, stratified
from tests.input_pipeline.conftest import assert_left_out, ids, noise, prepare_quietly


class TestFolder:
    @pytest.mark.fast
    def test_class_folders_are_split_into_folds(self, animals, tmp_path):
        prepared = prepare_quietly("folder", animals, tmp_path)
        assert prepared.labels == ("cat", "dog")
        assert prepared.splits == ("fold1", "fold2", "fold3", "fold4", "fold5")
        for split in prepared.splits:
            np.testing.assert_array_equal(prepared.targets(split).sum(axis=0), [2, 2])
        every = ids(prepared, "+".join(prepared.splits))
        assert sorted(every) == sorted(f"{k}/{i}.wav" for k in ("cat", "dog") for i in range(10))

    def test_folders_of_splits(self, write_sounds, tmp_path):
        names = ["train/cat/a.wav", "train/dog/b.wav", "Test/cat/c.wav"]
        prepared = prepare_quietly("folder", write_sounds(dict.fromkeys(names, 100)), tmp_path)
        assert prepared.labels == ("cat", "dog")
        assert ids(prepared, "train") == ["train/cat/a.wav", "train/dog/b.wav"]
        assert ids(prepared, "test") == ["Test/cat/c.wav"]

    @pytest.mark.fast
    @pytest.mark.parametrize(("first", "second"), [("training", "testing"), ("Train", "evaluation")])
    def test_folders_of_splits_by_other_names(self, first, second, write_sounds):
        names = [f"{split}/{kind}/a.wav" for split in (first, second) for kind in ("cat", "dog")]
        found = survey("folder", data_dir=str(write_sounds(dict.fromkeys(names, 100))))
        assert found.labels == ("cat", "dog")
        assert set(found.splits) == {first.lower(), second.lower()}

    @pytest.mark.fast
    def test_a_sound_that_cannot_be_read_gives_its_split_no_label(self, write_sounds):
        names = [f"{split}/{kind}/a.wav" for split in ("train", "test") for kind in ("cat", "dog")]
        folder = write_sounds(dict.fromkeys(names, 100))
        (folder / "test" / "dog" / "a.wav").rename(folder / "test" / "dog" / "a.mp4")
        found = survey("folder", data_dir=str(folder))
        assert found.labels_of == {"train": {"cat", "dog"}, "test": {"cat"}}

    @pytest.mark.fast
    @pytest.mark.parametrize("stray", ["unsorted/x.wav", "unsorted/a/x.wav", "train/x.wav"])
    def test_a_stray_beside_folders_of_splits_is_refused(self, stray, write_sounds):
        names = [f"{split}/{kind}/a.wav" for split in ("train", "test") for kind in ("cat", "dog")]
        folder = write_sounds(dict.fromkeys([*names, stray], 100))
        with pytest.raises(
            DataError, match=f"has test, train, which name splits, but {stray} is in no class"
        ):
            survey("folder", data_dir=str(folder))

    @pytest.mark.fast
    def test_a_comma_is_part_of_a_label(self, write_sounds):
        folder = write_sounds({"a.wav": 100, "b.wav": 100})
        (folder / "l.csv").write_text('filename,label\na.wav,"Speech, male"\nb.wav,"Speech, female"\n')
        found = survey("folder", data_dir=str(folder))
        assert found.labels == ("Speech, female", "Speech, male")
        assert not found.several_labels

    def test_undecodable_formats_are_reported(self, animals, tmp_path, capsys):
        for name in ("cat/0.mp4", "cat/x.WMA", "demo.webm"):  # 0.wav beside 0.mp4 holds its sound
            (animals / name).write_bytes(b"x")
        prepared = prepare_quietly("folder", animals, tmp_path, max_failed_share=0.5)
        rejected = prepared.manifest("+".join(prepared.splits)).rejected
        read = "wav, flac, ogg, opus, mp3 and aiff are"
        reason = f".WMA is not read, but {read}: convert it with ffmpeg -i x.WMA x.wav"
        assert [(bad.id, bad.reason) for bad in rejected] == [("cat/x.WMA", reason)]
        assert "1 of 5 files of split" in capsys.readouterr().err
        (animals / "frog").mkdir()
        (animals / "frog" / "a.aac").write_bytes(b"x")
        assert survey("folder", data_dir=str(animals)).labels == ("cat", "dog", "frog")
        with pytest.raises(
            DataError, match=r"class 'frog' has no usable sound \(frog/a.aac: \.aac is not read, but"
        ):
            prepare_quietly("folder", animals, tmp_path, max_failed_share=0.5)

    @pytest.mark.fast
    def test_hidden_folders_are_not_classes(self, animals):
        for hidden in (".ipynb_checkpoints/a.wav", ".Trash-0/files/b.wav", "cat/.old/c.wav"):
            (animals / hidden).parent.mkdir(parents=True)
            shutil.copy(animals / "cat" / "0.wav", animals / hidden)
        found = survey("folder", data_dir=str(animals))
        assert found.labels == ("cat", "dog")
        assert not any("/." in name or name.startswith(".") for name in source.scan(animals))

    @pytest.mark.fast
    def test_folders_without_sound_are_reported(self, animals, write_sounds, capsys):
        for empty in ("owl", "a, b", ".hidden"):
            (animals / empty).mkdir()
        (animals / "owl" / "notes.txt").write_text("hu")
        (animals / "z_linked").symlink_to(animals / "cat")  # reported as a link
        assert survey("folder", data_dir=str(animals)).labels == ("cat", "dog")
        note = f"note: config.data_dir: no sound in 'a, b', 'owl' of {animals}: not classes\n"
        assert [line for line in capsys.readouterr().err.splitlines(True) if "no sound" in line] == [note]

    @pytest.mark.fast
    def test_class_folders_of_splits_without_sound_are_reported(self, write_sounds, capsys):
        names = [f"{split}/{kind}/a.wav" for split in ("train", "test") for kind in ("cat", "dog")]
        folder = write_sounds(dict.fromkeys(names, 100))
        (folder / "test" / "owl").mkdir()
        (folder / "val").mkdir()
        survey("folder", data_dir=str(folder))
        said = capsys.readouterr().err
        assert said == f"note: config.data_dir: no sound in 'test/owl', 'val' of {folder}: not classes\n"

    @pytest.mark.fast
    def test_folders_named_like_splits_without_classes_in_them(self, write_sounds):
        folder = write_sounds({"dog/a.wav": 100, "train/a.wav": 100})  # "train" the vehicle, as in ESC-50
        assert survey("folder", data_dir=str(folder)).labels == ("dog", "train")
        folder = write_sounds({"dog/a.wav": 100, "test/a.wav": 100})
        with pytest.raises(DataError, match=r"dog/a.wav is in no class folder of a split"):
            survey("folder", data_dir=str(folder))

    @pytest.mark.fast
    def test_table_with_several_labels_and_a_split(self, write_sounds, tmp_path):
        folder = write_sounds(dict.fromkeys(["audio/a.wav", "audio/b.wav", "c.wav"], 100))
        (folder / "tags.csv").write_text(
            "\ufefffilename,labels,split\na.wav,cat; dog,train\nb.wav,dog;bird,train\nc.wav,cat,test\n"
        )
        prepared = prepare_quietly("folder", folder, tmp_path)
        assert prepared.labels == ("bird", "cat", "dog")
        assert ids(prepared, "train") == ["audio/a.wav", "audio/b.wav"]
        np.testing.assert_array_equal(prepared.targets("train"), [[0, 1, 1], [1, 0, 1]])
        np.testing.assert_array_equal(prepared.targets("test"), [[0, 1, 0]])

    def test_columns_by_name_and_numbered_folds(self, write_sounds, tmp_path, capsys):
        folder = write_sounds(dict.fromkeys(["a.wav", "b.wav", "c.wav"], 100))
        (folder / "one.csv").write_text("file,animal,part\na.wav,cat,1\nb.wav,dog,2\n")
        (folder / "other.csv").write_text("file,animal,part\n")
        options = {"filename_column": "file", "label_column": "animal", "split_column": "part"}
        with pytest.raises(DataError, match=r"several tables, one.csv, other.csv: .*csv"):
            prepare_quietly("folder", folder, tmp_path, **options)
        prepared = prepare_quietly("folder", folder, tmp_path, csv="one.csv", **options)
        assert prepared.splits == ("fold1", "fold2")
        assert_left_out(prepared, ["c.wav"], capsys)

    def test_file_names_as_a_shell_writes_them(self, write_sounds, tmp_path):
        folder = write_sounds({"a.wav": 100, "audio/b.wav": 100, "c/d.wav": 100})
        rows = "./a.wav,cat\n././b.wav,dog\nc//d.wav,dog\n"
        (folder / "labels.csv").write_text(f"filename,label\n{rows}")
        assert len(prepare_quietly("folder", folder, tmp_path, folds=2).targets("fold1+fold2")) == 3

    def test_real_clips(self, data_dir, tmp_path):
        for kind, target in (("dog", 0), ("clock_tick", 38)):
            (tmp_path / "sounds" / kind).mkdir(parents=True)
            for path in (data_dir / "esc10_44k1" / "audio").glob(f"1-*-{target}.ogg"):
                shutil.copy(path, tmp_path / "sounds" / kind)
        prepared = prepare_quietly("folder", tmp_path / "sounds", tmp_path / "p", folds=2)
        assert prepared.targets("fold1+fold2").sum(axis=0).tolist() == [8, 8]

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (
                "filename,label,split\na.wav,cat,s\nx.wav,dog,s\n",
                r"1 of 2 files .*\(x.wav: no sound file x.wav\)",
            ),
            (
                "filename,label,split\n../a.wav,cat,s\nb.wav,dog,s\n",
                r"1 of 2 files .*no sound file \.\./a.wav",
            ),
            ("name,label\na.wav,cat\n", "no column 'filename': it has name, label"),
            ("filename,kind\na.wav,cat\n", "none of the columns .*config.dataset.label_column"),
            ("name;label\na.wav;cat\n", "no column 'filename': it has name, label"),
            ("filename;label\na.wav;cat;dog\n", r"line 2: .*, as in \"one;two\"$"),
            ("filename,label\n,cat\nb.wav,dog\n", r"\(line 2: no file name\)"),
            ("filename,label\n,cat\n ,dog\n", r"\(line 2: no file name\)"),
            ("filename,label\n", "has no rows"),
            ("", "no column 'filename'"),
            ("filename,label\na.wav\n", "line 2: expected 2 values"),
            ("filename,label\na.wav,cat,7\n", "line 2: expected 2 values"),
            ("filename,label\na.wav,\n", "config.data_dir: .* has no class"),
            ("filename,label,split\na.wav,,s\nb.wav,cat;dog,s\n", r"1 of 2 files .*\(a.wav: no label\)"),
            (
                "filename,label,split\na.wav,dog;cat,s\na.wav,cat; dog,s\n",
                "1 of 2 files .*a.wav: listed a second time",
            ),
            (
                "filename,label\na.wav,cat\n./a.wav,dog\nb.wav,cat\nb.wav,dog\n",
                r"labels.csv: a.wav has several rows with different labels \(as 2 files do\): give each "
                "file one row and join its labels with ;, as in 'cat;dog'$",
            ),
            (
                'filename,label\na.wav,"rock\nroll"\nb.wav,jazz\n',
                r"labels.csv: 'rock\\nroll' is not a valid class name",
            ),
            (
                "filename,label\na.wav,ro\tck\nb.wav,jazz\n",
                r"labels.csv: 'ro\\tck' is not a valid class name: .*control",
            ),
            ("filename,label\na.wav,cat\nb.wav,cat\n", "single class 'cat'"),
            (
                "filename,label,split\na.wav,cat,x y\nb.wav,dog,s\n",
                "column 'split' of .*labels.csv: 'x y', of a.wav, is not a valid split name",
            ),
            (
                "filename,label,fold\na.wav,cat,1\nb.wav,dog,\n",
                "column 'fold' of .*labels.csv: '', of b.wav, is not a valid split name",
            ),
            ("filename,label,label\na.wav,cat,dog\n", "labels.csv has two columns 'label'"),
            ('filename,label\n"a.wav,cat\n', "is not a csv table"),
            ("filename,label\na.wav,\xff\n", "is not a csv table in UTF-8"),
        ],
    )
    def test_wrong_tables_are_refused(self, write_sounds, tmp_path, table, message):
        folder = write_sounds({"a.wav": 100, "b.wav": 100})
        (folder / "labels.csv").write_bytes(table.encode("latin-1"))
        with pytest.raises(DataError, match=message) as caught:
            prepare_quietly("folder", folder, tmp_path, max_failed_share=0.0)
        assert "\n" not in str(caught.value)

    @pytest.mark.fast
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_the_separator_of_a_table_is_found(self, write_sounds, tmp_path, separator):
        """Where numbers have decimal commas, spreadsheets write csv with semicolons."""
        folder = write_sounds({"bats/a.wav": 100, "b.wav": 100, "c.wav": 100})
        rows = ["filename|label|note", 'bats\\a.wav|"cat;dog"|1,5', "b.wav|cat|2", "c.wav|dog|3"]
        (folder / "labels.csv").write_text("\n".join(rows).replace("|", separator).replace("1,5", "1"))
        prepared = prepare_quietly("folder", folder, tmp_path, folds=2)
        assert sorted(row.labels for row in prepared.manifest("fold1+fold2").rows) == [
            ("cat",),
            ("cat", "dog"),
            ("dog",),
        ]

    @pytest.mark.fast
    @pytest.mark.parametrize("more", ["", "Zeit;Wind (m/s)\n0:00;1,5\n"])
    def test_a_table_of_other_things_beside_class_folders_is_not_read(self, animals, capsys, more):
        (animals / "weather.csv").write_bytes("time,degrees (°C)\n0:00,12\n1:00,9\n".encode("latin-1"))
        if more:
            (animals / "wind.csv").write_text(more)
        found = survey("folder", data_dir=str(animals))
        assert found.labels == ("cat", "dog")
        assert found.splits_from == "config.dataset.folds=5"
        others = "weather.csv, wind.csv" if more else "weather.csv"
        said = capsys.readouterr().err
        assert said == (
            "note: config.data_dir: not read, for lack of the columns filename and label: "
            f"{others} in {animals}\n"
        )

    @pytest.mark.fast
    def test_the_only_table_of_clips_is_read(self, animals, capsys):
        (animals / "weather.csv").write_text("time,temperature\n0:00,12\n")
        (animals / "labels.csv").write_text("filename,label\ncat/1.wav,old\ndog/2.wav,young\n")
        assert survey("folder", data_dir=str(animals)).labels == ("old", "young")
        assert ": weather.csv in" in capsys.readouterr().err

    @pytest.mark.fast
    @pytest.mark.parametrize(
        ("tables", "message"),
        [
            (
                {"l.csv": "name;species\n1.wav;old\n2.wav;young\n"},
                r"l\.csv has no column 'filename': .*folders",
            ),
            ({"l.csv": "name,species\ncat\\1.wav,old\n"}, r"l\.csv has no column 'filename'"),
            ({"l.csv": "name,species\ncat/1,old\n,\ndog/2,young\n"}, r"l\.csv has no column 'filename'"),
            (
                {"l.csv": "name,species\n1,old\n", "m.csv": "time\n0:00\n"},
                r"l\.csv has no column .*; or move it",
            ),
            ({"l.csv": "filename,label\n1,old\n", "m.csv": "file,kind\ncat/1.wav,old\n"}, "several tables"),
            ({"l.csv": "filename,label\n1,old\n", "m.csv": "filename,label\n1,old\n"}, "several tables"),
        ],
    )
    def test_a_table_that_may_be_of_clips_is_not_passed_over(self, animals, tables, message):
        """The folders may be anything if a table names the clips."""
        for name, text in tables.items():
            (animals / name).write_text(text)
        with pytest.raises(DataError, match=message):
            survey("folder", data_dir=str(animals))

    @pytest.mark.fast
    @pytest.mark.parametrize("key", ["filename_column", "label_column", "split_column"])
    def test_columns_need_a_table(self, key, animals):
        """Otherwise the folders would silently be the classes."""
        with pytest.raises(DataError, match=rf"config\.dataset\.{key}='part': .* has no csv table: "):
            survey("folder", data_dir=str(animals), **{key: "part"})

    @pytest.mark.fast
    def test_a_table_is_not_passed_over_if_its_columns_are_named(self, animals):
        (animals / "l.csv").write_text("time,temperature\n0:00,12\n")
        with pytest.raises(DataError, match=r"l\.csv has no column 'species'"):
            survey("folder", data_dir=str(animals), label_column="species", filename_column="time")

    @pytest.mark.fast
    def test_names_in_either_form_of_unicode_are_the_same(self, write_sounds):
        """macOS writes ö as o and a combining mark, Linux and Windows as one character."""
        composed, decomposed = (unicodedata.normalize(form, "Größe") for form in ("NFC", "NFD"))
        names = [f"{composed}/a.wav", f"{decomposed}/b.wav", "cat/c.wav"]
        folder = write_sounds(dict.fromkeys(names, 100))
        assert survey("folder", data_dir=str(folder)).labels == (composed, "cat")
        for listed in (composed, decomposed):
            rows = f"{listed}/a.wav,{composed},s\n{listed}/b.wav,{decomposed},s\ncat/c.wav,cat,t\n"
            (folder / "labels.csv").write_text(f"filename,label,split\n{rows}")
            found = survey("folder", data_dir=str(folder))
            assert found.labels_of == {"s": {composed}, "t": {"cat"}}  # no clip has a problem

    @pytest.mark.fast
    def test_a_single_class_is_refused(self, write_sounds, tmp_path):
        folder = write_sounds({"cat/a.wav": 100, "cat/b.wav": 100})
        with pytest.raises(DataError, match=r"config.data_dir: .*single class 'cat'"):
            prepare_quietly("folder", folder, tmp_path)

    def test_a_file_in_no_class_is_refused(self, write_sounds, tmp_path):
        folder = write_sounds({"cat/a.wav": 100, "b.wav": 100})
        with pytest.raises(DataError, match=r"b.wav in .* is in no class folder"):
            prepare_quietly("folder", folder, tmp_path)

    def test_a_name_with_control_characters_is_refused(self, animals, tmp_path):
        soundfile.write(animals / "cat" / "new\nline.wav", noise(100), 8000)
        with pytest.raises(DataError, match="not printable text: rename it") as caught:
            prepare_quietly("folder", animals, tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.fast
def test_small_classes_are_spread_over_all_folds():
    named = [
        (f"{label}{i}", label) for label, count in enumerate([40, 4, 4, 4, 1, 1, 1]) for i in range(count)
    ]
    folds = dealt(named, 5)
    counts = collections.Counter(zip((label for _, label in named), folds, strict=True))
    assert max(collections.Counter(folds).values()) - min(collections.Counter(folds).values()) <= 1
    assert {counts[0, f"fold{k}"] for k in range(1, 6)} == {8}
    # With four clips per class the fold without one rotates; with one clip the fold that has it rotates.
    absent = [[k for k in range(1, 6) if not counts[label, f"fold{k}"]] for label in (1, 2, 3)]
    assert absent == [[5], [4], [3]]
    assert [counts[label, fold] for label, fold in ((4, "fold3"), (5, "fold4"), (6, "fold5"))] == [1, 1, 1]
    shuffled = named[::-1]
    assert dealt(shuffled, 5) == folds[::-1]


@pytest.mark.fast
def test_folds_of_single_labels_stay_what_they_were(write_sounds):
    """Runs of version 2.0.0 can be resumed and scored again only if their folds stay the same."""
    labels = {"cat": 7, "dog": 4, "rain": 12, "owl": 1, "Zug": 3}
    names = [f"{label}/{i}.wav" for label, count in labels.items() for i in range(count)]
    found = survey("folder", data_dir=str(write_sounds(dict.fromkeys(names, 1))), folds=4)
    assert found.splits == ("fold1", "fold2", "fold3", "fold4")
    folds = dealt([(name, (name.split("/")[0],)) for name in names], 4)
    pinned = "df4515aef6a1456825aa24cd3825cb5536dbee1e194e5b3c661700008cdbd4b3"
    assert hashlib.sha256(" ".join(folds).encode()).hexdigest() == pinned


def chorus(clips: int) -> list[tuple[str, tuple[str, ...]]]:
    """Clips with one to four labels of very different frequency, in about `clips` different combinations."""
    rng = np.random.default_rng(1)
    birds = [f"bird{k}" for k in range(8)]
    drawn = [np.flatnonzero(rng.random(8) < [0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.08, 0.05]) for _ in range(clips)]
    return [(f"{i}.wav", tuple(birds[k] for k in chosen) or (birds[0],)) for i, chosen in enumerate(drawn)]


@pytest.mark.fast
@pytest.mark.parametrize("clips", [60, 400])
def test_each_of_several_labels_is_spread_over_all_folds(clips):
    named = chorus(clips)
    folds = stratified(named, 5)
    sizes = collections.Counter(folds)
    assert max(sizes.values()) - min(sizes.values()) <= clips / 5 / 4  # labels come before sizes
    counts = collections.Counter(
        (label, fold) for (_, had), fold in zip(named, folds, strict=True) for label in had
    )
    for label in {label for _, had in named for label in had}:
        per_fold = [counts[label, f"fold{k}"] for k in range(1, 6)]
        assert max(per_fold) - min(per_fold) <= 1, (label, per_fold)  # `dealt` has 0 and 6 of bird7
    assert stratified(named[::-1], 5) == folds[::-1]


@pytest.mark.fast
def test_rare_labels_are_dealt_first():
    """The steps of Sechidis et al., figure 1, by hand, for two folds with two clips each.

    Owls are rarest, in a and b: one goes to fold1, and the other to fold2, which still wants one. Then cats:
    a has one, so c goes to the other fold, with b. That fold has two dogs now, so d goes to a's.
    """
    named = [("a", ("owl", "cat")), ("b", ("owl", "dog")), ("c", ("cat", "dog")), ("d", ("dog",))]
    order = sorted("ab", key=lambda name: hashlib.sha256(name.encode()).digest())
    folds = dict(zip("abcd", stratified(named, 2), strict=True))
    assert folds[order[0]] == "fold1"
    assert folds[order[1]] == "fold2"
    assert folds["c"] == folds["b"]  # the fold without a cat
    assert folds["d"] == folds["a"]


@pytest.mark.fast
def test_a_table_of_several_labels_tests_every_label(write_sounds):
    """Dealt by their combinations, these would leave common labels out of a fold."""
    named = chorus(60)
    folder = write_sounds({name: 1 for name, _ in named})
    rows = "".join(f"{name},{';'.join(had)}\n" for name, had in named)
    (folder / "labels.csv").write_text(f"filename,labels\n{rows}")
    found = survey("folder", data_dir=str(folder))
    common = {label for label in found.labels if sum(label in had for _, had in named) >= 5}
    assert len(common) >= 6
    assert all(common <= had for had in found.labels_of.values())


@pytest.mark.fast
def test_splits_are_checked(quickstart):
    with pytest.raises(DataError, match="unknown split 'valid': the splits are train, test"):
        quickstart.manifest("train+valid")
    with pytest.raises(DataError, match="names 'test' twice"):
        quickstart.targets("test+test")
    with pytest.raises(DataError, match="unknown split"):
        quickstart.source("train[:50%]")
