"""The servers of the tests keep their promises: data survives a restart, no process survives a stop."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError

from tests.servers.process import ChildProcess, ServerError, free_port, is_alive, wait_for
from tests.servers.seaweed import SeaweedFS

# Ignores SIGTERM and has two children: one in a session of its own, one that lost its parent.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep, start_new_session=True)
if os.fork() == 0:
    subprocess.Popen(sleep)
    os._exit(0)
os.wait()
print("ready", flush=True)
time.sleep(600)
"""


def start_stubborn(folder: Path) -> ChildProcess:
    process = ChildProcess([sys.executable, "-c", STUBBORN], log=folder / "stubborn.log").start()
    wait_for(lambda: "ready" in process.log.read_text(), timeout=60, what="the children", processes=[process])
    return process


def test_stop_leaves_no_descendant(tmp_path: Path) -> None:
    process = start_stubborn(tmp_path)
    pids = process.pids()
    assert len(pids) == 3
    assert all(map(is_alive, pids))

    process.stop(grace=0.5)

    assert not any(map(is_alive, pids))
    assert process.pids() == []


def test_a_terminated_parent_leaves_nothing(tmp_path: Path) -> None:
    parent = (
        "import sys, time; from pathlib import Path; from tests.servers.process import exit_on_signals\n"
        "from tests.test_servers import start_stubborn\n"
        "exit_on_signals()\n"
        "print(*start_stubborn(Path(sys.argv[1])).pids(), flush=True)\n"
        "time.sleep(600)\n"
    )
    checkout = Path(__file__).resolve().parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", parent, str(tmp_path)], cwd=checkout, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        pids = [int(pid) for pid in running.stdout.readline().split()]
        running.send_signal(signal.SIGTERM)
    assert running.returncode == 128 + signal.SIGTERM
    assert len(pids) == 3
    assert not any(map(is_alive, pids))


def test_wait_for_shows_the_log_of_a_process_that_ended(tmp_path: Path) -> None:
    process = ChildProcess([sys.executable, "-c", "raise SystemExit('no such config')"], log=tmp_path / "log")
    process.start()
    with pytest.raises(ServerError, match="no such config"):
        wait_for(lambda: False, timeout=60, what="a miracle", processes=[process])
    process.stop()


def test_seaweed_keeps_its_objects_while_it_is_down(tmp_path: Path) -> None:
    with SeaweedFS(tmp_path / "s3") as s3:
        s3.client().put_object(Bucket=s3.bucket, Key="a/hero.png", Body=b"image")
        pids = s3.process.pids()
        s3.stop()
        with pytest.raises(BotoCoreError):
            s3.client().get_object(Bucket=s3.bucket, Key="a/hero.png")
        s3.start()
        assert s3.client().get_object(Bucket=s3.bucket, Key="a/hero.png")["Body"].read() == b"image"
        pids += s3.process.pids()
    assert not any(map(is_alive, pids))


def test_two_seaweeds_do_not_meet(tmp_path: Path) -> None:
    with SeaweedFS(tmp_path / "one") as one, SeaweedFS(tmp_path / "two") as two:
        one.client().put_object(Bucket=one.bucket, Key="only-here", Body=b"1")
        assert "Contents" not in two.client().list_objects_v2(Bucket=two.bucket)


def test_free_ports_are_not_handed_out_twice() -> None:
    ports = [free_port(10_000) for _ in range(50)]
    assert len({*ports, *(port + 10_000 for port in ports)}) == 100
