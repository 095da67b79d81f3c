"""Conversion of a data set into a prepared copy: of its clips into shards, and of these into splits.

Shards are converted in a staging folder, by local processes or on Beam. Then they are linked into the folder
that TFDS made for the copy, next to the manifests. Before and after, a data set of which too much cannot be
used is refused.

TFDS's own generators are not used. GeneratorBasedBuilder fails without TensorFlow on splits beyond 1 GB (its
shuffler spills through tf.io.gfile). ShardBasedBuilder converts one shard after another, and starts over
after it was killed. Shards in source order keep manifest and records in the same order; the loader shuffles
anyway.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import split_builder, writer
from tqdm import tqdm

from input_pipeline import engines, manifest, shards
from input_pipeline.errors import DataError

if TYPE_CHECKING:
    from input_pipeline.datasets.builder import AudioBuilder


def convert(builder: AudioBuilder, download_config: Any) -> None:
    """Convert the shards not staged yet, then gather all in the unfinished copy.

    Args:
      builder: the data set; its `data_dir` is the folder of the unfinished copy, and its splits are set.
      download_config: TFDS's configuration, with the options of a Beam runner if one is to convert, or None.

    Raises:
      DataError: as `prepare`.
    """
    config = builder.builder_config
    _check_listing(builder)
    cut = shards.cut(builder.listing, config.staging)
    config.staging.mkdir(exist_ok=True)
    pending = [shard for shard in cut if not shard.finished()]
    with _bar(builder, cut, pending) as bar:
        if download_config is not None and download_config.beam_options is not None:
            _convert_on_beam(builder, pending, download_config)
            bar.update(shards.clips_in(pending))
        else:
            engines.run_here(pending, builder.recipe, workers=config.workers, advance=bar.update)
    manifests = _check_converted(builder, cut)
    builder.info.set_splits(
        tfds.core.SplitDict(
            [_gather(builder, split, cut, manifests[split]) for split in builder.listing],
        )
    )
    _check_splits(builder)


def _bar(builder: AudioBuilder, cut: Sequence[shards.Shard], pending: Sequence[shards.Shard]) -> tqdm:
    """Return a bar that starts at the finished clips, which do not count for its rate."""
    total = shards.clips_in(cut)
    return tqdm(
        total=total,
        initial=total - shards.clips_in(pending),
        desc=f"preparing {builder.name}",
        unit=" clips",
        mininterval=0.5,
        disable=not builder.builder_config.progress,
    )


def _convert_on_beam(builder: AudioBuilder, pending: Sequence[shards.Shard], download_config: Any) -> None:
    """Run the pipeline that TFDS makes from the runner's options, and wait for its end."""
    splits = split_builder.SplitBuilder(
        split_dict=builder.info.splits,
        features=builder.info.features,
        dataset_size=builder.info.dataset_size,
        beam_options=download_config.beam_options,
        beam_runner=download_config.beam_runner,
        max_examples_per_split=None,
        example_writer=writer.ExampleWriter(builder.info.file_format),
    )
    with splits.maybe_beam_pipeline():
        engines.run_on_beam(pending, builder.recipe, splits.beam_pipeline)


def _gather(
    builder: AudioBuilder,
    split: str,
    cut: Sequence[shards.Shard],
    manifests: Sequence[manifest.Manifest],
) -> tfds.core.SplitInfo:
    """Link the shards of a split into the unfinished copy and write its manifest."""
    folder, parts = Path(builder.data_dir), [shard for shard in cut if shard.split == split]
    manifest.joined(manifests).write(manifest.manifest_path(folder, split))
    template = tfds.core.ShardedFileTemplate(
        data_dir=builder.data_path,
        dataset_name=builder.name,
        split=split,
        filetype_suffix=builder.info.file_format.file_suffix,
    )
    for index, shard in enumerate(parts):
        _link(shard.records, Path(template.sharded_filepath(shard_index=index, num_shards=len(parts))))
    return tfds.core.SplitInfo(
        name=split,
        shard_lengths=[len(part.rows) for part in manifests],
        num_bytes=sum(shard.records.stat().st_size for shard in parts),
        filename_template=template,
    )


def _link(staged: Path, final: Path) -> None:
    """Link a staged file into its final place, so that a preparation killed here loses nothing."""
    try:
        os.link(staged, final)
    except OSError:  # a file system without hard links
        shutil.copyfile(staged, final)


def _check_listing(builder: AudioBuilder) -> None:
    """Check the listing before anything is converted.

    Raises:
      DataError: as `AudioBuilder.check_uses`, or too many clips of a split have a problem already.
    """
    builder.check_uses()
    _check_shares(
        builder,
        {
            split: (
                [manifest.Rejected(clip.id, clip.problem) for clip in clips if clip.problem],
                len(clips),
            )
            for split, clips in builder.listing.items()
        },
    )


def _check_converted(
    builder: AudioBuilder, cut: Sequence[shards.Shard]
) -> Mapping[str, list[manifest.Manifest]]:
    """Return the manifests of the shards of each split.

    Raises:
      DataError: too many clips of a split were rejected.
    """
    manifests = {
        split: [manifest.read(shard.manifest) for shard in cut if shard.split == split]
        for split in builder.listing
    }
    wholes = {split: manifest.joined(parts) for split, parts in manifests.items()}
    try:
        _check_shares(builder, {split: (whole.rejected, whole.listed) for split, whole in wholes.items()})
    except DataError:
        for shard in cut:
            shard.forget_rejections()
        raise
    return manifests


def _check_shares(
    builder: AudioBuilder, parts: Mapping[str, tuple[Sequence[manifest.Rejected], int]]
) -> None:
    """Check the shares of rejected clips, which are listed in files that are kept if they are too large."""
    folder = Path(builder.data_dir).parent  # outlives the unfinished folder
    listed = {split: manifest.rejected_path(folder, split) for split in parts}
    for split, (rejected, _) in parts.items():
        manifest.Manifest(rejected=tuple(rejected)).write(listed[split])
    manifest.check_shares(parts, listed, builder.builder_config.max_failed_share)
    for path in listed.values():
        path.unlink()


def _check_splits(builder: AudioBuilder) -> None:
    """Write the lists of sounds that are in no split, and of clips that are in two.

    Raises:
      DataError: a class that must have a clip has none.
    """
    folder = Path(builder.data_dir)
    left_out = tuple(manifest.Rejected(file, "in no split") for file in builder.unlisted())
    manifest.Manifest(rejected=left_out).write(manifest.unlisted_path(folder))
    splits = {split: manifest.read(manifest.manifest_path(folder, split)) for split in builder.listing}
    manifest.Manifest(rejected=tuple(manifest.twins(splits))).write(manifest.twins_path(folder))
    there = {label for part in splits.values() for row in part.rows for label in row.labels}
    if lost := [label for label in builder.indispensable() if label not in there]:
        ids = {clip.id for clips in builder.listing.values() for clip in clips if lost[0] in clip.labels}
        first = next(bad for part in splits.values() for bad in part.rejected if bad.id in ids)
        raise DataError(
            f"config.data_dir: class {lost[0]!r} has no usable sound ({first.id}: {first.reason}): fix "
            "its files or remove its folder"
        )
