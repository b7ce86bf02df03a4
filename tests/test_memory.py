"""Freed memory stays while it is kept, and goes back at the end."""

import sys

import pytest

from n3r.kernels import keep_memory

COUNT = """
import resource, torch
from n3r.kernels import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(40_000_000)  # 160 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024

usual = faults()
with keep_memory():
    faults()  # the heap grows
    kept, inside = faults(), held()
print(usual, kept, inside - held())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_is_kept_between_steps_and_given_back_at_the_end(run_fresh):
    usual, kept, given_back = map(int, run_fresh(COUNT).split())
    assert kept < usual / 5
    assert given_back > 100  # MB


def test_it_is_given_back_after_an_error_too():
    with pytest.raises(ZeroDivisionError), keep_memory():
        raise ZeroDivisionError
