"""How many processes share a case, and on how many machines: the options `ranks` and `nodes` of a measure."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.core.errors import InputError


@dataclass(frozen=True, order=True, kw_only=True)
class RankLayout:
    """`ranks` processes in all, divided evenly among `nodes` machines."""

    ranks: int = 1
    nodes: int = 1

    @classmethod
    def of(cls, options: Mapping[str, object]) -> "RankLayout":
        """Return the layout that options of a measure ask for; one rank on each node if only `nodes` is given.

        Raises InputError if the ranks cannot be divided evenly among the nodes.
        """
        nodes = int(str(options.get("nodes") or 1))
        ranks = int(str(options.get("ranks") or nodes))
        if ranks % nodes:
            raise InputError(f"{ranks} ranks, those of all nodes, cannot be divided evenly among {nodes} nodes")
        return cls(ranks=ranks, nodes=nodes)

    @property
    def ranks_per_node(self) -> int:
        return self.ranks // self.nodes
