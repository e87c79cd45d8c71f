"""An exported graph as rows of a program: a function for each operator, and the few patterns that become one row."""

from __future__ import annotations


import numpy as np

from setk.native import layers, patterns, reader, views
from setk.native.elementwise import apply
from setk.native.places import Memory, Unsupported
from setk.native.kinds import computed_product
from setk.native.products import product
from setk.native.reductions import along_last, reduce
from setk.native.reader import Graph, Node


_UNARY = {
    "Relu": "RELU",
    "Sigmoid": "SIGMOID",
    "Tanh": "TANH",
    "Exp": "EXP",
    "Log": "LOG",
    "Sqrt": "SQRT",
    "Abs": "ABS",
    "Neg": "NEG",
}
_BINARY = {
    "Add": "ADD",
    "Sub": "SUB",
    "Mul": "MUL",
    "Div": "DIV",
    "PRelu": "PRELU",
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "Max": "MAXIMUM",
    "Min": "MINIMUM",
}
_WHOLE = ("ArgMax", "Equal", "Greater", "GreaterOrEqual", "Less")  # whole numbers, or 0 and 1
_LARGEST_POWER = 4
_FLOATS = (1, 11)  # types of numbers that a Cast to leaves as they are


class Translator:
    """Values by name: constants as arrays of numbers, everything else as arrays of addresses."""

    def __init__(self, graph: Graph, memory: Memory):
        self.graph, self.memory = graph, memory
        self.constants = dict(graph.constants)
        self.places: dict[str, np.ndarray] = {}
        self.consumers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in dict.fromkeys(node.inputs):
                self.consumers.setdefault(name, []).append(node)
        self.whole = {name for node in graph.nodes if node.op in _WHOLE for name in node.outputs}
        self.sparse = patterns.sparse(graph)
        self.rings: dict[str, layers.Ring] = {}  # states that are not copied, by name
        self.joined: dict[str, tuple[str, str]] = {}  # what is a ring and its newest row
        self._done: set[int] = set()

    def run(self) -> None:
        """Add the rows of all nodes whose outputs are used. `places` must hold the graph's inputs."""
        for node in self.graph.nodes:
            if id(node) in self._done or not any(self._used(name) for name in node.outputs):
                continue
            if node.op in views.OPERATORS and all(name in self.constants for name in node.inputs if name):
                self._fold(node)
                continue
            handler = getattr(self, f"_{node.op.lower()}", None)
            if handler is not None:
                handler(node)
            elif node.op in _UNARY:
                self.places[node.outputs[0]] = apply(self.memory, _UNARY[node.op], [self.place(node.inputs[0])])
            elif node.op in _BINARY:
                y, *others = map(self.place, node.inputs)  # of Max and Min any number
                for x in others:
                    y = apply(self.memory, _BINARY[node.op], [y, x])
                self.places[node.outputs[0]] = y
            else:
                raise Unsupported(f"operator {node.op}")

    def place(self, name: str) -> np.ndarray:
        """Addresses of a value; constants get some when they are first needed."""
        if name not in self.places:
            data = self.constants[name].astype(np.float32)
            self.places[name] = self.memory.constant(data)
        return self.places[name]

    def add_state(self, name: str, following: str, addresses: np.ndarray) -> None:
        """Name a state that lies at `addresses`, a ring instead if it is one: the rows that came before those of a depthwise
        convolution. `following` is the output that replaces it."""
        self.places[name] = addresses
        concat = patterns.ring(name, following, addresses.shape, self.consumers, self.constants)
        if concat is not None:
            self.rings[name] = layers.ring(self.memory, addresses.shape)
            self.joined[concat.outputs[0]] = (name, concat.inputs[1])

    def newest(self, state: str) -> np.ndarray:
        """The row that a ring gains in this hop."""
        return self.place(next(row for name, row in self.joined.values() if name == state))

    def _used(self, name: str) -> bool:
        return name in self.consumers or name in self.graph.outputs

    def _constant(self, node: Node, index: int) -> np.ndarray:
        name = node.inputs[index]
        if name not in self.constants:
            raise Unsupported(f"{node.op} with weights or sizes that are computed")
        return self.constants[name]

    def _ints(self, node: Node, index: int) -> list[int]:
        return self._constant(node, index).ravel().tolist()

    def _fold(self, node: Node) -> None:
        """A view of a constant."""
        data = self.constants[node.inputs[0]]
        if node.op == "Cast":
            if node.attributes["to"] not in reader.TYPES:
                raise Unsupported("Cast to a type that is not of setk's exports")
            data = data.astype(reader.TYPES[node.attributes["to"]])
        for name, value in zip(node.outputs, self.view(node, data)):
            self.constants[name] = value

    def view(self, node: Node, x: np.ndarray) -> list[np.ndarray]:
        """What an operator that only moves elements makes of x, numbers or addresses."""
        for index in range(1, len(node.inputs)):
            if node.inputs[index]:
                self._constant(node, index)
        return views.apply(node, x, self.constants)

    def _move(self, node: Node) -> None:
        for name, value in zip(node.outputs, self.view(node, self.place(node.inputs[0]))):
            self.places[name] = value

    _reshape = _transpose = _slice = _split = _squeeze = _unsqueeze = _flatten = _identity = _expand = _move

    def _cast(self, node: Node) -> None:
        if node.attributes["to"] not in _FLOATS and node.inputs[0] not in self.whole:
            raise Unsupported("Cast of computed numbers to integers or truth values")
        self._move(node)

    def _gather(self, node: Node) -> None:
        if node.inputs[1] in self.constants:
            return self._move(node)
        table, index = self.place(node.inputs[0]), self.place(node.inputs[1])
        if table.ndim != 1:
            raise Unsupported("Gather by computed indices from more than one dimension")
        self.places[node.outputs[0]] = layers.take(self.memory, table, index)

    def _gatherelements(self, node: Node) -> None:
        table, index = self.place(node.inputs[0]), self.place(node.inputs[1])
        if table.size != table.shape[-1] or node.attributes.get("axis", 0) not in (-1, table.ndim - 1):
            raise Unsupported("GatherElements along another axis than the last, the others being 1 long")
        self.places[node.outputs[0]] = layers.take(self.memory, table.ravel(), index)

    def _concat(self, node: Node) -> None:
        self.places[node.outputs[0]] = np.concatenate(
            [self.place(name) for name in node.inputs], node.attributes["axis"]
        )

    def _pad(self, node: Node) -> None:
        if (
            node.attributes.get("mode", "constant") != "constant"
            or len(node.inputs) > 2
            and node.inputs[2]
            and self.constants[node.inputs[2]].any()
        ):
            raise Unsupported("Pad with anything but zeros")
        x, pads = self.place(node.inputs[0]), self._ints(node, 1)
        self.places[node.outputs[0]] = layers.pad(x, pads[: x.ndim], pads[x.ndim :])

    def _elu(self, node: Node) -> None:
        if node.attributes.get("alpha", 1.0) != 1.0:
            raise Unsupported("Elu with an alpha that is not 1")
        self.places[node.outputs[0]] = apply(self.memory, "ELU", [self.place(node.inputs[0])])

    def _pow(self, node: Node) -> None:
        x, exponents = self.place(node.inputs[0]), self._constant(node, 1)
        if exponents.size != 1:
            raise Unsupported("Pow with a tensor of exponents")
        exponent = float(exponents.flat[0])
        if not exponent.is_integer():
            self.places[node.outputs[0]] = apply(self.memory, "POW", [x], exponent)
            return
        # POW is of positive numbers alone.
        if not 1 <= exponent <= _LARGEST_POWER:
            raise Unsupported(f"Pow with the exponent {exponent:g}")
        y = x
        for _ in range(int(exponent) - 1):
            y = apply(self.memory, "MUL", [y, x])
        self.places[node.outputs[0]] = y

    def _clip(self, node: Node) -> None:
        y = self.place(node.inputs[0])
        for function, name in zip(("MAXIMUM", "MINIMUM"), node.inputs[1:]):
            if name:
                y = apply(self.memory, function, [y, self.place(name)])
        self.places[node.outputs[0]] = y

    def _less(self, node: Node) -> None:
        a, b = map(self.place, node.inputs)
        self.places[node.outputs[0]] = apply(self.memory, "GREATER", [b, a])

    def _where(self, node: Node) -> None:
        self.places[node.outputs[0]] = apply(self.memory, "WHERE", [self.place(name) for name in node.inputs])

    def _sigmoid(self, node: Node) -> None:
        step = patterns.gru_step(node, self.consumers)
        if step is None or any(name not in self.places for name in step.operands):
            self.places[node.outputs[0]] = apply(self.memory, "SIGMOID", [self.place(node.inputs[0])])
            return
        both = self.view(step.split, self.place(node.inputs[0]))
        self.places[step.output] = layers.gates(self.memory, [*both, *(self.places[name] for name in step.operands)])
        self._done |= {id(x) for x in step.nodes}

    def _reducesum(self, node: Node) -> None:
        self._reduce(node, self._axes(node), 1.0)

    def _reducemean(self, node: Node) -> None:
        x, axes = self.place(node.inputs[0]), self._axes(node)
        self._reduce(node, axes, 1 / float(np.prod([x.shape[axis] for axis in axes])))

    def _axes(self, node: Node) -> list[int]:
        """The axes over which a reduction runs: an attribute, an input, or all."""
        axes = node.attributes.get("axes") or (self._ints(node, 1) if len(node.inputs) > 1 else [])
        if not axes and node.attributes.get("noop_with_empty_axes"):
            raise Unsupported(f"{node.op} without axes that leaves its input")
        return axes or list(range(self.place(node.inputs[0]).ndim))

    def _reduce(self, node: Node, axes: list[int], factor: float) -> None:
        x = self.place(node.inputs[0])
        self.places[node.outputs[0]] = reduce(self.memory, x, axes, factor, bool(node.attributes.get("keepdims", 1)))

    def _softmax(self, node: Node) -> None:
        x, axis = self.place(node.inputs[0]), node.attributes.get("axis", -1)
        y = along_last(self.memory, "SOFTMAX", np.moveaxis(x, axis, -1), None)
        self.places[node.outputs[0]] = np.moveaxis(y, -1, axis)

    def _argmax(self, node: Node) -> None:
        at = node.attributes
        if at.get("select_last_index"):
            raise Unsupported("ArgMax of the last of equal numbers")
        x, axis = self.place(node.inputs[0]), at.get("axis", 0)
        y = np.moveaxis(along_last(self.memory, "GREATEST_INDEX", np.moveaxis(x, axis, -1), 1), -1, axis)
        self.places[node.outputs[0]] = y if at.get("keepdims", 1) else y.squeeze(axis)

    def _layernormalization(self, node: Node) -> None:
        x, gain = self.place(node.inputs[0]), self.place(node.inputs[1])
        if gain.shape != x.shape[node.attributes.get("axis", -1) :]:
            raise Unsupported("LayerNormalization with a gain of another shape than its axes")
        offset = self.place(node.inputs[2]) if len(node.inputs) > 2 else self.memory.constant(np.zeros(gain.shape))
        add, residual = self._residual(node.outputs[0], x.shape)
        y = layers.normalise(self.memory, x, gain, offset, node.attributes.get("epsilon", 1e-5), residual)
        self.places[node.outputs[0] if add is None else add.outputs[0]] = y

    def _residual(self, name: str, shape: tuple[int, ...]) -> tuple[Node | None, np.ndarray | None]:
        """The addition that is all that follows `name`, and what it adds if that is there already."""
        users = self.consumers.get(name, [])
        if len(users) != 1 or users[0].op != "Add" or name in self.graph.outputs:
            return None, None
        other = next((x for x in users[0].inputs if x != name), None)
        if other not in self.places or self.places[other].shape != shape:
            return None, None
        self._done.add(id(users[0]))
        return users[0], self.places[other]

    def _gemm(self, node: Node) -> None:
        at = node.attributes
        if at.get("alpha", 1.0) != 1.0 or at.get("beta", 1.0) != 1.0 or at.get("transA", 0):
            raise Unsupported("Gemm with factors, or with a transposed left operand")
        weights = self._constant(node, 1).astype(np.float32)
        weights = weights.T if at.get("transB") else weights
        bias = np.broadcast_to(self._constant(node, 2), weights.shape[1:]) if len(node.inputs) > 2 else None
        self._product(node, self.place(node.inputs[0])[None], weights[None], bias)

    def _matmul(self, node: Node) -> None:
        a, b = node.inputs
        if b in self.constants:
            x, weights = self.place(a), self.constants[b].astype(np.float32)
            if weights.ndim == 2:
                y = product(self.memory, x.reshape(1, -1, x.shape[-1]), weights[None], None)
                self.places[node.outputs[0]] = y.reshape(*x.shape[:-1], weights.shape[1])
                return
            bias, out = self._bias_after(node, weights)
            y = product(self.memory, x.reshape(-1, *x.shape[-2:]), weights.reshape(-1, *weights.shape[-2:]), bias)
            self.places[out] = y.reshape(*x.shape[:-1], weights.shape[-1])
        elif a in self.constants and self.constants[a].ndim == 2:
            x, weights = self.place(b), self.constants[a].astype(np.float32)
            columns = np.moveaxis(x.reshape(-1, *x.shape[-2:]), -1, 1).reshape(1, -1, x.shape[-2])
            y = product(self.memory, columns, np.ascontiguousarray(weights.T)[None], None)
            y = np.moveaxis(y.reshape(-1, x.shape[-1], len(weights)), 1, -1)
            self.places[node.outputs[0]] = y.reshape(*x.shape[:-2], len(weights), x.shape[-1])
        else:
            x, y = self.place(a), self.place(b)
            batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
            left, right = (np.broadcast_to(v, (*batch, *v.shape[-2:])).reshape(-1, *v.shape[-2:]) for v in (x, y))
            produced = computed_product(self.memory, left, right)
            self.places[node.outputs[0]] = produced.reshape(*batch, x.shape[-2], y.shape[-1])

    def _bias_after(self, node: Node, weights: np.ndarray) -> tuple[np.ndarray | None, str]:
        """The constant [B, 1, N] that is added to a product and nothing else, and the name of the sum."""
        users = self.consumers.get(node.outputs[0], [])
        if len(users) == 1 and users[0].op == "Add":
            other = next((x for x in users[0].inputs if x != node.outputs[0]), "")
            data = self.constants.get(other)
            if data is not None and data.shape == (*weights.shape[:-2], 1, weights.shape[-1]):
                self._done.add(id(users[0]))
                return data.reshape(-1, weights.shape[-1]), users[0].outputs[0]
        return None, node.outputs[0]

    def _product(self, node: Node, x: np.ndarray, weights: np.ndarray, bias: np.ndarray | None) -> None:
        shape = (x.shape[1], weights.shape[2])
        needed = self._needed(node.outputs[0], np.arange(shape[0] * shape[1]).reshape(shape))
        mask = np.zeros(shape[0] * shape[1], bool)
        mask[list(needed)] = True
        y = product(
            self.memory, x, weights, bias, None if mask.all() else mask.reshape(shape), node.inputs[0] in self.sparse
        )
        self.places[node.outputs[0]] = y[0]

    def _needed(self, name: str, elements: np.ndarray) -> set[int]:
        """Which elements of a value anything reads, through all operators that only move them."""
        found: set[int] = set()
        for node in self.consumers.get(name, []):
            if node.op in views.OPERATORS and (node.op != "Gather" or node.inputs[1] in self.constants):
                for out, part in zip(node.outputs, self.view(node, elements)):
                    found |= self._needed(out, part)
            else:
                found |= set(elements.ravel().tolist())
        return found | (set(elements.ravel().tolist()) if name in self.graph.outputs else set())

    def _conv(self, node: Node) -> None:
        x, weights = self.place(node.inputs[0]), self._constant(node, 1).astype(np.float32)
        bias = self._constant(node, 2) if len(node.inputs) > 2 else np.zeros(len(weights), np.float32)
        self._check_padding(node)
        if node.inputs[0] in self.joined:
            state, newest = self.joined[node.inputs[0]]
            self.places[node.outputs[0]] = layers.depthwise(
                self.memory, self.rings[state], self.place(newest), weights, bias, node.attributes
            )
            return
        self.places[node.outputs[0]] = layers.convolve(self.memory, x, weights, bias, node.attributes)

    def _check_padding(self, node: Node) -> None:
        at = node.attributes
        if at.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in at:
            raise Unsupported(f"{node.op} with auto_pad (padding='same') or output_shape; give the padding as numbers")

    def _batchnormalization(self, node: Node) -> None:
        gain, offset, mean, variance = (self._constant(node, i).astype(np.float64) for i in range(1, 5))
        factor = gain / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
        x = self.place(node.inputs[0])
        each = (-1, *(1,) * (x.ndim - 2))
        a, b = (self.memory.constant(data).reshape(each) for data in (factor, offset - mean * factor))
        self.places[node.outputs[0]] = apply(self.memory, "MULADD", [x, a, b])

    def _convtranspose(self, node: Node) -> None:
        x, weights = self.place(node.inputs[0]), self._constant(node, 1).astype(np.float32)
        self._check_padding(node)
        outputs = weights.shape[1] * node.attributes.get("group", 1)
        bias = self._constant(node, 2) if len(node.inputs) > 2 else np.zeros(outputs, np.float32)
        group = node.attributes.get("group", 1)
        parts = zip(np.split(x, group, 1), np.split(weights, group), np.split(bias, group) if group > 1 else [bias])
        function = layers.convolve_transposed if weights.ndim == 3 else layers.convolve_transposed_rows
        self.places[node.outputs[0]] = np.concatenate(
            [function(self.memory, *part, node.attributes) for part in parts], 1
        )

    def _gru(self, node: Node) -> None:
        if not node.attributes.get("linear_before_reset"):
            raise Unsupported("GRU without linear_before_reset")
        start = node.inputs[5] if len(node.inputs) > 5 else ""
        zero = not start or start in self.constants and not self.constants[start].any()
        w, r, b = (self._constant(node, i) for i in range(1, 4))
        y, last = layers.gru(
            self.memory,
            self.place(node.inputs[0]),
            w,
            r,
            b,
            None if zero else self.place(start),
            node.attributes.get("direction", "forward"),
        )
        self._recurrent(node, y, last)

    def _lstm(self, node: Node) -> None:
        if node.attributes.get("direction", "forward") != "forward" or len(node.inputs) < 7:
            raise Unsupported("LSTM without a state, or not forward")
        y, *last = layers.lstm(
            self.memory,
            self.place(node.inputs[0]),
            *(self._constant(node, i) for i in range(1, 4)),
            *(self.place(name) for name in node.inputs[5:7]),
        )
        self._recurrent(node, y, *last)

    def _recurrent(self, node: Node, *values: np.ndarray) -> None:
        for name, value in zip(node.outputs, values):
            if name:
                self.places[name] = value
