"""Batches are the same after a restart and for any number of processes; evaluation counts each clip once."""

import gc
import itertools
import threading
import time

import numpy as np
import pytest

from input_pipeline import DataError, eval_batches, prepare, train_batches
from input_pipeline.loader import crop_starts
from input_pipeline.sampling import BalancedOrder, WeightedOrder

CROP = 6000  # shorter than every clip of the fixture
TRAIN = {"crop_samples": CROP, "batch_size": 8, "seed": 3}


def take(iterator, count=None):
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], strict=True)


def clips_of(prepared, split, batches):
    """Return, for each row of the batches, the index of the clip that its crop was cut from."""
    stored = [record["audio"].tobytes() for record in prepared.source(split)]
    rows = [row.tobytes() for batch in batches for row in batch["audio"]]
    return [next(i for i, clip in enumerate(stored) if row in clip) for row in rows]


@pytest.mark.fast
def test_shapes_and_types(quickstart):
    (batch,) = take(train_batches(quickstart, "train", **TRAIN), 1)
    assert batch["audio"].shape == (8, CROP)
    assert batch["audio"].dtype == np.int16
    assert batch["labels"].shape == (8, 10)
    assert batch["labels"].dtype == np.float32
    np.testing.assert_array_equal(batch["labels"].sum(axis=1), 1)


@pytest.mark.fast
@pytest.mark.parametrize("start", [1, 7, 13])
def test_restart_continues_bit_for_bit(quickstart, start):
    whole = take(train_batches(quickstart, "train", **TRAIN), 16)
    rest = take(train_batches(quickstart, "train", **TRAIN, start_step=start), 16 - start)
    assert_same(rest, whole[start:])


@pytest.mark.parametrize("threads", [0, 1, 8])
def test_threads_change_nothing(quickstart, threads):
    expected = take(train_batches(quickstart, "train", **TRAIN), 10)
    got = take(train_batches(quickstart, "train", **TRAIN, num_threads=threads, prefetch=9), 10)
    assert_same(got, expected)


@pytest.mark.parametrize("processes", [2, 8])
@pytest.mark.parametrize("start", [0, 5])
def test_processes_share_the_global_batch_in_order(quickstart, processes, start):
    whole = take(train_batches(quickstart, "train", **TRAIN, start_step=start), 9)
    parts = [
        take(
            train_batches(
                quickstart,
                "train",
                **TRAIN,
                start_step=start,
                process_index=index,
                process_count=processes,
            ),
            9,
        )
        for index in range(processes)
    ]
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_epochs_are_different_permutations_with_different_crops(quickstart):
    batches = take(train_batches(quickstart, "train", **TRAIN), 25)  # 200 rows: 4 epochs of 50
    order = np.reshape(clips_of(quickstart, "train", batches), (4, 50))
    for epoch in order:
        assert sorted(epoch) == list(range(50))
    assert len({tuple(epoch) for epoch in order}) == 4
    rows = np.concatenate([batch["audio"] for batch in batches])
    assert len({row.tobytes() for row in rows}) == 200
    targets = quickstart.targets("train")[order.ravel()]
    np.testing.assert_array_equal(np.concatenate([b["labels"] for b in batches]), targets)


def test_the_seed_decides(quickstart):
    one, other = (
        take(train_batches(quickstart, "train", crop_samples=CROP, batch_size=8, seed=seed), 2)
        for seed in (0, 1)
    )
    assert not np.array_equal(one[0]["audio"], other[0]["audio"])


def test_crops_reach_both_ends(quickstart):
    """Every start can occur, including the first and the last possible one."""
    length = min(row.samples for row in quickstart.manifest("test").rows)
    batches = take(train_batches(quickstart, "test", crop_samples=length - 1, batch_size=13, seed=0), 60)
    shortest = next(r["audio"] for r in quickstart.source("test") if len(r["audio"]) == length)
    rows = {row.tobytes() for batch in batches for row in batch["audio"]}
    assert {shortest[1:].tobytes(), shortest[:-1].tobytes()} <= rows


def test_short_clips_are_padded_at_the_end(quickstart):
    batches = take(train_batches(quickstart, "test", crop_samples=20000, batch_size=13, seed=0), 1)
    lengths = {r["audio"].tobytes(): len(r["audio"]) for r in quickstart.source("test")}
    for row in batches[0]["audio"]:
        clip = next(clip for clip in lengths if row.tobytes().startswith(clip))
        assert not row[lengths[clip] :].any()


@pytest.mark.fast
@pytest.mark.parametrize("processes", [1, 2, 8])
@pytest.mark.parametrize("batch_size", [8, 16])
def test_evaluation_covers_every_clip_exactly(quickstart, processes, batch_size):
    split = "train+test"
    parts = [
        take(
            eval_batches(
                quickstart,
                split,
                crop_samples=CROP,
                batch_size=batch_size,
                process_index=index,
                process_count=processes,
            )
        )
        for index in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    clips = quickstart.source(split)
    seen = {}
    for batch in itertools.chain.from_iterable(zip(*parts, strict=True)):
        assert batch["audio"].shape == (batch_size // processes, CROP)
        assert batch["audio"].dtype == np.int16
        assert batch["mask"].dtype == np.bool_
        assert batch["clip"].dtype == np.int32
        assert not batch["audio"][~batch["mask"]].any()
        for row, clip in zip(batch["audio"][batch["mask"]], batch["clip"][batch["mask"]], strict=True):
            seen.setdefault(int(clip), []).append(row)
    assert sorted(seen) == list(range(63))
    for index, rows in seen.items():
        audio = clips[index]["audio"]
        count = -(-len(audio) // CROP)
        starts = [round(k * (len(audio) - CROP) / (count - 1)) for k in range(count)]
        np.testing.assert_array_equal(rows, [audio[start : start + CROP] for start in starts])


def test_clips_shorter_than_a_crop_are_evaluated_once(quickstart):
    batches = take(eval_batches(quickstart, "test", crop_samples=20000, batch_size=4))
    assert [int(batch["mask"].sum()) for batch in batches] == [4, 4, 4, 1]
    clip = quickstart.source("test")[12]["audio"]
    np.testing.assert_array_equal(batches[-1]["audio"][0], np.pad(clip, (0, 20000 - len(clip))))


@pytest.mark.fast
def test_crop_starts():
    crops = crop_starts([4, 5, 10, 11, 100], 5, max_crops=3)
    np.testing.assert_array_equal(
        crops,
        [[0, 0], [1, 0], [2, 0], [2, 5], [3, 0], [3, 3], [3, 6], [4, 0], [4, 48], [4, 95]],
    )


@pytest.mark.fast
def test_a_batch_that_processes_cannot_share_is_refused(quickstart):
    with pytest.raises(DataError, match=r"config.batch_size=8.* 3"):
        train_batches(quickstart, "train", **TRAIN, process_count=3)


def test_unknown_split(quickstart):
    with pytest.raises(DataError, match="unknown split 'valid': the splits are train, test"):
        eval_batches(quickstart, "valid", crop_samples=CROP, batch_size=8)


def test_an_iterator_closed_early_or_dropped_leaves_no_threads(quickstart):
    before = set(threading.enumerate())
    take(train_batches(quickstart, "train", **TRAIN), 1)
    next(train_batches(quickstart, "train", **TRAIN))
    gc.collect()
    deadline = time.monotonic() + 10
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)  # stopping threads still finish their current clip
    assert not left


class TestBalancedOrder:
    CLIPS = (np.arange(9), np.array([7, 8]), np.array([9]), np.array([], int))  # class 3 is empty

    @pytest.mark.fast
    def test_each_round_draws_every_class_and_uses_all_clips(self):
        order = BalancedOrder(self.CLIPS, seed=5)
        draws = np.reshape([order(draw) for draw in range(3 * 18)], (18, 3))
        for turn in draws:
            assert sum(clip == 9 for clip in turn) == 1
        counts = np.bincount(draws.ravel(), minlength=10)
        # 18 draws are two epochs of class 0 with 9 clips and nine epochs of class 1 with 2 clips.
        np.testing.assert_array_equal(counts, [2] * 7 + [11, 11, 18])
        assert len({tuple(turn == 9) for turn in draws}) == 3  # the order of classes changes

    @pytest.mark.fast
    def test_any_draw_is_independent_of_earlier_ones(self):
        whole = BalancedOrder(self.CLIPS, seed=5)
        expected = [whole(draw) for draw in range(100)]
        late = BalancedOrder(self.CLIPS, seed=5)
        assert [late(draw) for draw in range(60, 100)] == expected[60:]
        other = BalancedOrder(self.CLIPS, seed=6)
        assert [other(draw) for draw in range(100)] != expected

    @pytest.mark.fast
    def test_classes_of_the_same_size_are_shuffled_apart(self):
        order = BalancedOrder([np.arange(20), np.arange(20, 40)], seed=0)
        draws = [order(draw) for draw in range(40)]
        assert [clip for clip in draws if clip < 20] != [clip - 20 for clip in draws if clip >= 20]

    @pytest.mark.fast
    def test_clips_of_a_class_are_shuffled_once_an_epoch(self, monkeypatch):
        """Threads may be up to a round apart; 200 rounds are two epochs of each class."""
        shuffled = []
        real = BalancedOrder._permutation

        def permutation(order, chosen, epoch):
            shuffled.append((chosen, epoch))
            return real(order, chosen, epoch)

        monkeypatch.setattr(BalancedOrder, "_permutation", permutation)
        order = BalancedOrder([np.arange(100), np.arange(100, 200)], seed=5)
        for draw in range(2, 400):
            order(draw)
            order(draw - 2)
        assert len(shuffled) == len(set(shuffled)) == 200 + 2 * 2

    def test_labels_are_needed(self):
        with pytest.raises(DataError, match="no clip has one"):
            BalancedOrder([np.array([], int)] * 2, seed=0)


class TestWeightedOrder:
    @pytest.mark.fast
    def test_frequencies_follow_the_weights(self):
        """200 clips of class 0, 50 of them also of class 1; 10 of class 1 only; one without labels."""
        order = WeightedOrder([np.arange(200), np.r_[0:50, 201:211]], seed=5)
        weights = np.r_[np.full(50, 1 / 300 + 1 / 160), np.full(150, 1 / 300), 0, np.full(10, 1 / 160)]
        np.testing.assert_allclose(order.probabilities, weights / weights.sum(), rtol=1e-12)
        draws = 100_000
        counts = np.bincount([order(draw) for draw in range(draws)], minlength=211)
        assert counts[200] == 0
        expected = draws * weights / weights.sum()
        # Each of the 211 counts is within five standard deviations of its binomial mean.
        assert np.all(np.abs(counts - expected) <= 5 * np.sqrt(expected + 1e-9))
        both = counts[:50].sum() / draws
        assert abs(both - 50 * weights[0] / weights.sum()) < 5 * np.sqrt(0.25 / draws)

    @pytest.mark.fast
    def test_any_draw_is_independent_of_earlier_ones(self):
        clips = [np.arange(7), np.array([2, 6])]
        expected = [WeightedOrder(clips, seed=5)(draw) for draw in range(4000, 4200)]  # across a block's end
        late = WeightedOrder(clips, seed=5)
        assert [late(draw) for draw in range(4100, 4200)] == expected[100:]
        other = WeightedOrder(clips, seed=6)
        assert [other(draw) for draw in range(4000, 4200)] != expected

    def test_labels_are_needed(self):
        with pytest.raises(DataError, match="no clip has one"):
            WeightedOrder([np.array([], int)] * 2, seed=0)


@pytest.mark.fast
def test_clips_by_class_match_the_targets(animals, tmp_path):
    (animals / "tags.csv").write_text(
        'filename,labels,split\ncat/0.wav,"cat,loud",a\ndog/0.wav,dog,a\ncat/1.wav,cat,b\n'
    )
    prepared = prepare(
        "folder", data_dir=str(animals), prepared_dir=str(tmp_path / "p"), sample_rate=8000, progress=False
    )
    for split in ("a", "b", "b+a"):
        expected = [np.flatnonzero(column).tolist() for column in prepared.targets(split).T]
        assert [clips.tolist() for clips in prepared.clips_by_class(split)] == expected


@pytest.mark.parametrize("sampling", ["balanced", "weighted"])
class TestSampledBatches:
    @pytest.mark.parametrize("processes", [1, 2, 8])
    @pytest.mark.parametrize("start", [0, 7])
    def test_are_the_same_after_a_restart_and_for_any_processes(self, quickstart, sampling, processes, start):
        options = {**TRAIN, "sampling": sampling}
        whole = take(train_batches(quickstart, "train", **options), 12)
        if sampling == "balanced":
            np.testing.assert_array_equal(sum(b["labels"].sum(axis=0) for b in whole[:10]), [8] * 10)
        parts = [
            take(
                train_batches(
                    quickstart,
                    "train",
                    **options,
                    start_step=start,
                    process_index=index,
                    process_count=processes,
                ),
                12 - start,
            )
            for index in range(processes)
        ]
        joined = [
            {key: np.concatenate([part[key] for part in step]) for key in step[0]}
            for step in zip(*parts, strict=True)
        ]
        assert_same(joined, whole[start:])

    def test_are_the_same_after_restoring_the_iterator(self, quickstart, sampling):
        options = {**TRAIN, "sampling": sampling}
        running = train_batches(quickstart, "train", **options)
        for _ in range(5):
            next(running)
        state = running.get_state()
        expected = take(running, 4)
        restored = train_batches(quickstart, "train", **options)
        restored.set_state(state)
        assert_same(take(restored, 4), expected)


def test_unknown_sampling(quickstart):
    with pytest.raises(DataError, match=r"config\.sampling must be one of uniform, .*, not 'even'"):
        train_batches(quickstart, "train", **TRAIN, sampling="even")
