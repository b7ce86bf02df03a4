"""What the libraries may do in this process: how many threads, how these wait, and nothing sent to anyone.

Decisions:
- The libraries read their settings when they are loaded, so `import n3r` sets them, each only where the user
  has not.
- A container's quota of processor time is unknown to the libraries, which start a thread for every processor
  that they see: those beyond the quota only make the others wait.
- A thread of OpenMP spins while it waits for the next piece of work. Alone that is fast; beside busy programs
  it takes the time from the thread that it waits for, and a training falls to a tenth. So where others are
  busy as the process starts, threads sleep instead: `python -m benchmarks.company` shows both. Only the
  waiting differs, not the number of threads, so that results stay the same to the last digit.
"""

import math
import os
import time
from collections.abc import MutableMapping
from pathlib import Path

SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # else onnxruntime keeps a device id and counts under HOME
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
N_LOOKS, BETWEEN = 15, 0.002  # seconds: at how many programs run, as this one starts
BUSY = 0.75  # programs in the mean, beside which threads sleep
CGROUP, RUNNING = Path("/sys/fs/cgroup"), Path("/proc/loadavg")
_settled: dict[str, str] = {}  # by this process, not by its user


def processors(cgroup: Path = CGROUP) -> int:
    """How many processors this process may use, by its affinity and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    n = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(n, _quota(cgroup) or n)


def _quota(cgroup: Path) -> int | None:
    """Processors' worth of time, rounded up, of version 2 or 1 of control groups; None: no quota."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((cgroup / name).read_text("utf-8") for name in names).split()
            if int(quota) > 0:
                return math.ceil(int(quota) / int(period))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None


def others_running(file: Path = RUNNING) -> float:
    """How many other programs run on the machine, in the mean of some looks; 0 where it does not say."""
    try:
        looks = []
        for _ in range(N_LOOKS):
            looks.append(int(file.read_text("utf-8").split()[3].partition("/")[0]) - 1)
            time.sleep(BETWEEN)
    except (OSError, ValueError, IndexError):
        return 0.0
    return sum(looks) / len(looks)


def settle(environment: MutableMapping[str, str], cgroup: Path = CGROUP, running: Path = RUNNING) -> None:
    """Set what is not set: no telemetry, as many threads as processors, and how these wait."""
    wanted = dict(SILENT)
    n = processors(cgroup)
    if n < (os.cpu_count() or 1):
        wanted["OMP_NUM_THREADS"] = str(n)
    threads = environment.get("OMP_NUM_THREADS", str(n))
    if (
        threads != "1"
        and not any(name in environment for name in WAITING)
        and others_running(running) >= BUSY
    ):
        wanted["OMP_WAIT_POLICY"] = "PASSIVE"
    new = {name: value for name, value in wanted.items() if name not in environment}
    environment.update(new)
    if environment is os.environ:
        _settled.update(new)


def settled_anew() -> dict[str, str]:
    """An environment for a new process, which finds other programs running than this one did."""
    environment = {name: value for name, value in os.environ.items() if _settled.get(name) != value}
    settle(environment)
    return environment
