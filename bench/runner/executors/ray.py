"""Ray: workers are detached actors of a running cluster, so that they outlive the command that started them.

A worker of timed cases takes all processors of its node, so that Ray places nothing else there; processes outside of
Ray are not kept away. A request that no node can serve would wait for ever, so it is refused with what the nodes have.
"""

import os
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Any

from bench.core.errors import InputError, MissingPackageError
from bench.core.units import plural
from bench.runner.executor import Executor, JobState, Workers

NAMESPACE = "vbench"
ASK_S = 10.0  # for an actor that runs; one that waits for resources does not answer
RESTARTS = 1  # after the loss of a node, elsewhere
USUAL = "auto"  # the cluster of RAY_ADDRESS, or the one that runs on this machine


class Ray(Executor):
    """Starts workers in the cluster at `address`. Each has `gpus` GPUs and `cpus` processors."""

    name = "ray"

    def __init__(self, *, address: str = USUAL, gpus: int | None = None, cpus: int | None = None) -> None:
        self.address, self.gpus, self.cpus = address, gpus, cpus

    def submit(self, workers: Workers) -> list[str]:
        ray = _connected(self.address)
        needs = self._needs(workers, nodes := _nodes(ray))
        logs = workers.logs.absolute()
        logs.mkdir(parents=True, exist_ok=True)
        actor = ray.remote(_actor_class())
        jobs = []
        for _ in range(min(workers.count, len(nodes)) if workers.is_exclusive else workers.count):
            name = f"ray-{token_hex(6)}"
            options = {"name": name, "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": RESTARTS}
            log, command = str(logs / f"{name}.log"), [*workers.command, "--worker", name]
            actor.options(**options, **needs).remote(command, log, str(workers.folder), dict(workers.variables))
            jobs.append(f"{name}@{self.address}")
        return jobs

    def gpus_of_a_node(self, required: int) -> int:
        return required if self.gpus is None else self.gpus

    def _needs(self, workers: Workers, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Processors and GPUs of one worker; raises InputError if no node has them."""
        gpus = self.gpus_of_a_node(workers.gpus)
        fitting = [node for node in nodes if node.get("GPU", 0) >= gpus and node.get("CPU", 0) >= (self.cpus or 1)]
        if not fitting:
            wanted = f"{plural(gpus, 'GPU')} and {plural(self.cpus or 1, 'processor')}"
            there = "; ".join(f"{node.get('CPU', 0):g} processors, {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise InputError(f"--executor ray: no node has {wanted} for a worker; nodes: {there or 'none'}")
        cpus = min(node["CPU"] for node in fitting) if workers.is_exclusive else self.cpus or 1
        return {"num_cpus": cpus, "num_gpus": gpus}

    @classmethod
    def states(cls, jobs: Sequence[str]) -> list[JobState]:
        return [cls._state(job) for job in jobs]

    @classmethod
    def _state(cls, job: str) -> JobState:
        name, _, address = job.partition("@")
        ray = _connected(address)
        try:
            node = ray.get(ray.get_actor(name, namespace=NAMESPACE).node.remote(), timeout=ASK_S)
        except ray.exceptions.GetTimeoutError:
            return JobState(job=job, phase="waiting", reason="resources")
        except (ValueError, ray.exceptions.RayError):  # no such actor any more, or it died meanwhile
            return JobState(job=job, phase="ended")
        return JobState(job=job, phase="running", node=node)

    @classmethod
    def cancel(cls, jobs: Sequence[str]) -> None:
        for state in cls.states(jobs):
            if state.phase == "waiting":
                name, _, address = state.job.partition("@")
                ray = _connected(address)
                ray.kill(ray.get_actor(name, namespace=NAMESPACE))


def _actor_class() -> type:
    """The class of the actor. It is local so that Ray sends its code by value, and its processes need no vbench."""

    class RayWorker:
        """Runs one worker as a process of its own, and ends with it."""

        def __init__(self, command: list[str], log: str, folder: str, variables: dict[str, str]) -> None:
            arguments = (command, log, folder, variables)
            threading.Thread(target=self._run, args=arguments, daemon=True).start()

        def _run(self, command: list[str], log: str, folder: str, variables: dict[str, str]) -> None:
            import ray

            try:
                with open(log, "ab") as output:
                    subprocess.run(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        cwd=folder,
                        env={**os.environ, **variables},
                        check=False,
                    )
            finally:
                ray.kill(ray.get_runtime_context().current_actor)  # for good; an end of the process is restarted

        def node(self) -> str:
            """The name of the machine that this worker is on."""
            return os.uname().nodename

    return RayWorker


def _connected(address: str) -> Any:
    """Ray, connected to the cluster. Raises MissingPackageError, and InputError if there is no cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        install = "pip install 'vbench-video[ray]'"
        raise MissingPackageError("ray", needed_for="--executor ray", install=install) from None
    if not ray.is_initialized():
        try:
            _require_answer(address)
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"--executor ray: no cluster at {address}: {line}") from None
    return ray


def _require_answer(address: str) -> None:
    """Raise OSError if nothing listens at `host:port`, for which Ray itself waits for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=ASK_S).close()


def _nodes(ray: Any) -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
