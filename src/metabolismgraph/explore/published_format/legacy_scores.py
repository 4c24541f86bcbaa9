"""UCB scores of the published design ("puct"), with its defects.

Computed from the text of an analysis log, for comparison with published explorations; `tree.scores` is the default.
Unexpected properties:

- the `Next:` line of iteration i - 1 overrides the parent on node i's own `Node:` line, so that a parent can be
  later than its child, and two nodes can be each other's parent; it is ignored only if it names node i itself;
- a reward consists of digits and full stops: a negative one is not found, and the node is left out; "1.2e-05" is read
  as 1.2; NaN is 0;
- a reward is searched in every line of an entry but Node, Next and Mutation, and the last one found is used: an
  Observation with "name=value" overwrites the value of the Metrics line;
- labels in bold type or after a bullet are not read.

Not specified by the published design: Pearson (`test_pearson` or `pearson`, 0 if absent), Cluster
(`cluster_accuracy`) and Time (`training_time_min`) are read from the line of the reward; the
last two are left out if absent or NaN. A node that is logged twice keeps its place and gets the later values. A node in
a cycle of parents is its own descendant. Without blocks, parents are shown as written, even if they are not nodes.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from metabolismgraph.errors import InputError

_HEADING = re.compile(r"##+ Iter (\d+):")
_NODE = re.compile(r"Node: id=(\d+), parent=(\d+|None|root)")
_NEXT = re.compile(r"Next: parent=(\d+|root)")
_MUTATION = re.compile(r"Mutation: (.+)")
_NUMBER = r"=([\d.]+|nan)"
_PEARSON = ("test_pearson", "pearson")
_CLUSTER = ("cluster_accuracy",)
_TIME = ("training_time_min",)


@dataclasses.dataclass
class _Entry:
    iteration: int
    id: int | None = None
    parent: int | None = None
    reward: float | None = None
    pearson: float = 0.0
    cluster: float | None = None
    time: float | None = None
    mutation: str = ""


def ucb_file(
    log: str,
    *,
    metric: str = "avg_slope_ratio",
    c: float = 1.414,
    block_size: int | None = 8,
    iteration: int | None = None,
) -> str:
    """The file of UCB scores that the published program makes from an analysis log; empty without nodes.

    UCB(i) = r_i + c √N / (1 + V_i): r_i the node's metric, V_i one and the number of its descendants, N the number of
    nodes, all within the block of `iteration`.

    Args:
        metric: name of the reward in the log.
        block_size: iterations in a block; None: no blocks.
        iteration: an iteration of the block; None: the last of the log.

    Raises:
        InputError: a number in the log has two decimal points.
    """
    entries, following = _read(log, metric)
    nodes = {entry.id: entry for entry in entries if entry.id is not None and entry.reward is not None}
    for id_, node in nodes.items():
        if following.get(id_ - 1, id_) != id_:
            node.parent = following[id_ - 1]
    if block_size and entries:
        block = ((iteration or max(entry.iteration for entry in entries)) - 1) // block_size
        start, end = block * block_size + 1, (block + 1) * block_size
        nodes = {id_: node for id_, node in nodes.items() if start <= id_ <= end}
        for node in nodes.values():
            node.parent = node.parent if node.parent in nodes else None
        title = f"Simulation block {block}, iters {start}-{end}, N={len(nodes)}, c={c}"
    else:
        title = f"N_total={len(nodes)}, c={c}"
    if not nodes:
        return ""
    visits = _visits(nodes)
    scores = {i: (node.reward or 0.0) + c * math.sqrt(len(nodes)) / (1 + visits[i]) for i, node in nodes.items()}
    listed = sorted(nodes, key=lambda i: -scores[i])
    return f"=== UCB Scores ({title}) ===\n\n" + "".join(_line(nodes[i], visits[i], scores[i]) for i in listed)


def _read(log: str, metric: str) -> tuple[list[_Entry], dict[int, int | None]]:
    """The entries, and the parents in their `Next:` lines by iteration."""
    entries: list[_Entry] = []
    following: dict[int, int | None] = {}
    lines = log.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if found := _HEADING.match(line):
            entries.append(_Entry(int(found[1])))
        elif not entries:
            continue
        elif found := _NODE.match(line):
            entries[-1].id = int(found[1])
            entries[-1].parent = None if found[2] in {"None", "0", "root"} else int(found[2])
        elif found := _NEXT.match(line):
            following[entries[-1].iteration] = None if found[1] == "root" else int(found[1])
        elif found := _MUTATION.match(line):
            entries[-1].mutation = found[1].strip()
        elif re.search(re.escape(metric) + _NUMBER, line):
            entries[-1].reward = _value(line, (metric,), number) or 0.0
            entries[-1].pearson = _value(line, _PEARSON, number) or 0.0
            entries[-1].cluster = _value(line, _CLUSTER, number)
            entries[-1].time = _value(line, _TIME, number)
    return entries, following


def _value(line: str, names: tuple[str, ...], number: int) -> float | None:
    """The number after the first of these names in the line; None without one, and for NaN."""
    found = next(filter(None, (re.search(name + _NUMBER, line) for name in map(re.escape, names))), None)
    if found is None or found[1] == "nan":
        return None
    try:
        return float(found[1].rstrip("."))
    except ValueError:
        raise InputError(f"analysis log, line {number}: {found[0]} is not a number; correct it") from None


def _visits(nodes: Mapping[int, _Entry]) -> dict[int, int]:
    visits = dict.fromkeys(nodes, 1)
    for node in nodes.values():
        seen: set[int] = set()
        above = node.parent
        while above is not None and above in nodes and above not in seen:
            seen.add(above)
            visits[above] += 1
            above = nodes[above].parent
    return visits


def _line(node: _Entry, visits: int, score: float) -> str:
    parent = "root" if node.parent is None else node.parent
    line = (
        f"Node {node.id}: UCB={score:.3f}, parent={parent}, visits={visits}, R2={node.reward:.3f}, "
        f"Pearson={node.pearson:.3f}"
    )
    if node.cluster is not None:
        line += f", Cluster={node.cluster:.3f}"
    if node.time is not None:
        line += f", Time={node.time:.1f}"
    if node.mutation:
        line += f", Mutation={node.mutation}"
    return line + "\n"
