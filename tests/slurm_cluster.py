"""A real Slurm on this machine: one node with two cores, on loopback, gone with the tests.

Everything (keys, sockets, state, logs) lies in one temporary directory, munge's included, so it
meets neither another such cluster nor an installed one. Works as root, also in a container without
cgroups, and as an ordinary user.
"""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
DAEMONS = ("munged", "slurmctld", "slurmd")
PROGRAMS = (*DAEMONS, "sbatch", "srun", "scancel", "scontrol", "squeue")
CORES = 2

# linuxproc and no task plugin: nothing here needs cgroups. cred_expire bounds how long a requeued
# job waits until it starts again (two minutes by default, five seconds at least).
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=10
InactiveLimit=0
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=512 State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=60 State=UP
"""


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Path]:
    """The directory of a running cluster (its logs are `*.log`); SLURM_CONF points to it."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if absent:
        pytest.skip(f"no Slurm here ({', '.join(absent)}): scripts/install_slurm.sh installs it")
    with _cluster() as directory:
        yield directory


@contextmanager
def _cluster() -> Iterator[Path]:
    with ExitStack() as stack:
        # Not pytest's directory: the path of a socket holds at most 107 characters.
        directory = Path(tempfile.mkdtemp(prefix="slurm-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)  # munge wants its socket within everybody's reach
        config = directory / "slurm.conf"
        ports = _free_ports(2)
        config.write_text(
            CONFIG.format(
                directory=directory, host=socket.gethostname().split(".")[0], cores=CORES,
                user=pwd.getpwuid(os.getuid()).pw_name,
                controller_port=ports[0], node_port=ports[1],
            )
        )  # fmt: skip
        key = directory / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SLURM_CONF", str(config))

        files = {name: directory / f"munge.{name}" for name in ("socket", "pid", "seed")}
        munged = ["munged", "--foreground", "--force", f"--key-file={key}", "--num-threads=2"]
        munged += [
            f"--{name}{'' if name == 'socket' else '-file'}={f}" for name, f in files.items()
        ]
        stack.enter_context(_daemon(munged, directory))
        _wait(files["socket"].exists, "munged", directory)
        stack.enter_context(_daemon(["slurmctld", "-D", "-i"], directory))
        stack.enter_context(_daemon(["slurmd", "-D"], directory))
        _wait(_idle, "the node", directory)
        stack.callback(_end_jobs)
        yield directory


@contextmanager
def _daemon(command: list[str], directory: Path) -> Iterator[None]:
    with open(directory / f"{command[0]}.out", "wb") as out:
        program = shutil.which(command[0], path=PATH)
        process = subprocess.Popen(
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _idle() -> bool:
    done = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
    return done.stdout.strip() == "idle"


def _end_jobs() -> None:
    """No job outlives the cluster: they are not children of its daemons' process."""
    user = pwd.getpwuid(os.getuid()).pw_name
    subprocess.run(["scancel", "--signal=KILL", "--full", f"--user={user}"], capture_output=True)
    subprocess.run(["scancel", f"--user={user}"], capture_output=True)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = subprocess.run(["squeue", "-h"], capture_output=True, text=True)
        if not left.stdout.strip():
            return
        time.sleep(0.2)


def _wait(ready, what: str, directory: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            logs = [*sorted(directory.glob("*.log")), *sorted(directory.glob("*.out"))]
            told = "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in logs)
            pytest.fail(f"{what} did not come up in {seconds:.0f} s:\n{told}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
