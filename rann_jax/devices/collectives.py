"""Find in the text of a compiled program what it sends between devices."""

import dataclasses
import re
from collections.abc import Sequence

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# By XLA's names. All of f8e4m3fn, f8e5m2, ... are f8 here; what is below eight bits counts as a byte.
BYTES = {"token": 0, "opaque": 0, "pred": 1, "bf16": 2, "s2": 1, "u2": 1, "s4": 1, "u4": 1, "f4": 1} | {
    f"{kind}{8 * size}": size
    for kind, sizes in {"s": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (1, 2, 4, 8), "c": (8, 16)}.items()
    for size in sizes
}

# `%name (parameters) -> SHAPE {` begins a computation: the program, the body of a loop, a branch, ...
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$")
# `%name = SHAPE opcode(%operand, ...)`; SHAPE is one array or a tuple of them.
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_ARRAY = re.compile(r"\b([a-z]+\d*)(?:e\d+m\d+\w*)?\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind: how many are executed, and the bytes per device that take part in them.

    An instruction in a loop counts as often as the loop runs, or once if the compiler does not know that.
    Copies that the compiler makes of one instruction for several branches, recognised by their channel, count
    once. Bytes are those of the larger side, operands or result: what an all-reduce reduces, what an
    all-gather gathers, what a reduce-scatter is given.
    """

    count: int
    bytes: int


def traffic(hlo: str) -> dict[str, Traffic]:
    """Return the traffic by kind of collective, from the text of an optimised HLO module.

    >>> traffic("%b = f32[8]{0} all-reduce(%a), replica_groups={}")
    {'all-reduce': Traffic(count=1, bytes=32)}
    """
    found: dict[str, Traffic] = {}
    shapes: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    lines = hlo.splitlines()
    repeated = _repetitions(lines)
    computation, times = "", 1
    for line in lines:
        if begun := _COMPUTATION.match(line):
            computation, times = begun[1], repeated[begun[1]]
        if not (instruction := _INSTRUCTION.match(line)):
            continue
        name, shape, opcode, rest = instruction.groups()
        shapes[name] = shape
        kind = opcode.removesuffix("-done")  # of an asynchronous pair, count the half that gives the result
        if kind in KINDS:
            if computation.startswith("all-reduce-scatter"):  # TPUs' form: fused with the slice that is kept
                kind = "reduce-scatter"
            channel = re.search(r"channel_id=(\d+)", rest)
            if channel and (kind, channel[1]) in seen:
                continue
            seen.add((kind, channel[1] if channel else name))
            operands = re.findall(r"%([\w.-]+)", rest.partition(")")[0])
            if opcode.endswith("-done"):  # its operand is the other half
                operands = []
            given = sum(array_bytes(shapes.get(operand, "")) for operand in operands)
            before = found.get(kind, Traffic(0, 0))
            sent = times * max(array_bytes(shape), given)
            found[kind] = Traffic(before.count + times, before.bytes + sent)
    return found


def _repetitions(lines: Sequence[str]) -> dict[str, int]:
    """Return how often each computation is executed where it is called, by name."""
    repeated = {begun[1]: 1 for line in lines if (begun := _COMPUTATION.match(line))}
    # In the text, a computation comes before those that call it.
    calls: list[tuple[str, str, int]] = []
    caller = ""
    for line in lines:
        if begun := _COMPUTATION.match(line):
            caller = begun[1]
        elif (instruction := _INSTRUCTION.match(line)) and caller:
            known = _TRIPS.search(line) if instruction[3] == "while" else None
            called = set(re.findall(r"%([\w.-]+)", instruction[4])) & repeated.keys()
            calls += [(caller, name, int(known[1]) if known else 1) for name in called]
    for caller, name, trips in reversed(calls):
        repeated[name] = max(repeated[name], repeated[caller] * trips)
    return repeated


def array_bytes(shape: str) -> int:
    """Return the bytes of an array or tuple, given its shape as HLO writes it.

    >>> array_bytes("(f32[2,3]{1,0:T(8,128)}, bf16[4]{0})")
    32

    Raises:
      KeyError: an element type that is not known here.
    """
    total = 0
    for dtype, dimensions in _ARRAY.findall(shape):
        size = BYTES[dtype]
        for dimension in filter(None, dimensions.split(",")):
            size *= int(dimension)
        total += size
    return total
