"""Ray: workers are detached actors of a running cluster, so that they outlive the command that started them.

A worker of timed cases takes all processors of its node, one of those with the most, so that Ray places nothing else
there; processes outside of Ray are not kept away. A request that no node can serve would wait for ever, so it is
refused with what the nodes have.
A worker over several nodes is an actor for each rank, in a placement group with one bundle per node. After the loss of
a node Ray starts its actors once more elsewhere, and all ranks of their workers start again.
"""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from typing import Any

from bench.core.errors import InputError, MissingPackageError
from bench.core.units import plural
from bench.runner.executor import Executor, JobState, Workers
from bench.runner.work_queue import restarted_name

NAMESPACE = "vbench"
ASK_S = 10.0  # for an actor that runs; one that waits for resources does not answer
OWN_GPUS = "VBENCH_GPUS_PER_RANK"  # environment variable: each rank is shown GPUs of its own
LEAVE_S = 60.0  # between the end of one rank and that of the others
RESTARTS = 1  # after the loss of a node, elsewhere
RESTART_S = 300.0  # for another node to take the place of a lost one
STOP_S = 180.0  # a rank needs this time to notice a lost rank and to save its state
USUAL = "auto"  # the cluster of RAY_ADDRESS, or the one that runs on this machine


class Ray(Executor):
    """Starts workers in the cluster at `address`. Each has `gpus` GPUs and `cpus` processors."""

    name = "ray"
    spans_nodes = True

    def __init__(self, *, address: str = USUAL, gpus: int | None = None, cpus: int | None = None) -> None:
        self.address, self.gpus, self.cpus = address, gpus, cpus

    def submit(self, workers: Workers) -> list[str]:
        ray = _connected(self.address)
        needs = self._needs(workers, nodes := _nodes(ray))
        if not needs["num_gpus"]:  # Ray announces that it will no longer hide GPUs from a worker without any
            workers = replace(workers, variables={**workers.variables, "CUDA_VISIBLE_DEVICES": ""})
        logs = workers.logs.absolute()
        logs.mkdir(parents=True, exist_ok=True)
        actor = ray.remote(_actor_class())
        most = len(_fitting(nodes, needs)) // workers.layout.nodes if workers.is_exclusive else workers.count
        names = [f"ray-{token_hex(6)}" for _ in range(min(workers.count, most))]
        for name in names:
            if workers.layout.nodes > 1:
                self._start_ranks(actor, name, workers, needs)
                continue
            starts = [(command, dict(workers.variables)) for command in _commands(workers, name)]
            options = {"name": name, "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": RESTARTS}
            actor.options(**options, **needs).remote(starts, str(logs / f"{name}.log"), str(workers.folder))
        return [f"{name}@{self.address}" for name in names]

    def _start_ranks(self, actor: Any, name: str, workers: Workers, needs: Mapping[str, float]) -> None:
        """Start the actors of a worker over several nodes, which end together."""
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        per_node = workers.layout.ranks_per_node
        bundle = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"]}
        bundles = [{resource: amount for resource, amount in bundle.items() if amount}] * workers.layout.nodes
        group = placement_group(bundles, strategy="STRICT_SPREAD", name=name, lifetime="detached")
        names = [name if rank == 0 else f"{name}-{rank}" for rank in range(workers.layout.ranks)]
        own = {resource: amount // per_node for resource, amount in needs.items()}  # Ray refuses 2.5 GPUs
        for rank, own_name in enumerate(names):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank // per_node)
            log = workers.logs.absolute() / f"{name}{f'.rank{rank}' if rank else ''}.log"
            starts = [
                (
                    command,
                    {
                        **workers.variables,
                        **workers.variables_of_rank(rank, start=restarted_name(name, number)),
                        OWN_GPUS: "1",
                    },
                )
                for number, command in enumerate(_commands(workers, name))
            ]
            actor.options(
                name=own_name,
                namespace=NAMESPACE,
                lifetime="detached",
                max_restarts=RESTARTS,
                scheduling_strategy=place,
                **own,
            ).remote(starts, str(log), str(workers.folder), [each for each in names if each != own_name])

    def gpus_of_a_node(self, required: int) -> int:
        return required if self.gpus is None else self.gpus

    def _needs(self, workers: Workers, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Processors and GPUs of one worker on each of its nodes; raises InputError if too few nodes have them."""
        gpus, cpus = self.gpus_of_a_node(workers.gpus), (self.cpus or 1) * workers.layout.ranks_per_node
        needs: dict[str, float] = {"num_cpus": cpus, "num_gpus": gpus}
        if workers.is_exclusive and (fitting := _fitting(nodes, needs)):
            needs["num_cpus"] = max(node["CPU"] for node in fitting)  # with fewer, a larger node has room for others
        fitting = _fitting(nodes, needs)
        if len(fitting) < workers.layout.nodes:
            wanted = f"{plural(gpus, 'GPU')} and {plural(int(needs['num_cpus']), 'processor')}"
            there = "; ".join(f"{node.get('CPU', 0):g} processors, {node.get('GPU', 0):g} GPUs" for node in nodes)
            few = "no node has" if not fitting else f"{len(fitting)} of {workers.layout.nodes} nodes have"
            raise InputError(f"--executor ray: {few} {wanted} for a worker; nodes: {there or 'none'}")
        return needs

    @classmethod
    def states(cls, jobs: Sequence[str]) -> list[JobState]:
        answers: dict[str, Any] = {}
        for job in jobs:  # all are asked before any answer is awaited: one that waits for resources never answers
            name, _, address = job.partition("@")
            ray = _connected(address)
            with suppress(ValueError):  # no such actor any more
                answers[job] = ray.get_actor(name, namespace=NAMESPACE).node.remote()
        if answers:
            ray.wait(list(answers.values()), num_returns=len(answers), timeout=ASK_S)
        return [cls._state(job, answers[job]) if job in answers else JobState(job=job, phase="ended") for job in jobs]

    @classmethod
    def _state(cls, job: str, answer: Any) -> JobState:
        name, _, address = job.partition("@")
        ray = _connected(address)
        try:
            return JobState(job=job, phase="running", node=ray.get(answer, timeout=0))
        except ray.exceptions.GetTimeoutError:
            return JobState(job=job, phase="waiting", reason="resources")
        except ray.exceptions.ActorUnavailableError:  # also for ever, if its placement group was removed
            groups = ray.util.placement_group_table().values()
            if any(group["name"] == name and group["state"] == "REMOVED" for group in groups):
                return JobState(job=job, phase="ended")
            return JobState(job=job, phase="waiting", reason="restart")
        except ray.exceptions.RayError:  # it died meanwhile
            return JobState(job=job, phase="ended")

    @classmethod
    def cancel(cls, jobs: Sequence[str]) -> None:
        for state in cls.states(jobs):
            if state.phase == "waiting":
                name, _, address = state.job.partition("@")
                ray = _connected(address)
                try:
                    ray.util.remove_placement_group(ray.util.get_placement_group(name))  # with all of its actors
                except ValueError:
                    ray.kill(ray.get_actor(name, namespace=NAMESPACE))


def _commands(workers: Workers, name: str) -> list[list[str]]:
    """Return the command of each start of a worker, the first one and those after the loss of a node."""
    names = (restarted_name(name, number) for number in range(RESTARTS + 1))
    return [[*workers.command, "--worker", each] for each in names]


def _actor_class() -> type:
    """The class of the actor. It is local so that Ray sends its code by value, and its processes need no vbench."""

    namespace, ask_s, leave_s, restart_s, stop_s = NAMESPACE, ASK_S, LEAVE_S, RESTART_S, STOP_S

    class RayWorker:
        """Runs one worker, or one rank of it, as a process of its own, and ends with it.

        `starts` has the command and the variables of the first start, and of the one after the loss of a node. `others`
        are the names of the actors of the other ranks: one that Ray has started again lets them start again too.
        """

        def __init__(
            self, starts: list[tuple[list[str], dict[str, str]]], log: str, folder: str, others: Sequence[str] = ()
        ) -> None:
            import ray

            self._starts, self._log, self._folder, self._others = starts, log, folder, others
            self._is_first = starts[0][1].get("RANK", "0") == "0"
            self._group = ray.util.get_current_placement_group()
            self._restarts = int(ray.get_runtime_context().was_current_actor_reconstructed)
            self._process: subprocess.Popen[bytes] | None = None
            self._is_called_again = threading.Event()
            threading.Thread(target=self._run, daemon=True).start()

        def _run(self) -> None:
            try:
                if self._restarts:
                    for other in self._actors():
                        other.start_again.remote()
                code = self._run_process()
                may_restart = self._others and not self._restarts and not self._is_over(code)
                if may_restart and self._is_called_again.wait(restart_s):
                    self._restarts = 1
                    self._run_process()
            finally:
                self._end()

        def _run_process(self) -> int:
            """Run the process of the present start, and return its exit code."""
            command, variables = self._starts[self._restarts]
            with open(self._log, "ab") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    env={**os.environ, **variables},
                )
            return self._process.wait()

        def _is_over(self, code: int) -> bool:
            """Whether the worker has ended: its first rank has, and not because another rank is lost."""
            import ray

            if not self._is_first:
                return False
            if code == 0:
                return True
            if self._is_called_again.is_set():  # the lost one answers again
                return False
            try:
                ray.get([other.node.remote() for other in self._actors()], timeout=ask_s)
            except (ValueError, ray.exceptions.RayError):
                return False
            return True

        def _actors(self) -> list[Any]:
            """Return the actors of the other ranks."""
            import ray

            return [ray.get_actor(name, namespace=namespace) for name in self._others]

        def _end(self) -> None:
            """End this actor for good (one whose process ends is restarted), and all ranks of a worker over nodes."""
            import ray

            if self._group is None:
                ray.kill(ray.get_runtime_context().current_actor)
                return
            if not self._is_first:  # the first one stores the record and ends all, unless its node is lost
                time.sleep(leave_s)
            ray.util.remove_placement_group(self._group)

        def start_again(self) -> None:
            """Stop the process of the first start, and start again with a rank that was lost."""
            if self._restarts:
                return
            self._is_called_again.set()
            if self._process is not None:
                self._process.terminate()
                killing = threading.Timer(stop_s, self._process.kill)
                killing.daemon = True
                killing.start()

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
    if ray.is_initialized() and _connected_to and _connected_to != [address]:  # a folder may have jobs of two clusters
        ray.shutdown()
    if not ray.is_initialized():
        try:
            _require_answer(address)
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"--executor ray: no cluster at {address}: {line}") from None
        _connected_to[:] = [address]
    return ray


_connected_to: list[str] = []  # the address of the cluster that this process is connected to


def _require_answer(address: str) -> None:
    """Raise OSError if nothing listens at `host:port`, for which Ray itself waits for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=ASK_S).close()


def _nodes(ray: Any) -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fitting(nodes: Sequence[Mapping[str, float]], needs: Mapping[str, float]) -> list[Mapping[str, float]]:
    """Return the nodes that have what a worker needs."""
    return [n for n in nodes if n.get("CPU", 0) >= needs["num_cpus"] and n.get("GPU", 0) >= needs["num_gpus"]]
