"""Processes of one group on a Ray cluster, such as those of a training.

Decisions:
- Each is a task of one processor, or of one GPU where there are enough. All are there at once, spread over
  the nodes.
- A group that has lost one cannot go on: all are ended and begin again, with what their work has kept.
- A process ends with its task, so that nothing of one group is left to the next.
"""

import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from n3r.engine import SMALLEST
from n3r.engine.cluster import raised, told
from n3r.engine.ray import Ray

RESTARTS = 3
GRACE = 20  # seconds in which processes notice that another is gone, or that they are to end
ROOM = 60  # seconds in which other work on the cluster may make room
LOOK = 0.5  # seconds between two looks at what the first process says
Work = Callable[[dict[str, Any]], None]


def run(folder: Path, address: str, n: int, work: Work) -> None:
    """`work` in `n` processes, each given the variables that torchrun would set; all are done at the end.

    What the first one says on stderr is said here. `folder` is a private one that all nodes see. Raises
    ValueError as `Ray` and as `work` do and where the cluster has too few processors, and RuntimeError where
    processes are lost more than `RESTARTS` times.
    """
    on = Ray(folder, SMALLEST, address)
    try:
        for attempt in range(1 + RESTARTS):
            failed = [one for one in _together(n, work, on.folder / f"said-{attempt}") if one]
            if not failed:
                return
            if own := [one for one in failed if json.loads(one)["kind"] == "own"]:
                raise raised(own[0])
            lost = f"of {n} processes {len(failed)} failed ({json.loads(failed[0])['kind']})"
            warnings.warn(f"{lost}: all begin again, from what is finished", stacklevel=2)
        raise RuntimeError(f"{lost} for the {1 + RESTARTS}th time, perhaps for want of memory")
    finally:
        on.close()


def _together(n: int, work: Work, said: Path) -> list[bytes]:
    """What each of the processes tells of its end: nothing, or an error; the first one's stderr is `said`."""
    group, tasks = placement_group([{_kind(n): 1}] * n, strategy="SPREAD"), []
    try:
        if not group.wait(ROOM):
            _kind(n)  # a node that has gone is counted until it is missed
            raise ValueError(f"other work leaves no room for {n} processes on the cluster: try again later")
        tasks += [
            _task(group, i, _process, work, variables, Path(os.devnull) if i else said)
            for i, variables in enumerate(_variables(group, n))
        ]
        _wait(tasks, said)
    finally:
        left = ray.wait(tasks, num_returns=n, timeout=0)[1] if tasks else []
        for task in left:  # of one that ends at this moment Ray would end the driver
            ray.cancel(task, force=True)
        if left:
            ray.wait(left, num_returns=len(left), timeout=GRACE)
        remove_placement_group(group)
    return [_told(task) for task in tasks]


def _kind(n: int) -> str:
    """What a process takes one of; ValueError where the cluster has fewer than `n`."""
    there = ray.cluster_resources()
    if there.get("GPU", 0) >= n:
        return "GPU"
    if (have := int(there.get("CPU", 0))) < n:
        raise ValueError(
            f"{n} processes need a processor each, and the cluster has {have}: add nodes, or set processes"
        )
    return "CPU"


def _task(group: Any, i: int, function: Callable[..., Any], *arguments: Any) -> Any:
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i)
    takes = {f"num_{kind.lower()}s": share for kind, share in group.bundle_specs[i].items()}
    options = {"num_cpus": 0, **takes, "max_retries": 0, "max_calls": 1, "scheduling_strategy": place}
    return ray.remote(**options)(function).remote(*arguments)


def _variables(group: Any, n: int) -> list[dict[str, Any]]:
    """Of each process, as torchrun sets them; each is alone on its device, and machines have numbers."""
    nodes = placement_group_table(group)["bundles_to_node_id"]
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    machines = sorted(set(nodes.values()))
    first = {"MASTER_ADDR": addresses[nodes[0]], "MASTER_PORT": ray.get(_task(group, 0, _free_port))}
    alone = {"WORLD_SIZE": n, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    return [{**first, **alone, "RANK": i, "GROUP_RANK": machines.index(nodes[i])} for i in range(n)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _wait(tasks: list[Any], said: Path) -> None:
    """Until all are done, or one has failed and the others have had time to notice."""
    left, until, n_read = tasks, float("inf"), 0
    while left and time.monotonic() < until:
        done, left = ray.wait(left, num_returns=len(left), timeout=LOOK)
        if any(map(_told, done)):
            until = min(until, time.monotonic() + GRACE)
        text = said.read_bytes() if said.is_file() else b""
        sys.stderr.write(text[n_read:].decode("utf-8", "replace"))
        n_read = len(text)


def _told(task: Any) -> bytes:
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:  # the process, or its node, is gone
        return told(error)


def _process(work: Work, variables: dict[str, Any], said: Path) -> bytes:
    """The work of one process; what it tells of an error."""
    own = ray.util.get_node_ip_address()
    # gloo takes the interface of the host's name, which may be the loopback's.
    names = [name for name, those in psutil.net_if_addrs().items() if own in {one.address for one in those}]
    os.environ.update({"GLOO_SOCKET_IFNAME": names[0]} if names else {})
    try:
        with said.open("a", encoding="utf-8", buffering=1) as file, redirect_stderr(file):
            work(variables)
    except Exception as error:
        return told(error)
    return b""
