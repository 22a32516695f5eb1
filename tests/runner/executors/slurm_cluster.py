"""A real SLURM cluster of two nodes on this machine, for tests: munge, slurmctld and two slurmd, all below one folder.

Needs Debian's packages slurmctld, slurmd, slurm-client and munge, and root. By default there is no accounting, as at
many sites; with it, slurmdbd and a MariaDB server run too (packages slurmdbd and mariadb-server). cgroups are not used,
since containers rarely offer them.
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
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacctmgr", "sacct", "mariadbd", "mariadb-install-db", "mariadb")
NODES = ("n1", "n2")
CPUS_PER_NODE = 2
MOST_TASKS = 20  # of one job array
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
{accounting}
JobCompType=jobcomp/none
ReturnToService=2
SlurmdTimeout=20
KillWait=5
JobRequeue=1
MinJobAge=600
MaxArraySize={most_tasks}
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

NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={host}
AccountingStoragePort={ports[3]}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=limits
JobAcctGatherType=jobacct_gather/linux"""
ACCOUNTING_CONFIG = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={ports[3]}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[4]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""
DATABASE = """\
CREATE DATABASE slurm_acct_db;
CREATE USER 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
"""


def missing_programs(*, with_accounting: bool = False) -> list[str]:
    wanted = (*PROGRAMS, *(ACCOUNTING_PROGRAMS if with_accounting else ()))
    return [program for program in wanted if _path(program) is None]


@dataclass
class SlurmCluster:
    """A running cluster; `environment` lets SLURM's commands and submitit find it."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "TMPDIR": str(self.folder / "tmp")}

    def run(self, *command: str, text: str = "") -> str:
        """Run a command of SLURM or of its database, which reads `text`, and return its output."""
        done = subprocess.run(
            command, env=self.environment, input=text, capture_output=True, text=True, timeout=60, check=False
        )
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

    def end(self) -> None:
        """End the jobs, the daemons and whatever else belongs to this cluster."""
        if "slurmctld" in self.processes:
            with suppress(AssertionError, TimeoutError, subprocess.TimeoutExpired):
                self.run("scancel", "--full", "-u", getpass.getuser())
                wait_until(lambda: not self.run("squeue", "--noheader"), "an empty queue", within_s=10)
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for number in processes_of(self.folder):  # step daemons wait for minutes for a controller that has ended
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        wait_until(lambda: not processes_of(self.folder), "the end of all processes")

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        path = _path(program)
        assert path is not None
        with (self.folder / f"{program}.out").open("ab") as log:
            return subprocess.Popen([path, *arguments], stdout=log, stderr=log, env=self.environment)


@contextmanager
def slurm_cluster(folder: Path, *, with_accounting: bool = False) -> Iterator[SlurmCluster]:
    """Start the cluster in `folder`, a short path, and end all of its processes afterwards."""
    cluster = SlurmCluster(folder)
    for name in ("state", "tmp", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    names = {
        "folder": folder,
        "host": socket.gethostname(),
        "user": getpass.getuser(),
        "cpus": CPUS_PER_NODE,
        "most_tasks": MOST_TASKS,
    }
    config, ports = folder / "slurm.conf", _free_ports(5)
    accounting = ACCOUNTING.format(**names, ports=ports) if with_accounting else NO_ACCOUNTING
    config.write_text(CONFIG.format(**names, ports=ports, accounting=accounting))
    munge = {f"--{name}": folder / f"munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")}
    options = [f"{option}={file}" for option, file in munge.items()]
    try:
        cluster.processes["munged"] = cluster.start("munged", "--foreground", "--force", f"--key-file={key}", *options)
        wait_until(lambda: munge["--socket"].exists(), "munge's socket")
        if with_accounting:
            _start_accounting(cluster, ACCOUNTING_CONFIG.format(**names, ports=ports), port=ports[4])
        cluster.processes["slurmctld"] = cluster.start("slurmctld", "-D", "-c", "-f", str(config))
        for node in NODES:
            cluster.start_node(node)
        wait_until(lambda: set(cluster.node_states().values()) == {"idle"}, "idle nodes", ignored=(AssertionError,))
        yield cluster
    finally:
        cluster.end()


def _start_accounting(cluster: SlurmCluster, config: str, *, port: int) -> None:
    """Start a database and slurmdbd, and tell them of the cluster and its one user."""
    data, user = cluster.folder / "database", getpass.getuser()
    setup = ("--no-defaults", f"--user={user}", f"--datadir={data}")
    cluster.run("mariadb-install-db", *setup, "--auth-root-authentication-method=normal", "--skip-test-db")
    address = ("--bind-address=127.0.0.1", f"--port={port}", f"--socket={cluster.folder}/database.socket")
    cluster.processes["mariadbd"] = cluster.start("mariadbd", *setup, *address, f"--pid-file={cluster.folder}/db.pid")
    client = ("mariadb", "--no-defaults", "--user=root", f"--socket={cluster.folder}/database.socket")
    wait_until(lambda: cluster.run(*client, text="SELECT 1;"), "the database", ignored=(AssertionError,))
    cluster.run(*client, text=DATABASE)
    file = cluster.folder / "slurmdbd.conf"
    file.write_text(config)
    file.chmod(0o600)
    cluster.processes["slurmdbd"] = cluster.start("slurmdbd", "-D")
    add = ("sacctmgr", "--immediate", "add")
    wait_until(lambda: cluster.run(*add, "cluster", "test"), "slurmdbd", ignored=(AssertionError,))
    cluster.run(*add, "account", "lab", "Cluster=test")
    cluster.run(*add, "user", user, "Account=lab", "Cluster=test")


def wait_until(
    is_true: Callable[[], object],
    what: str,
    *,
    within_s: float = START_S,
    ignored: tuple[type[Exception], ...] = (),
) -> None:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with suppress(*ignored):
            if is_true():
                return
        time.sleep(0.3)
    raise TimeoutError(f"{what} did not happen within {within_s:g} s")


def processes_of(folder: Path) -> list[int]:
    """Return the processes of a cluster in this folder: daemons, step daemons, and whatever its jobs have started."""
    mark, found = f"{folder}/", list[int]()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if mark.encode() in text or any(file.startswith(mark) for file in _open_files(process)):
                found.append(int(process.name))
    return [number for number in found if number != os.getpid()]


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
