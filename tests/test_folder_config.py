"""What the config reads from a user's own folder, what it prints and what it refuses."""

import pytest
from ml_collections import ConfigDict

from configs import finetune
from configs.folder import get_config
from input_pipeline.datasets.folder import Folder
from input_pipeline.datasets.roles import train_and_test as chosen
from rann_jax.command_line.config_file import load_config_file
from rann_jax.experiment import data_options
from rann_jax.saved.cells import grid

DEALT = "config.dataset.folds=5"


def table(folder, first, second, column="split"):
    """Write a table of two classes, with eight clips in the first split and two in the second."""
    rows = [f"{n}.wav,{'cat' if n % 2 else 'dog'},{first if n < 8 else second}\n" for n in range(10)]
    folder.mkdir()
    (folder / "labels.csv").write_text(f"filename,label,{column}\n" + "".join(rows))
    for n in range(10):
        (folder / f"{n}.wav").touch()  # only the names matter
    return folder


def two_classes(folder):
    for name in [f"{kind}/{number}.wav" for kind in ("cat", "dog") for number in range(10)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.fast
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("training", "testing"),
        ("train", "holdout"),
        ("TRAIN", "VALID"),
        ("train", "evaluation"),
        ("train", "held_out"),
        ("training_set", "eval"),
    ],
)
def test_the_larger_split_is_trained_on_whatever_its_name(first, second, tmp_path, capsys):
    config = get_config(f"data={table(tmp_path / 'sounds', first, second)}")
    assert config.splits.to_dict() == {"train": first.lower(), "test": second.lower()}
    said = capsys.readouterr().err
    assert "2 classes: 'cat', 'dog'\n" in said
    assert f"trained on {first.lower()}, tested on {second.lower()} (splits from column 'split' of " in said


@pytest.mark.fast
def test_the_name_of_a_folder_may_contain_commas(tmp_path):
    folder = table(tmp_path / "birds, frogs,2024 = a,b", "train", "test")
    config = get_config(f"data={folder},t_c=2,")
    assert (config.data_dir, config.t_c) == (str(folder), 2)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("first", "second"),
    [("train", "rest"), ("a", "b"), ("dev", "test"), ("train1", "train2"), ("x1", "y2"), ("test", "test")],
)
def test_ambiguous_split_names_are_refused(first, second, tmp_path):
    folder = table(tmp_path / "sounds", first, second, "part")
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace("part", "fold", 1))
    with pytest.raises(
        ValueError, match=rf"column 'fold' of .*labels.csv: .*'{first}'.* do not show"
    ) as caught:
        get_config(f"data={folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.fast
def test_several_splits_are_assigned_by_name():
    assert chosen(["dev", "eval", "test", "train"]) == {"train": "train", "test": "test"}
    assert chosen(["test2", "test1", "train"])["test"] == "test2+test1"
    assert chosen([f"fold{k}" for k in (1, 10, 2, 9)]) == {"train": "fold1+fold2+fold9", "test": "fold10"}
    assert chosen(["extra", "train", "val"]) == {"train": "train", "test": "val"}


def fine_tuned(presets: str) -> ConfigDict:
    return finetune.get_config(f"{presets},init_from=weights.pth")


@pytest.mark.fast
@pytest.mark.parametrize("config", [get_config, fine_tuned], ids=["folder", "finetune"])
def test_a_held_out_split_is_reported(config, tmp_path, capsys):
    folder = two_classes(tmp_path / "sounds")
    made = config(f"data={folder},valid=fold2+fold4")
    assert made.splits.to_dict() == {"train": "fold1+fold3", "test": "fold5", "valid": "fold2+fold4"}
    said = capsys.readouterr().err
    assert (
        f": trained on fold1+fold3, tested on fold5, validated on fold2+fold4 (splits from {DEALT})\n" in said
    )
    assert said.endswith(f"note: {folder}: the best checkpoint is chosen by valid/mAP\n")
    config(f"data={folder}")
    said = capsys.readouterr().err
    assert f": trained on fold1+fold2+fold3+fold4, tested on fold5 (splits from {DEALT})\n" in said
    assert f"note: {folder}: the best checkpoint is chosen by test/mAP; to choose it by a held-out" in said
    with pytest.raises(ValueError, match="preset valid=fold9: no split 'fold9': choose from fold1, fold2"):
        config(f"data={folder},valid=fold9")


@pytest.mark.fast
def test_the_small_size_is_that_of_the_other_configs(tmp_path):
    presets = f"data={two_classes(tmp_path / 'sounds')},t_c=2"
    small, full = get_config(f"{presets},size=small"), get_config(presets)
    assert (small.model.name, small.total_steps, small.feature.n_bins) == ("rann-2x4-1", 600, 64)
    assert (full.model.name, full.total_steps, full.feature.n_bins) == ("rann-2x4-1", 2000, 128)
    with pytest.raises(ValueError, match="preset size=deck must be one of full, small"):
        get_config("size=deck")


@pytest.mark.fast
def test_fine_tuning_can_be_tested_on_any_fold(tmp_path):
    folder = two_classes(tmp_path / "sounds")
    config = fine_tuned(f"data={folder},fold=2,valid=fold3")
    assert config.splits.to_dict() == {"train": "fold1+fold4+fold5", "test": "fold2", "valid": "fold3"}


@pytest.mark.fast
def test_a_fold_to_test_on_can_be_chosen(tmp_path):
    """So that cross-validation, which sets the presets feature and fold, works on an own folder."""
    folder = two_classes(tmp_path / "sounds")
    for cell in grid(f"configs/folder.py:data={folder}", ["mfcc"], [1, 5], tmp_path / "w"):
        config = load_config_file(cell.config_arg, [])
        others = "+".join(f"fold{k}" for k in range(1, 6) if k != cell.fold)
        assert config.splits.to_dict() == {"train": others, "test": f"fold{cell.fold}"}
        assert config.feature.name == "mfcc"
    config = get_config(f"data={folder},fold=2,valid=fold4,folds=4")
    assert config.splits.to_dict() == {"train": "fold1+fold3", "test": "fold2", "valid": "fold4"}
    assert get_config("fold=2,folds=3").splits.to_dict() == {"train": "fold1+fold3", "test": "fold2"}
    with pytest.raises(ValueError, match=r"preset fold=6: choose one of fold1, fold2, fold3, fold4, fold5$"):
        get_config(f"data={folder},fold=6")
    splits = table(tmp_path / "splits", "train", "test")
    with pytest.raises(
        ValueError,
        match=r"preset fold=1: the splits test, train \(from column 'split' of .*\) are not folds: ",
    ):
        get_config(f"data={splits},fold=1")


@pytest.mark.fast
def test_classes_that_are_not_tested_are_named(tmp_path, capsys):
    folder = table(tmp_path / "sounds", "train", "test")
    (folder / "labels.csv").write_text(
        "filename,label,split\n0.wav,cat,train\n1.wav,dog,train\n2.wav,owl,test\n3.wav,dog,test\nx.wav,cat,test\n"
    )
    get_config(f"data={folder}")
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warned == [
        f"warning: {folder}: 1 of 3 classes have no clip in the test split, test: 'cat'",  # there is no x.wav
        f"warning: {folder}: 1 of 3 classes have no clip in the train split, train: 'owl'",
    ]


@pytest.mark.fast
def test_table_columns_and_folds_are_presets(tmp_path):
    """The presets that messages ask for work, although overrides apply only after the folder is read."""
    folder = table(tmp_path / "sounds", "train", "test")
    (folder / "other.csv").write_text("file,species,part\n0.wav,owl,a1\n1.wav,frog,a2\n2.wav,newt,a1\n")
    asked = f"{folder}.*, labels.csv, other.csv: .*csv= beside data="
    with pytest.raises(ValueError, match=asked):
        get_config(f"data={folder}")
    given = f"data={folder},csv=other.csv"
    with pytest.raises(
        ValueError, match=r"no column 'filename': it has file, .*filename_column= and the like"
    ):
        get_config(given)
    given += ",filename_column=file"
    with pytest.raises(ValueError, match=r"none of the columns .*label_column= beside data="):
        get_config(given)
    given += ",label_column=species"
    assert get_config(f"{given},folds=3").splits.to_dict() == {"train": "fold1+fold2", "test": "fold3"}
    config = get_config(f"{given},split_column=part")
    assert config.splits.to_dict() == {"train": "a1", "test": "a2"}
    assert config.num_classes == 3
    assert prepare_options(config) == {
        "csv": "other.csv",
        "filename_column": "file",
        "label_column": "species",
        "split_column": "part",
        "folds": 5,
    }
    assert get_config("folds=2").splits.to_dict() == {"train": "fold1", "test": "fold2"}
    with pytest.raises(ValueError, match="folds=1"):
        get_config(f"{given},folds=1")


def test_the_folder_sets_the_number_of_classes(tmp_path):
    folder = two_classes(tmp_path / "sounds")
    assert get_config(f"data={folder}").num_classes == 2
    assert get_config("num_classes=7").num_classes == 7
    with pytest.raises(ValueError, match=r"preset num_classes=7: the folder sets .*: leave this preset out"):
        get_config(f"data={folder},num_classes=7")


def prepare_options(config):
    return {key: value for key, value in data_options(config).items() if key in Folder.OPTIONS}
