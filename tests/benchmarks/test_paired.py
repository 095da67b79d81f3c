"""Paired benchmarks without measurements: figures from given times, workloads that do not fit, options."""

import json

import jax
import pytest

from benchmarks import inference, ours, paired, train_step
from benchmarks.workload import TRAINING, WAVEFORM, Workload

pytestmark = pytest.mark.fast

CEILINGS = {"matmul_flops": 1e12, "bandwidth": 1e11}
WORKLOAD = Workload(TRAINING, "rann-8x4-6", WAVEFORM, 32)
OURS = {
    "seconds": [0.1, 0.2, 0.3],
    "fed_seconds": [0.25, 0.25],
    "compile_seconds": 40.0,
    "memory_bytes": 5e9,
    "bytes_accessed": 4e9,
    "flops": 5e10,
}
THEIRS = {"seconds": [0.2, 0.3], "memory_bytes": 6e9}
FULL = {"failed": "out of memory"}


def cells(columns, row) -> list[str]:
    """Return the cells of the table's last line."""
    return [cell.strip() for cell in paired.table(columns, [row]).splitlines()[-1].strip("|").split("|")]


def test_figures_from_given_times():
    seen = {
        "jax": [OURS, {**OURS, "compile_seconds": 3.0}],
        "torch": [THEIRS, {**THEIRS, "seconds": [0.4]}],
        "compiled": [{"seconds": [0.15], "memory_bytes": 5.5e9}],
    }
    row = paired.row(WORKLOAD, seen, CEILINGS)
    # Medians of 0.2, 0.3 and 0.15 s for 32 clips.
    assert cells(paired.SPEED, row)[:4] == ["rann-8x4-6", "waveform", "32", "160.0"]
    speed = ["200.0", "300.0", "1.50", "150.0", "0.75", "5.00", "6.00", "5.50"]
    assert cells(paired.SPEED, row)[4:] == speed
    # 2.5e11 of 1e12 FLOP/s; 2e10 of 1e11 bytes/s; 0.2 s, or 0.25 s with fresh batches.
    cost = ["40.0", "3.0", "0.250", "25%", "4.00", "20%", "20.0%"]
    assert cells(paired.COST, row)[3:] == cost


def test_unknown_figures_are_dashes():
    faster_when_fed = {**OURS, "fed_seconds": [0.19]}
    row = paired.row(WORKLOAD, {"jax": [faster_when_fed]}, CEILINGS)
    assert cells(paired.SPEED, row)[3:] == ["160.0", "200.0", *4 * ["-"], "5.00", "-", "-"]
    assert cells(paired.COST, row)[3:5] == ["40.0", "-"]
    assert cells(paired.COST, row)[-1] == "0.0%"


@pytest.mark.parametrize(
    ("runs", "speed"),
    [
        (
            {"jax": OURS, "torch": FULL, "compiled": THEIRS},
            ["160.0", "200.0", "out of memory", "-", "250.0", "1.25", "5.00", "-", "6.00"],
        ),
        (
            {"jax": FULL, "torch": THEIRS, "compiled": THEIRS},
            ["-", "out of memory", "250.0", "-", "250.0", "-", "-", "6.00", "6.00"],
        ),
    ],
)
def test_out_of_memory_is_shown_and_not_retried(runs, speed):
    asked = []

    def side(name):
        return lambda workload: asked.append(name) or runs[name]

    seen = paired.rounds(WORKLOAD, {name: side(name) for name in runs}, 2)
    full = next(name for name in runs if runs[name] is FULL)
    assert sorted(asked) == sorted([*runs, *(name for name in runs if name != full)])
    assert cells(paired.SPEED, paired.row(WORKLOAD, seen, CEILINGS))[3:] == speed


def test_a_compile_error_about_memory_is_out_of_memory(monkeypatch):
    monkeypatch.setattr(Workload, "experiment", lambda workload: None)

    def refuse(message):
        def compiled(*_):
            raise jax.errors.JaxRuntimeError(message)

        monkeypatch.setattr(ours, "compiled", compiled)
        return ours.measure(WORKLOAD)

    assert refuse("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes") == FULL
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        refuse("INTERNAL: a driver is missing")


def test_a_measuring_process_returns_its_json_or_its_failure(monkeypatch, tmp_path):
    programs = {
        "says": "import os, sys; print('noise'); print('{\"at\": \"%s\"}' % os.environ[sys.argv[1]])",
        "dies": "import os; os.kill(os.getpid(), 9)",
        "fails": "import sys; sys.exit('there is no such device')",
    }
    for name, text in programs.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert paired.in_process("says", "SPEED", settings={"SPEED": "full"}) == {"at": "full"}
    assert paired.in_process("dies", settings={}) == FULL  # the system kills a process that takes all memory
    with pytest.raises(SystemExit, match=r"fails  failed:\nthere is no such device"):
        paired.in_process("fails", settings={})


def test_sides_are_measured_on_the_right_devices(monkeypatch):
    asked = []

    def in_process(module, *rest, **_):
        asked.append((module, *rest[:-1], json.loads(rest[-1])["torch_compile"]))

    monkeypatch.setattr(paired, "in_process", in_process)
    for platform, mode in [("cpu", "none"), ("cpu", "default"), ("gpu", "max-autotune"), ("tpu", "default")]:
        for measure in paired.sides(platform, "", mode, {}).values():
            measure(WORKLOAD)
    mine, twin = ("benchmarks.ours", "none"), "benchmarks.twin"
    cpu, gpu = (twin, "cpu", "none"), (twin, "cuda", "none")
    compiled = (twin, "cpu", "default"), (twin, "cuda", "max-autotune")
    assert asked == [mine, cpu, mine, cpu, compiled[0], mine, gpu, compiled[1], mine]


@pytest.fixture
def pages(monkeypatch, tmp_path):
    """Return the file in which the kernel says whether it gives huge pages; glibc is new enough."""
    file = tmp_path / "enabled"
    file.write_text("always [madvise] never")
    monkeypatch.setattr(paired, "KERNEL_SETTING", file)
    monkeypatch.setattr(paired.platform, "libc_ver", lambda: ("glibc", "2.36"))
    return file


@pytest.mark.parametrize("given", ["", "glibc.malloc.arena_max=1"])
def test_huge_pages_reach_all_processes_and_are_recorded(monkeypatch, tmp_path, pages, given):
    tunables = []

    def in_process(module, *_, settings):
        tunables.append(settings.get("GLIBC_TUNABLES"))
        if module == "benchmarks.machine":
            return {**CEILINGS, "platform": "cpu", "device": "some cores", "dtype": "float32"}
        return OURS

    monkeypatch.setattr(paired, "in_process", in_process)
    if given:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    else:
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    file = tmp_path / "out.json"
    command = ["--networks", "cnn14", "--sources", "features", "--batch", "2", "--rounds", "1"]
    wanted = f"{given}:{paired.HUGE_PAGES}".lstrip(":")
    for option, setting in [([], None), (["--huge-pages"], wanted)]:
        train_step.main([*command, *option, "--json", str(file)])
        assert tunables == [setting] * 4  # ceilings, ours, PyTorch, torch.compile
        written = json.loads(file.read_text())
        assert written["settings"].get("GLIBC_TUNABLES") == (setting or given or None)
        assert min(written["rows"][0][key] for key in ("load", "other_cores")) >= 0
        tunables.clear()


@pytest.mark.parametrize(
    ("library", "kernel", "says"),
    [
        (("", ""), "[always]", "needs glibc 2.35, this Python has none"),
        (("glibc", "2.31"), "[always]", "needs glibc 2.35, this Python has glibc 2.31"),
        (("glibc", "2.36"), "always madvise [never]", "this kernel gives none: write madvise to "),
    ],
)
def test_a_system_without_huge_pages_is_refused(monkeypatch, capsys, pages, library, kernel, says):
    monkeypatch.setattr(paired.platform, "libc_ver", lambda: library)
    pages.write_text(kernel)
    with pytest.raises(SystemExit) as stop:
        inference.main(["--huge-pages"])
    assert stop.value.code == 2
    assert f"argument --huge-pages: {says}" in capsys.readouterr().err


def test_defaults_depend_on_the_device():
    def of(platform, *arguments):
        options = paired.with_defaults(
            paired.parser("benchmarks.train_step", "").parse_args(arguments), platform
        )
        return list(paired.workloads(TRAINING, options))

    assert len(of("cpu")) == 12
    assert {(w.dtype, w.batch) for w in of("cpu")} == {("float32", 4), ("float32", 32)}
    gpu = of("gpu")
    assert [w.network for w in gpu[::8]] == ["rann-8x4-6", "rann-4x4-6", "rann-8x4-4", "cnn14"]
    assert {w.batch for w in gpu} == {32, 64, 128, 256}
    assert {(w.dtype, w.seconds) for w in gpu} == {("bfloat16", 10.0)}
    assert [w.batch for w in of("gpu", "--networks", "cnn14", "--sources", "features", "--batch", "7")] == [7]


@pytest.mark.parametrize("program", [train_step, inference])
@pytest.mark.parametrize(
    ("name", "says"), [("resnet38", "'resnet38' has no PyTorch twin"), ("rann-8x3-6", "t_m must be one of")]
)
def test_a_network_without_a_twin_is_refused(program, name, says, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(["--networks", name])
    assert stop.value.code == 2
    assert f"argument --networks: {says}" in capsys.readouterr().err
