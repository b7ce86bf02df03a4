"""A folder is held by one process at a time, also by what a killed one left running."""

import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from n3r.files.lock import alone, held

HOLD = """
import subprocess, sys
from pathlib import Path
from n3r.files.lock import held
with held(Path(sys.argv[1])) as fd:
    if len(sys.argv) > 2:  # a child that inherits the lock, as a kernel does
        subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({sys.argv[2]})"], pass_fds=(fd,))
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, str(folder), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_the_firsts_process(tmp_path):
    first = holder(tmp_path)
    with pytest.raises(ValueError, match=f"in use by the process {first.pid}: wait for it"), held(tmp_path):
        pass
    first.communicate("")
    with held(tmp_path):
        pass


def test_the_second_is_told_the_firsts_machine_where_that_is_another(tmp_path):
    first = holder(tmp_path)
    (tmp_path / ".lock").write_text("1 node7\n")
    with pytest.raises(ValueError, match="in use by the process 1 on node7: wait for it"), held(tmp_path):
        pass
    first.communicate("")


def test_a_killed_holder_locks_nobody_out(tmp_path):
    first = holder(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with held(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {platform.node()}\n"


def test_what_a_killed_holder_left_running_is_waited_for(tmp_path):
    first = holder(tmp_path, "1.5")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    started = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - started > 0.5


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="cannot write into the folder .*file/run"),
        held(tmp_path / "file" / "run"),
    ):
        pass


def test_at_an_output_one_is_alone_with_a_folder_that_goes(tmp_path):
    for output in (tmp_path / "new" / "scores.csv", tmp_path / "evaluation"):
        with alone(output) as place:
            assert place.stat().st_mode & 0o777 == 0o700
            with pytest.raises(ValueError, match=f"in use by the process {os.getpid()}"), alone(output):
                pass
            (place / "names").mkdir()
        assert list(tmp_path.iterdir()) == []
    place.mkdir(parents=True)
    (place / "names").touch()  # of a process that was killed
    with alone(output):
        (output / "report.html").touch()
    assert [path.name for path in output.iterdir()] == ["report.html"]
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="cannot write out into .*choose a folder"),
        alone(tmp_path / "file" / "out"),
    ):
        pass
