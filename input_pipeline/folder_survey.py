"""What a data set or a finished copy lists, found without decoding any sound."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from input_pipeline.copies import named_copy, open_copy, record
from input_pipeline.generate import quiet_tfds
from input_pipeline.plan import find_source, prepared_root
from input_pipeline.prepared import Prepared


@dataclass(frozen=True)
class Survey:
    """Classes and splits that a data set lists.

    Attributes:
      labels: class names.
      splits: names of the splits.
      splits_from: where those names come from, for messages.
      labels_of: for each split, the classes that its usable clips have.
      several_labels: whether any clip has more than one label.
      dealt: whether the clips are dealt into folds here, so that one file more can change every fold.
    """

    labels: tuple[str, ...]
    splits: tuple[str, ...]
    splits_from: str
    labels_of: Mapping[str, frozenset[str]]
    several_labels: bool
    dealt: bool


def survey(name: str, *, data_dir: str, **options: Any) -> Survey:
    """Return what `prepare` would find with these arguments; no sound is decoded and nothing is written.

    Raises:
      DataError: as `prepare`, for errors that show in file names and tables.
    """
    if (folder := named_copy(data_dir)) is not None:
        return _of_copy(open_copy(name, folder, options))
    builder_class, config = find_source(name, data_dir, prepared_root(""), False, options)
    with quiet_tfds():
        builder = builder_class(data_dir=config.source.folder, config=config)
        clips = [clip for listed in builder.listing.values() for clip in listed]
        return Survey(
            labels=tuple(builder.label_names()),
            splits=tuple(builder.listing),
            splits_from=builder.splits_from,
            labels_of={
                split: frozenset(label for clip in listed if not clip.problem for label in clip.labels)
                for split, listed in builder.listing.items()
            },
            several_labels=any(len(clip.labels) > 1 for clip in clips),
            dealt=builder.dealt,
        )


def _of_copy(prepared: Prepared) -> Survey:
    made = record(prepared.folder)
    dealt = bool(made.get("dealt"))  # copies of earlier versions do not say
    rows = {split: prepared.manifest(split).rows for split in prepared.splits}
    return Survey(
        labels=prepared.labels,
        splits=prepared.splits,
        splits_from=f"config.dataset.folds={made['options']['folds']}" if dealt else str(prepared.folder),
        labels_of={split: frozenset(label for row in rows[split] for label in row.labels) for split in rows},
        several_labels=any(len(row.labels) > 1 for part in rows.values() for row in part),
        dealt=dealt,
    )
