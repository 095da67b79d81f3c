"""Print what networks cost, next to the numbers of the deck's Table XII.

  python -m rann_jax.complexity                            every network of that table
  python -m rann_jax.complexity rann-4x4-1 --num-classes 50

That table mixes two units. Its RANN rows count multiply-adds (MACs) of the network for t_c seconds. Its PANNs
rows count FLOPs for 10 s: 2 per multiply-add, STFT included, 2 per output value of a BatchNorm, and for
ResNet38 also its ReLU and pooling modules. Here both are printed for every network, at the network's own
input length.
"""

import argparse
import sys
from collections.abc import Sequence

from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded
from rann_jax.models import Complexity, complexity

# Name -> parameters and 1e9 "multi-adds", as the deck's Table XII prints them.
TABLE_XII = {
    "rann-4x4-6": (54_919_313, 23.569),
    "rann-8x1-6": (54_435_473, 101.231),
    "rann-8x2-6": (54_532_241, 61.745),
    "rann-8x4-6": (54_919_313, 47.137),
    "rann-8x8-6": (56_467_601, 42.399),
    "rann-8x4-5": (38_198_545, 32.743),
    "rann-8x4-4": (24_504_849, 20.964),
    "cnn14": (80_753_615, 42.220),
    "resnet38": (73_783_247, 48.962),
    "wavegram_logmel_cnn14": (81_065_487, 53.510),
}
HEADER = (
    f"{'network':<22} {'parameters':>11} {'GMACs':>8} {'GFLOPs':>8} {'input':>10} {'seconds':>7} "
    f"{'activations':>12}   {'deck: parameters':>16} {'multi-adds':>18}"
)


def row(name: str, cost: Complexity) -> str:
    """Return one line of the table."""
    line = (
        f"{name:<22} {cost.params:>11,} {(cost.macs + cost.stft_macs) / 1e9:>8.3f} "
        f"{cost.published_flops / 1e9:>8.3f} {'x'.join(map(str, cost.input_shape)):>10} {cost.seconds:>7g} "
        f"{cost.activation_bytes / 2**20:>8.0f} MiB"
    )
    if name in TABLE_XII:
        params, multi_adds = TABLE_XII[name]
        unit = "GMACs" if name.startswith("rann-") else "GFLOPs"
        line += f"   {params:>16,} {multi_adds:>11.3f} {unit:<6}"
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 if the user can fix the error."""
    parser = Parser("rann_jax.complexity", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; default: those of Table XII")
    parser.add_argument(
        "--num-classes", type=int, default=527, help="number of classes (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    return guarded(lambda: run(options), also=(ValueError,))


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks and return the exit code.

    Raises:
      ValueError: there is no such network, or the number of classes is invalid.
    """
    if options.num_classes < 1:
        raise ValueError(f"--num-classes={options.num_classes}: it must be at least 1")
    costs = {n: complexity(n, num_classes=options.num_classes) for n in options.names or TABLE_XII}
    print(HEADER)
    for name, cost in costs.items():
        print(row(name, cost))
    print("activations: float32 outputs of convolutions, BatchNorms and fully connected layers, one clip")
    return 0


if __name__ == "__main__":
    sys.exit(main())
