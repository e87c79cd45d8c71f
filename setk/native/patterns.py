"""Patterns of several operators that one kernel computes, or that show what a value is like."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence

import numpy as np

from setk.native import views
from setk.native.reader import Graph, Node


class Step(NamedTuple):
    """A step of a GRU: h' = n + z (h - n), n = tanh(x + r y). `split` makes r and z of a sigmoid, `operands` are x, y and h,
    `nodes` all that compute h', the `output`."""

    split: Node
    operands: Sequence[str]
    output: str
    nodes: Sequence[Node]


def gru_step(sigmoid: Node, consumers: Mapping[str, Sequence[Node]]) -> Step | None:
    """The step of a GRU as the exporter spells it out, from its sigmoid on; None if it is something else."""

    def only(name: str, op: str) -> Node | None:
        users = consumers.get(name, [])
        return users[0] if len(users) == 1 and users[0].op == op else None

    def other(node: Node, name: str) -> str:
        return next((x for x in node.inputs if x != name), name)

    split = only(sigmoid.outputs[0], "Split")
    if split is None or len(split.outputs) != 2:
        return None
    r, z = split.outputs
    gated, mixed = only(r, "Mul"), only(z, "Mul")
    total = gated and only(gated.outputs[0], "Add")
    tanh = total and only(total.outputs[0], "Tanh")
    if tanh is None or mixed is None:
        return None
    n, users = tanh.outputs[0], consumers[tanh.outputs[0]]
    difference, end = (next((u for u in users if u.op == op), None) for op in ("Sub", "Add"))
    if (
        len(users) != 2
        or not difference
        or not end
        or difference.inputs[1] != n
        or set(mixed.inputs) != {z, difference.outputs[0]}
        or set(end.inputs) != {n, mixed.outputs[0]}
    ):
        return None
    operands = [other(total, gated.outputs[0]), other(gated, r), difference.inputs[0]]
    return Step(split, operands, end.outputs[0], [split, gated, mixed, total, tanh, difference, end])


def sparse(graph: Graph) -> set[str]:
    """Names of values that are mostly zero: spikes, what a threshold lets pass, and states that hold them."""
    zeros = {name for name, data in graph.constants.items() if data.size == 1 and not data.any()}
    booleans, found = set(), set()
    for _ in range(2):  # a state is known by what becomes of it
        for node in graph.nodes:
            source = node.inputs[0] if node.inputs else ""
            if node.op in ("Greater", "GreaterOrEqual", "Less"):
                booleans.add(node.outputs[0])
            elif (
                node.op == "Cast"
                and source in booleans
                or node.op in views.OPERATORS
                and source in found
                or node.op == "Where"
                and node.inputs[2] in zeros
                and source in booleans
            ):
                found |= set(node.outputs)
        found |= {name.replace("next_", "state_") for name in graph.outputs if name in found}
    return found


def ring(
    state: str,
    following: str,
    shape: Sequence[int],
    consumers: Mapping[str, Sequence[Node]],
    constants: Mapping[str, np.ndarray],
) -> Node | None:
    """The node that joins a state [1, C, T, F] and the newest row, if a depthwise convolution over time is all that reads the
    result and the state `following` is its last T rows; else None."""
    users = consumers.get(state, [])
    if len(users) != 1 or len(shape) != 4 or users[0].op != "Concat" or users[0].attributes["axis"] != 2:
        return None
    concat = users[0]
    readers = {node.op: node for node in consumers[concat.outputs[0]]}
    if concat.inputs[0] != state or len(concat.inputs) != 2 or set(readers) != {"Conv", "Slice"}:
        return None
    convolution, rest = readers["Conv"], readers["Slice"]
    over_time = constants[convolution.inputs[1]].shape[2] == shape[2] + 1
    depthwise = convolution.attributes.get("group") == shape[1] > 1
    last = rest.outputs[0] == following and constants[rest.inputs[1]].tolist() == [-shape[2]]
    return concat if over_time and depthwise and last and len(consumers[concat.outputs[0]]) == 2 else None
