"""Several processes that work as one: which of them this is, starting them, gathering what they have.

Decisions:
- Which process this is comes from the environment that a launcher such as torchrun sets; without one there
  is a single process.
- Nothing is written by a process but the first.
"""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


def share() -> tuple[int, int]:
    """This process's number and how many there are, as a launcher says."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def is_first_process() -> bool:
    """Whether this process is the one that writes files; alone it is."""
    return share()[0] == 0


def launch(n: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run `function` in n new processes of one group on this machine, and wait."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.start_processes(
        _run_rank, (n, port, torch.get_num_threads(), function, arguments), nprocs=n, start_method="spawn"
    )


def _run_rank(
    rank: int, n: int, port: int, n_threads: int, function: Callable[..., None], arguments: tuple
) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in {**ranks, **address}.items()})
    torch.set_num_threads(max(1, n_threads // n))
    function(*arguments)
    dist.destroy_process_group()


def gather(part: Any, n: int) -> list[Any]:
    """The parts of all processes, in each of them."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    parts = [None] * n
    dist.all_gather_object(parts, part)
    return parts
