"""Ceilings: how many calls a reading is of, on which operands; and what other programs of the machine use."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from benchmarks import machine

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("taken", "calls"), [(1.0, 1), (0.005, 4), (1e-6, machine.QUEUED)])
def test_a_turn_makes_enough_calls_to_fill_its_time(monkeypatch, taken, calls):
    clock = iter([7.0, 7.0 + taken])
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert machine.turn(lambda: None, lambda out: out, 0.02) == calls


class Clocked:
    """A device on which a call takes 1 ms and a wait for it 0.3 ms more."""

    def __init__(self, monkeypatch, accelerator: bool):
        self.now, self.waits = 0.0, 0
        monkeypatch.setattr(machine, "on_accelerator", lambda: accelerator)
        monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(machine.jax, "block_until_ready", self.wait)

    def call(self) -> None:
        self.now += 1e-3

    def wait(self, _) -> None:
        self.now += 3e-4
        self.waits += 1


def test_an_accelerator_is_waited_for_once_in_many_calls(monkeypatch):
    # 77 calls of 1.3 ms make 0.1 s.
    device = Clocked(monkeypatch, accelerator=True)
    assert machine.sustained(device.call, 10) == pytest.approx(1e-3 + 3e-4 / 77)
    assert device.waits == 2 + 11  # to compile, for the turn's size, and once a round


def test_a_processor_is_waited_for_at_every_call(monkeypatch):
    device = Clocked(monkeypatch, accelerator=False)
    assert machine.sustained(device.call, 10) == pytest.approx(1.3e-3)
    assert device.waits == 1 + 11


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_matrix_product_has_random_operands(monkeypatch, dtype):
    monkeypatch.setattr(machine, "sustained", lambda call, repeats: products.append(call()) or 0.5)
    products: list[jax.Array] = []
    assert machine.matmul_flops(dtype) == 4 * 2048**3
    assert products[0].dtype == dtype
    # Sums of 2048 products of independent normal values.
    assert float(products[0].astype(jnp.float32).std()) == pytest.approx(2048**0.5, rel=0.01)


def test_cores_of_other_programs(monkeypatch, tmp_path):
    clock = [100.0]
    own = SimpleNamespace(ru_utime=2.0, ru_stime=1.0)
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(machine.resource, "getrusage", lambda _: own)
    monkeypatch.setattr(machine.os, "sysconf", lambda _: 100)
    monkeypatch.setattr(machine, "STAT", tmp_path / "stat")
    assert machine.OtherPrograms().cores() is None
    machine.STAT.write_text("cpu  1000 200 300 99999 88888 10 20 30 500 5\ncpu0 7 7 7\n")
    others = machine.OtherPrograms()
    # Ten seconds later: 15 s more of all, of which 3 s for this program and 3 s for its children.
    clock[0] = 110.0
    own.ru_utime = 5.0
    machine.STAT.write_text("cpu  2000 300 600 100999 99999 20 30 110 900 5\ncpu0 7 7 7\n")
    assert others.cores() == 0.9
