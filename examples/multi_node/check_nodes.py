"""Wait for the nodes of a Ray cluster, then look whether each knows this plugin and reaches the retriever.

    python examples/multi_node/check_nodes.py --nodes 2 [--retriever http://HEAD_IP:8000/retrieve]

Run it on a node of the cluster, before training. The exit status is 1 if a node is missing or not ready.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

TIMEOUT_S = 300.0
"""Longest wait for one node's answer: its first import of verl may come from a slow disk."""


def main() -> int:
    """Check every node; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, required=True, help="how many there must be")
    parser.add_argument("--retriever", metavar="URL", help="a /retrieve that every node must reach")
    parser.add_argument(
        "--address", default="auto", help="of the cluster (default: RAY_ADDRESS, or the one running here)"
    )
    parser.add_argument(
        "--wait", type=float, default=300.0, metavar="S", help="longest wait for the nodes (default: 300)"
    )
    arguments = parser.parse_args()
    ray.init(address=arguments.address, log_to_driver=False, logging_level="ERROR")
    try:
        nodes = wait_for_nodes(arguments.nodes, arguments.wait)
        if len(nodes) < arguments.nodes:
            print(f"{len(nodes)} of {arguments.nodes} nodes came within {arguments.wait:g} s", file=sys.stderr)
            return 1
        problems = 0
        for node in nodes:
            answer = ask(node["NodeID"], arguments.retriever)
            gpus = node["Resources"].get("GPU", 0)
            print(f"{node['NodeManagerAddress']} ({gpus:g} GPUs): {'; '.join(answer) or 'ready'}", flush=True)
            problems += bool(answer)
        return 1 if problems else 0
    finally:
        ray.shutdown()


def wait_for_nodes(count: int, patience_s: float) -> list[dict[str, Any]]:
    """Return the living nodes, as soon as there are that many or patience is over."""
    deadline = time.monotonic() + patience_s
    while True:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if len(nodes) >= count or time.monotonic() > deadline:
            return nodes
        time.sleep(1)


def ask(node_id: str, retriever: str | None) -> list[str]:
    """Return what one node lacks."""
    here = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(problems_here).options(scheduling_strategy=here)
    try:
        return list(ray.get(task.remote(retriever), timeout=TIMEOUT_S))
    except (ray.exceptions.RayError, ImportError) as error:
        return [f"cannot answer: {' '.join(str(error).split())[-300:]}"]


def problems_here(retriever: str | None) -> list[str]:
    """Return what the node that runs this lacks."""
    # First, for verl itself has to load the plugin.
    from verl_llds.doctor import Status, missing_registrations
    from verl_llds.doctor.surroundings import check_retriever

    missing = missing_registrations()
    problems = [f"verl does not know {', '.join(missing)}: install this package there"] if missing else []
    findings = check_retriever(retriever) if retriever else []
    return problems + [finding.text for finding in findings if finding.status is Status.FAIL]


if __name__ == "__main__":
    sys.exit(main())
