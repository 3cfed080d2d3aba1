"""Background processes: they are found again and stopped with all they started, no others are."""

from __future__ import annotations

import json
import os
import socket
import sys

import psutil

from local import processes
from local.waiting import wait_for

TREE = """
import subprocess, time
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""


def start_tree(folder):
    """A process and its child, whose id the process writes to its log."""
    processes.start(folder, "tree", [sys.executable, "-c", TREE], os.environ)
    text = wait_for((folder / "tree.log").read_text, every_s=0.02, at_most_s=60)
    return processes.leader(folder, "tree"), psutil.Process(int(text))


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_stop_ends_the_whole_tree(tmp_path):
    parent, child = start_tree(tmp_path)
    assert processes.stop(tmp_path) == []
    assert gone(parent)
    assert gone(child)
    assert processes.leader(tmp_path, "tree") is None


def test_stop_ends_orphans_of_a_killed_leader(tmp_path):
    parent, child = start_tree(tmp_path)
    parent.kill()
    parent.wait()
    assert processes.leader(tmp_path, "tree") is None
    processes.stop(tmp_path)
    assert gone(child)


def test_another_process_with_a_known_id_is_left_alone(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps({"pid": os.getpid(), "born": 0.0}))
    assert processes.leader(tmp_path, "old") is None


def test_a_taken_port_is_not_chosen():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert processes.free_port(port) != port
    assert processes.free_port(port) == port


def test_tail_is_the_end_of_the_log(tmp_path):
    (tmp_path / "server.log").write_text("\n".join(map(str, range(100))))
    assert processes.tail(tmp_path, "server", lines=2) == "98\n99"
