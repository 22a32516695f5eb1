"""A real SLURM cluster of two nodes on this machine, for tests: munge, slurmctld and two slurmd, all below one folder.

Needs Debian's packages slurmctld, slurmd, slurm-client and munge, and root. There is no accounting (slurmdbd), as at
many sites; cgroups are not used, since containers rarely offer them.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
NODES = ("n1", "n2")
CPUS_PER_NODE = 2
START_S = 60.0

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ReturnToService=2
SlurmdTimeout=20
KillWait=5
JobRequeue=1
MinJobAge=600
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=4000
PartitionName=main Nodes=ALL Default=YES State=UP MaxTime=60
"""


def missing_programs() -> list[str]:
    return [program for program in PROGRAMS if _path(program) is None]


@dataclass
class SlurmCluster:
    """A running cluster; `environment` lets SLURM's commands and submitit find it."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """Run one of SLURM's commands and return its output."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def start_node(self, node: str) -> None:
        self.processes[node] = self.start("slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd and its step daemons, but not the processes of its jobs, as when a network fails."""
        slurmd = self.processes.pop(node)
        slurmd.kill()
        slurmd.wait()
        log = f"{self.folder}/slurmd.{node}.log"
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cmdline").read_bytes().startswith(b"slurmstepd") and log in _open_files(process):
                    os.kill(int(process.name), signal.SIGKILL)

    def node_states(self) -> dict[str, str]:
        lines = self.run("sinfo", "-N", "-h", "-o", "%N %T").split("\n")
        return {name: state for name, _, state in (line.partition(" ") for line in lines if line)}

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        path = _path(program)
        assert path is not None
        with (self.folder / f"{program}.out").open("ab") as log:
            return subprocess.Popen([path, *arguments], stdout=log, stderr=log, env=self.environment)


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """Start the cluster in `folder`, a short path, and end all of its processes afterwards."""
    cluster = SlurmCluster(folder)
    for name in ("state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    names = {"folder": folder, "host": socket.gethostname(), "user": getpass.getuser(), "cpus": CPUS_PER_NODE}
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(**names, ports=_free_ports(3)))
    munge = {f"--{name}": folder / f"munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")}
    options = [f"{option}={file}" for option, file in munge.items()]
    try:
        cluster.processes["munged"] = cluster.start("munged", "--foreground", "--force", f"--key-file={key}", *options)
        _wait(lambda: munge["--socket"].exists(), "munge's socket")
        cluster.processes["slurmctld"] = cluster.start("slurmctld", "-D", "-c", "-f", str(config))
        for node in NODES:
            cluster.start_node(node)
        _wait(lambda: set(cluster.node_states().values()) == {"idle"}, "idle nodes", ignored=(AssertionError,))
        yield cluster
    finally:
        subprocess.run(["scancel", "--full", "-u", names["user"]], env=cluster.environment, check=False, timeout=60)
        for process in reversed(list(cluster.processes.values())):
            process.terminate()
        for process in cluster.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(is_true: Callable[[], bool], what: str, *, ignored: tuple[type[Exception], ...] = ()) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with suppress(*ignored):
            if is_true():
                return
        time.sleep(0.3)
    raise TimeoutError(f"{what} did not appear within {START_S:g} s")


def _open_files(process: Path) -> set[str]:
    found = set()
    for link in (process / "fd").iterdir():
        with suppress(OSError):
            found.add(os.readlink(link))
    return found


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _path(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
