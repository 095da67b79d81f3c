"""Warnings about a prepared copy: sound that was left out or is in two splits, and splits without a use."""

import sys
from collections.abc import Mapping

from input_pipeline.manifest import check_shares, manifest_path, twins_path, unlisted_path
from input_pipeline.prepared import Prepared
from input_pipeline.sampling import split_names


def report(prepared: Prepared, max_failed_share: float, uses: Mapping[str, str]) -> None:
    """Print to stderr what should be known of a copy before it is used.

    Args:
      prepared: the copy.
      max_failed_share: the largest share of a split's files that may be rejected (0 to 1).
      uses: the splits of each use, as in `config.splits`.

    Raises:
      DataError: too many files were rejected, or a use names a split that does not exist.
    """
    _rejected(prepared, max_failed_share)
    _unlisted(prepared)
    _twins(prepared)
    _uses(prepared, uses)


def _rejected(prepared: Prepared, max_failed_share: float) -> None:
    """Print a line to stderr for each split of which files were left out; DataError if too many were."""
    parts = {split: prepared.manifest(split) for split in prepared.splits}
    paths = {split: manifest_path(prepared.folder, split) for split in parts}
    check_shares(
        {split: (part.rejected, part.listed) for split, part in parts.items()}, paths, max_failed_share
    )
    for split, part in parts.items():
        if part.rejected:
            print(
                f"warning: {prepared.name}: {len(part.rejected)} of {part.listed} files of split {split!r} "
                f"were unusable and left out, listed in {paths[split]}",
                file=sys.stderr,
            )


def _unlisted(prepared: Prepared) -> None:
    """Print one line to stderr if the folder holds sound that is in no split."""
    if unlisted := prepared.unlisted():
        print(
            f"note: {prepared.name}: {len(unlisted)} sounds of the folder are in no split and were left out; "
            f"the first is {unlisted[0].id!r}, listed in {unlisted_path(prepared.folder)}",
            file=sys.stderr,
        )


def _twins(prepared: Prepared) -> None:
    """Print one line to stderr if sound is in two splits: a network could be tested on its training data."""
    if twins := prepared.twins():
        print(
            f"warning: {prepared.name}: {len(twins)} clips are byte for byte in another split too; the first "
            f"is {twins[0].id!r}, {twins[0].reason}; all are listed in {twins_path(prepared.folder)}: "
            "remove them from one split",
            file=sys.stderr,
        )


def _uses(prepared: Prepared, uses: Mapping[str, str]) -> None:
    """Print a line to stderr if splits are unused, and one for every use that shares splits with training.

    Raises:
      DataError: a use names a split that does not exist.
    """
    used = {
        use: split_names(expression, prepared.splits, key="config.splits") for use, expression in uses.items()
    }
    if "train" not in used:
        return
    if unused := [split for split in prepared.splits if not any(split in names for names in used.values())]:
        print(
            f"note: {prepared.name}: prepared but not used by config.splits: {', '.join(unused)}",
            file=sys.stderr,
        )
    for use, names in used.items():
        shared = [split for split in names if split in used["train"]]
        if use != "train" and shared:
            print(
                f"warning: config.splits.{use} shares {', '.join(shared)} with config.splits.train: its "
                "scores include training clips",
                file=sys.stderr,
            )
