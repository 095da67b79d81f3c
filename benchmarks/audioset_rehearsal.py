"""Make a small AudioSet: 2000 multi-label clips of 10 s, mixed from ESC-50, in AudioSet's official layout.

    python -m benchmarks.audioset_rehearsal --data-dir ESC50 --out DIR
    python -m rann_jax.main --config configs/audioset.py:size=small,classes=50 \\
        --config.data_dir=DIR --workdir W

Each clip has one to three sources of 5 s, at random places and levels, and the union of their labels. 1600
clips are mixed from folds 1 to 4 (balanced_train_segments.csv) and 400 from fold 5 (eval_segments.csv), so
no recording is in both. The first sources go through all classes in turn. The classes of the others are
drawn with weights 1 / rank, so that some are far more frequent, as in AudioSet, and class-balanced sampling
has something to do.
"""

import base64
import csv
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from input_pipeline import audio
from rann_jax.command_line.parser import Parser

SPLITS = {"balanced_train": (1600, ("1", "2", "3", "4")), "eval": (400, ("5",))}
RATE, SECONDS = 16000, 10
LEVELS_DB = (-12.0, 0.0)


def youtube_id(split: str, number: int) -> str:
    """Return eleven characters from the alphabet of YouTube's ids."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"{split} {number}".encode()).digest()).decode()[:11]


def mix(sources: Sequence[Path], rng: np.random.Generator) -> np.ndarray:
    """Return (SECONDS * RATE,): the normalised sources at random places and levels, summed, peak below 1."""
    mixture = np.zeros(SECONDS * RATE, np.float32)
    for path in sources:
        samples = audio.resample(audio.decode(path), RATE).samples[: len(mixture)]
        samples = samples / max(1e-4, float(np.sqrt(np.mean(samples**2))))
        start = rng.integers(len(mixture) - len(samples), endpoint=True)
        mixture[start : start + len(samples)] += 10 ** (rng.uniform(*LEVELS_DB) / 20) * samples
    return mixture * (rng.uniform(0.2, 0.9) / np.abs(mixture).max())


def draw(number: int, recordings: Mapping[str, Sequence[Path]], rng: np.random.Generator) -> dict[str, Path]:
    """Draw one to three recordings of different classes; the first class is `number` modulo their count."""
    classes = list(recordings)
    weights = 1 / np.arange(1, len(classes) + 1)
    chosen = [classes[number % len(classes)]]
    others = rng.choice(classes, 2, replace=False, p=weights / weights.sum())
    chosen += [str(label) for label in others[: rng.integers(3)] if label != chosen[0]]
    return {label: recordings[label][rng.integers(len(recordings[label]))] for label in chosen}


def write_split(split: str, esc50: Path, rows: Sequence[Mapping[str, str]], out: Path) -> None:
    """Write the clips of a split and its list of segments."""
    clips, folds = SPLITS[split]
    recordings: defaultdict[str, list[Path]] = defaultdict(list)
    for row in rows:
        if row["fold"] in folds:
            recordings[row["target"]].append(esc50 / "audio" / row["filename"])
    (out / split).mkdir(parents=True)
    with (out / f"{split}_segments.csv").open("w") as table:
        table.write("# YTID, start_seconds, end_seconds, positive_labels\n")
        for number in range(clips):
            rng = np.random.default_rng([list(SPLITS).index(split), number])
            sources = draw(number, dict(sorted(recordings.items(), key=lambda item: int(item[0]))), rng)
            name = youtube_id(split, number)
            soundfile.write(out / split / f"Y{name}.flac", mix(list(sources.values()), rng), RATE)
            table.write(f'{name}, 0.000, {SECONDS}.000, "{",".join(map(machine_id, sources))}"\n')


def machine_id(target: str) -> str:
    """Return a made-up machine id in the form of AudioSet's."""
    return f"/m/esc50_{int(target):02}"


def main() -> None:
    parser = Parser("benchmarks.audioset_rehearsal", __doc__)
    parser.add_argument("--data-dir", required=True, type=Path, help="ESC-50: meta.csv and audio/")
    parser.add_argument("--out", required=True, type=Path, help="folder to write, which must not exist")
    args = parser.parse_args()
    with (args.data_dir / "meta.csv").open() as file:
        rows = list(csv.DictReader(file))
    args.out.mkdir()
    names = {int(row["target"]): row["category"] for row in rows}
    with (args.out / "class_labels_indices.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "mid", "display_name"])
        writer.writerows([index, machine_id(str(index)), names[index]] for index in sorted(names))
    for split in SPLITS:
        write_split(split, args.data_dir, rows, args.out)


if __name__ == "__main__":
    main()
