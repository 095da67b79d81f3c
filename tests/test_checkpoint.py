"""Which checkpoints are kept, and what is restored from them."""

import dataclasses
import errno
import json
import shutil
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rann_jax import checkpoint, distributed
from rann_jax.checkpoint import SMALLEST_PART, Checkpoints
from rann_jax.errors import ConfigError
from rann_jax.saved.checksum import checksum
from rann_jax.saved.record import Record
from tests.made_states import BUNDLE, like, state_at


@pytest.fixture
def workdir(tmp_path):
    """A workdir with checkpoints of six steps: step 2 scored best, and step 5 was not evaluated."""
    checkpoints = Checkpoints(tmp_path, "test/accuracy")
    for step, accuracy in {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.6, 5: None, 6: 0.8}.items():
        metrics = {} if accuracy is None else {"test/accuracy": accuracy, "test/mAP": 0.1}
        checkpoints.save(step, state_at(step), Record(step, step * 1.5, BUNDLE), metrics)
    checkpoints.close()
    return tmp_path


def test_a_save_between_evaluations_warns_of_nothing(tmp_path, caplog):
    with closing(Checkpoints(tmp_path, "test/accuracy")) as checkpoints:
        checkpoints.save(1, state_at(1), Record(1, 1.5, BUNDLE), {})
    assert not [said for said in caplog.records if said.levelname == "WARNING"]


def test_latest_two_and_the_best_are_kept(workdir):
    kept = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert kept == {"2", "5", "6"}
    checkpoints = Checkpoints(workdir, "test/accuracy")
    assert checkpoints.latest_step == 6
    assert checkpoints.best_step == 2
    checkpoints.close()


def test_scores_are_best_if_they_exceed_all_saved_scores(workdir):
    """Step 2 scored 0.9, which a resumed run reads from the files."""
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        assert not checkpoints.is_best({})  # not evaluated
        assert not checkpoints.is_best({"test/mAP": 1.0})
        assert not checkpoints.is_best({"test/accuracy": 0.9})
        assert not checkpoints.is_best({"test/accuracy": float("nan")})
        assert checkpoints.is_best({"test/accuracy": 0.91})
        checkpoints.save(7, state_at(7), Record(7, 9.0, BUNDLE), {"test/accuracy": 0.95})
        assert not checkpoints.is_best({"test/accuracy": 0.91})


def test_the_first_scores_are_the_best(tmp_path):
    with closing(Checkpoints(tmp_path, "test/accuracy")) as checkpoints:
        checkpoints.save(1, state_at(1), Record(1, 1.5, BUNDLE), {})
        assert checkpoints.is_best({"test/accuracy": 0.0})
        assert not checkpoints.is_best({"test/accuracy": float("nan")})


@pytest.mark.parametrize("accuracy", [0.95, 0.85])
def test_a_checkpoint_gets_its_scores_without_being_written_again(workdir, accuracy, monkeypatch):
    """A kill while it is deleted and saved anew would lose it, which could be the run's only one."""
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        checkpoints.save(7, state_at(7), Record(7, 9.0, BUNDLE, evaluation_due=True), {})
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", None)
        monkeypatch.setattr(checkpoints._manager, "delete", None)
        checkpoints.save(7, state_at(7), Record(7, 9.5, BUNDLE), {"test/accuracy": accuracy})
        best = checkpoints.best_step
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        state, record = checkpoints.restore(like())
        assert best == checkpoints.best_step == (7 if accuracy > 0.9 else 2)
    assert int(state.step) == 7
    assert record == Record(7, 9.5, BUNDLE, record.checksum)


@pytest.mark.parametrize("step", [None, 2, 5])
def test_state_and_record_are_restored(workdir, step):
    checkpoints = Checkpoints(workdir, "test/accuracy")
    like = jax.eval_shape(lambda: state_at(0))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
    state, record = checkpoints.restore(like, step)
    checkpoints.close()
    expected = step or 6
    assert int(state.step) == expected
    np.testing.assert_array_equal(state.params["w"], np.full(3, expected, np.float32))
    assert state.params["w"].devices() == {jax.devices()[1]}
    assert record == Record(expected, expected * 1.5, BUNDLE, record.checksum)


def test_a_state_of_another_version_is_one_line(workdir):
    like = jax.eval_shape(lambda: state_at(0))
    other = dataclasses.replace(like, params={"v": like.params["w"]})
    with (
        closing(Checkpoints(workdir, "test/accuracy")) as checkpoints,
        pytest.raises(ConfigError, match=r"checkpoint 6 cannot be read \(.*another version") as error,
    ):
        checkpoints.restore(other)
    assert "\n" not in str(error.value)


# Orbax closes its event loop at the first unreadable array, while it still reads others.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_state_of_other_shapes_is_one_line(workdir):
    other = dataclasses.replace(like(), params={"w": jax.ShapeDtypeStruct((4,), jnp.float32)})
    with (
        closing(Checkpoints(workdir, "test/accuracy")) as checkpoints,
        pytest.raises(ConfigError, match=r"checkpoint 6 cannot be read \(.*another version") as error,
    ):
        checkpoints.restore(other)
    assert "\n" not in str(error.value)


def test_small_replicated_arrays_are_saved_without_compilation(tmp_path, caplog):
    """Only large arrays are cut into parts, one for each device to write, and that takes a program."""
    everywhere = NamedSharding(distributed.data_mesh(), PartitionSpec())
    large = jnp.arange(8 * SMALLEST_PART // 4, dtype=jnp.float32)
    for step, params in enumerate([{"w": jnp.ones(64)}, {"w": jnp.ones(64), "large": large}], start=1):
        state = jax.device_put(dataclasses.replace(state_at(step), params=params, ema_params={}), everywhere)
        with (
            closing(Checkpoints(tmp_path / str(step), "test/accuracy")) as checkpoints,
            jax.log_compiles(),
            caplog.at_level("WARNING", "jax"),
        ):
            checkpoints.save(step, state, Record(step, 1.0, BUNDLE), {})
            assert ("Compiling" in caplog.text) == ("large" in params)
            restored, _ = checkpoints.restore(state)
        jax.tree.map(np.testing.assert_array_equal, state, restored)
        assert restored.params["w"].sharding == everywhere


def test_an_unfinished_checkpoint_is_ignored(workdir):
    (workdir / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(workdir, "test/accuracy")
    assert checkpoints.latest_step == 6
    checkpoints.close()


def cut_arrays(folder):
    for path in (folder / "state").rglob("*"):
        if path.is_file() and "/d/" in str(path):
            path.write_bytes(path.read_bytes()[:-3])


def cut_record(folder):
    path = folder / "record" / "metadata"
    path.write_text(path.read_text()[:20])


def newer_record(folder):
    """Add a field, as a newer version of this program might."""
    path = folder / "record" / "metadata"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weather": "fair"}))


def broken_losses(folder):
    path = folder / "record" / "metadata"
    path.write_text(json.dumps({**json.loads(path.read_text()), "losses": ["low"]}))


def record_of_another_step(folder):
    """Change one digit: the run would go on at another place in the data."""
    path = folder / "record" / "metadata"
    path.write_text(json.dumps({**json.loads(path.read_text()), "batches": 7}))


def record_of_other_types(folder):
    path = folder / "record" / "metadata"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": "9"}))


def record_of_nothing(folder):
    (folder / "record" / "metadata").write_text('{"batches": 6, "seconds": 9.0, "bundle": {"labels": []}}')


def empty(folder):
    shutil.rmtree(folder / "state")


def other_arrays(folder):
    """Replace the state with that of another step, as a copy that mixed two checkpoints would."""
    shutil.rmtree(folder / "state")
    shutil.copytree(folder.parent / "5" / "state", folder / "state")


# Orbax closes its event loop at the first unreadable array, while it still reads others.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [
        cut_arrays,
        cut_record,
        broken_losses,
        record_of_another_step,
        record_of_other_types,
        empty,
        other_arrays,
    ],
)
def test_a_damaged_newest_checkpoint_is_set_aside(workdir, damage, capsys):
    damage(workdir / "checkpoints" / "6")
    checkpoints = Checkpoints(workdir, "test/accuracy")
    state, record = checkpoints.restore_newest(like())
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1
    assert "checkpoint 6 cannot be read" in said
    assert record == Record(5, 7.5, BUNDLE, record.checksum)
    np.testing.assert_array_equal(state.params["w"], np.full(3, 5, np.float32))

    checkpoints.set_aside(after=5)
    assert [path.name for path in (workdir / "damaged_checkpoints").iterdir()] == ["6-0"]
    checkpoints.save(6, state_at(6), Record(6, 9.0, BUNDLE), {})  # step 6 is trained again
    checkpoints.close()
    checkpoints = Checkpoints(workdir, "test/accuracy")
    assert checkpoints.restore_newest(like())[1].batches == 6
    checkpoints.close()


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


PASSING = {
    "stale": OSError(errno.ESTALE, "Stale file handle", "/disk/checkpoints/6"),
    "files": OSError(errno.EMFILE, "Too many open files"),
    # as TensorStore words it
    "tensorstore": ValueError("UNKNOWN: Error opening \"zarr\" driver: Failed to open [os_error_code='116']"),
    "cause": caused(ValueError("no such item"), by=OSError(errno.EIO, "Input/output error")),
    "host": MemoryError(),
    "device": jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
}


@pytest.mark.parametrize("kind", PASSING)
def test_a_newest_checkpoint_that_cannot_be_read_now_is_not_skipped(workdir, monkeypatch, capsys, kind):
    """Going on from the one before would lose steps because of a passing fault."""

    def fail(*_, **__):
        raise PASSING[kind]

    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        for restore in (checkpoints.restore_newest, checkpoints.restore):
            says = r"checkpoint 6 cannot be read now \(.+\), but may be whole: run the same command again"
            with monkeypatch.context() as patch:
                patch.setattr(checkpoints._reader, "restore", fail)
                with pytest.raises(ConfigError, match=says) as told:
                    restore(like())
            assert "\n" not in str(told.value)
        assert checkpoints.restore_newest(like())[1].batches == 6
    assert capsys.readouterr().err == ""


def test_an_unreadable_record_is_one_line(workdir):
    """The error names the file, and `newest_record` finds the newest readable one without it."""
    folders = [workdir / "checkpoints" / step for step in ("6", "5", "2")]
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        for folder, damage, reason in zip(
            folders,
            (newer_record, record_of_nothing, cut_record),
            ("'weather'", "lacks config, fingerprints", "Unterminated string"),
            strict=True,
        ):
            assert checkpoints.newest_record().batches == int(folder.name)
            damage(folder)
            with pytest.raises(ConfigError, match=rf"{folder}/record cannot be read.*{reason}") as error:
                checkpoints.record(int(folder.name))
            assert "\n" not in str(error.value)
        with pytest.raises(ConfigError, match=rf"{folders[0]}/record.*name another workdir"):
            checkpoints.newest_record()


def test_a_checkpoint_that_is_removed_meanwhile_is_named(workdir):
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        shutil.rmtree(workdir / "checkpoints" / "2")
        with pytest.raises(FileNotFoundError) as told:
            checkpoints.is_best({"test/accuracy": 0.95})
        assert told.value.filename == str(workdir / "checkpoints" / "2" / "metrics" / "metrics")


@pytest.mark.parametrize(
    "scores", ["", "{", "[1]", '{"test/mAP": 0.5}', '{"test/accuracy": null}', "[" * 100_000]
)
def test_damaged_scores_are_one_line(workdir, scores):
    """Orbax reads them as soon as it lists the checkpoints, so that nothing could go on without them."""
    folder = workdir / "checkpoints" / "2" / "metrics"
    unfinished = workdir / "checkpoints" / "7.orbax-checkpoint-tmp" / "metrics"
    unfinished.mkdir(parents=True)
    (unfinished / "metrics").write_text(scores)
    Checkpoints(workdir, "test/accuracy").close()
    (folder / "metrics").write_text(scores)
    with pytest.raises(
        ConfigError, match=rf"{folder}/metrics: .*damaged.*delete the folder {folder},"
    ) as told:
        Checkpoints(workdir, "test/accuracy")
    assert "\n" not in str(told.value)
    shutil.rmtree(folder)
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        assert checkpoints.restore_newest(like())[1].batches == 6


def test_a_damaged_description_is_one_line(workdir):
    path = workdir / "checkpoints" / "6" / "_CHECKPOINT_METADATA"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"init_timestamp_nsecs": "x"}))
    with pytest.raises(
        ConfigError, match=rf"{path.parent.parent}: the description of a checkpoint cannot be read"
    ):
        Checkpoints(workdir, "test/accuracy")


def test_unreadable_checkpoints_alone_are_refused(workdir):
    for folder in (workdir / "checkpoints").iterdir():
        empty(folder)
    checkpoints = Checkpoints(workdir, "test/accuracy")
    with pytest.raises(ConfigError, match=r"checkpoint 6 cannot be read.*nor any before it"):
        checkpoints.restore_newest(like())
    checkpoints.close()


def test_reading_unshared_arrays_needs_no_other_process(workdir, monkeypatch):
    """Every process reads initial weights for itself, for example."""

    def asked(*_):
        pytest.fail("the other processes were asked")

    monkeypatch.setattr(distributed, "agree", asked)
    monkeypatch.setattr(distributed, "total", asked)
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        assert checkpoints.restore_newest(like())[1].batches == 6


@pytest.mark.parametrize("damaged_here", [True, False])
def test_processes_skip_a_damaged_checkpoint_together(
    workdir, monkeypatch, capsys, in_several_processes, damaged_here
):
    """All processes report whether they could read before any of them sums a checksum."""
    if damaged_here:
        empty(workdir / "checkpoints" / "6")
    calls, answers = in_several_processes, iter([False, True, True])
    monkeypatch.setattr(distributed, "agree", lambda ok: calls.append(("agree", ok)) or next(answers))
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        assert checkpoints.restore_newest(like())[1].batches == 5
    assert calls == [("agree", not damaged_here), ("agree", True), ("agree", True), "total"]
    assert ("another process cannot read its part" in capsys.readouterr().err) != damaged_here


@pytest.mark.parametrize("here", ["read", "damaged", "stale"])
def test_processes_end_together_if_one_cannot_read_now(
    workdir, monkeypatch, capsys, in_several_processes, here
):
    """Also those that could read, or found damage: the process with the passing fault says what it is."""
    if here == "damaged":
        empty(workdir / "checkpoints" / "6")
    calls, stale = in_several_processes, OSError(errno.ESTALE, "Stale file handle")
    monkeypatch.setattr(distributed, "agree", lambda ok: calls.append(("agree", ok)))

    def fail(*_, **__):
        raise stale

    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        if here == "stale":
            monkeypatch.setattr(checkpoints._reader, "restore", fail)
        says = "Stale file handle" if here == "stale" else "by another process, which says why"
        with pytest.raises(ConfigError, match=f"checkpoint 6 cannot be read now.*{says}"):
            checkpoints.restore_newest(like())
    assert calls == [("agree", here == "read"), ("agree", here != "stale")]
    assert capsys.readouterr().err == ""


@pytest.fixture
def in_several_processes(monkeypatch) -> list:
    """Treat arrays as shared, let other processes add 0 to sums, and return the list of sums asked for."""
    calls = []
    monkeypatch.setattr(checkpoint, "is_shared", lambda _: True)
    monkeypatch.setattr(distributed, "total", lambda number: calls.append("total") or number)
    return calls


def test_the_chosen_checkpoint(workdir, tmp_path):
    with closing(Checkpoints(workdir, "test/accuracy")) as checkpoints:
        steps = [checkpoints.restore_chosen(like(), which)[1].batches for which in ("latest", "best")]
        assert steps == [checkpoints.latest_step, checkpoints.best_step] == [6, 2]
    with closing(Checkpoints(tmp_path / "new", "test/accuracy")) as checkpoints:
        for which in ("latest", "best"):
            with pytest.raises(ConfigError, match="new holds no complete checkpoint: train it"):
                checkpoints.restore_chosen(like(), which)
        checkpoints.save(1, state_at(1), Record(1, 1.5, BUNDLE), {})
        with pytest.raises(ConfigError, match="new holds no best checkpoint, as it was not evaluated"):
            checkpoints.restore_chosen(like(), "best")


def test_a_checkpoint_removed_while_listing_is_no_error(workdir, monkeypatch):
    """A training run in progress may remove it."""
    looks = []

    class Removed(checkpoint.ocp.CheckpointManager):
        def __init__(self, directory, **options):
            looks.append(directory)
            if len(looks) < 3:
                raise FileNotFoundError(2, "No such file or directory", f"{directory}/5")
            super().__init__(directory, **options)

    monkeypatch.setattr(checkpoint.ocp, "CheckpointManager", Removed)
    with closing(Checkpoints(workdir)) as checkpoints:
        assert checkpoints.latest_step == 6
    assert len(looks) == 3


def test_the_first_of_equal_scores_is_the_best(tmp_path):
    """The first stays the best, however many checkpoints follow."""
    with closing(Checkpoints(tmp_path, "test/accuracy")) as checkpoints:
        for step, score in enumerate([0.8, 0.9, 0.9, 0.9, float("nan"), 0.7], start=1):
            checkpoints.save(step, state_at(step), Record(step, 1.0, BUNDLE), {"test/accuracy": score})
        assert checkpoints.best_step == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "5", "6"]


@pytest.mark.fast
def test_checksum_by_hand():
    """1.0 is 0x3F800000; the words of the arrays are weighted 1, 3, 5, ... and added modulo 2^32."""
    state = {"a": jnp.ones(2, jnp.float32), "b": jnp.arange(3, dtype=jnp.int32)}
    assert checksum(state) == (2 * 0x3F800000 + 3 * 3) % 2**32
    flipped = {**state, "a": state["a"].at[1].set(np.nextafter(np.float32(1), np.float32(2)))}
    assert checksum(flipped) == (2 * 0x3F800000 + 1 + 3 * 3) % 2**32


@pytest.mark.fast
@pytest.mark.parametrize("parts", [PartitionSpec(), PartitionSpec("data"), PartitionSpec(None, "data")])
def test_checksum_counts_every_word_once_for_any_sharding(parts):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2**32, (8, 16), np.uint32)
    mesh = distributed.data_mesh()
    placed = jax.device_put(array, NamedSharding(mesh, parts))
    with jax.transfer_guard("disallow"):
        assert checksum([placed, placed]) == 4 * int(array.sum(dtype=np.uint64)) % 2**32
