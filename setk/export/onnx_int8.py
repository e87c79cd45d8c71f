"""An ONNX graph of fake quantizers as one of integer operators on int8 weights.

What tracing a quantized model gives has QuantizeLinear and DequantizeLinear on activations, and float weights with
the same two on top. Here the weights become int8 constants, and convolutions what ONNX Runtime has integer
kernels for, instead of leaving it to its fusions, which know neither PReLU nor transposed convolutions:

    Conv, QuantizeLinear          QLinearConv, the bias being int32
    Conv, ReLU, QuantizeLinear    the same; what is below zero is clipped, as the zero point is 0
    Conv, PReLU, QuantizeLinear   QLinearConv twice, the second with its output divided by the slope a (and weights negated for
                                  a < 0), and the larger of the two codes: max(y, a y) is PReLU for a <= 1, min(y, a y) for
                                  a > 1. Twice the products in integers take a fifth of the time of one Conv in float
    Conv, anything else           ConvInteger, and its scale (and bias) in float
    ConvTranspose                 if strides divide the kernel and nothing is cropped: MatMulInteger from channels to
                                  samples of a frame, and overlap-add in int32

Adds, norms and all else between quantizers is unchanged, in float between DequantizeLinear and QuantizeLinear.
So do recurrent layers, and layers whose input is not an 8-bit tensor, with DequantizeLinear of their int8 weights, which
the engine folds when it loads the file: it is a quarter to a half of a float one, and no faster.

Weights take all of -128 ... 127, as they were trained. On x86 before VNNI the runtime's kernels add up two products in
16 bits and clip; se-quant export and check, run on such a machine, show it in the SNR.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
INTEGER = ("QLinearConv", "ConvInteger", "MatMulInteger")


def to_integers(graph: onnx.GraphProto) -> dict[str, int]:
    """Rewrite `graph` in place. The number of `products` (convolutions and matrix products by weights), and of those
    that are `integer` now."""
    g = Graph(graph)
    g.fold_weights()
    products = [node for node in graph.node if node.op_type in PRODUCTS and g.weight(node)]
    integer = sum(g.rewrite(node) for node in products)
    g.finish()
    return {"products": len(products), "integer": integer}


class Graph:
    """An ONNX graph with its constants by name, and who makes and reads a tensor."""

    def __init__(self, graph: onnx.GraphProto):
        self.graph, self.nodes = graph, [node for node in graph.node if node.op_type != "Constant"]
        self.constants = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
        self.constants |= {
            node.output[0]: numpy_helper.to_array(node.attribute[0].t)
            for node in graph.node
            if node.op_type == "Constant"
        }
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.outputs = {x.name for x in graph.output}

    def readers(self, name: str) -> list[NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def only_reader(self, name: str) -> NodeProto | None:
        """The node that reads `name`, if there is one only, and it is not an output of the graph."""
        readers = self.readers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def constant(self, name: str, value: Any, dtype: type) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def replace(self, node: NodeProto, *new: NodeProto) -> None:
        at = next(i for i, other in enumerate(self.nodes) if other is node)
        self.nodes[at : at + 1] = new
        self.makers |= {name: n for n in new for name in n.output}

    def fold_weights(self) -> None:
        """QuantizeLinear of constants -> constants."""
        for node in [n for n in self.nodes if n.op_type == "QuantizeLinear" and n.input[0] in self.constants]:
            weight, scale, zero = (self.constants[name] for name in node.input)
            if scale.ndim:
                scale = scale.reshape(
                    [-1 if d == attribute(node, "axis", 1) % weight.ndim else 1 for d in range(weight.ndim)]
                )
            limits = np.iinfo(zero.dtype)
            self.constant(node.output[0], np.clip(np.rint(weight / scale), limits.min, limits.max), zero.dtype)
            self.nodes.remove(node)

    def weight(self, node: NodeProto) -> NodeProto | None:
        """The DequantizeLinear of a constant that `node` multiplies by."""
        made = self.makers.get(node.input[1])
        return (
            made
            if made is not None and made.op_type == "DequantizeLinear" and made.input[0] in self.constants
            else None
        )

    def activation(self, name: str) -> NodeProto | None:
        """The DequantizeLinear, of one scale, that made `name` of 8 unsigned bits."""
        made = self.makers.get(name)
        if made is None or made.op_type != "DequantizeLinear" or self.constants[made.input[2]].dtype != np.uint8:
            return None
        return made if self.constants[made.input[1]].size == 1 else None

    def rewrite(self, node: NodeProto) -> bool:
        """Make integer operators of a product and what follows it, if its input is of 8 bits and there are such operators."""
        source = self.activation(node.input[0])
        if source is None:
            return False
        if node.op_type == "ConvTranspose":
            return self._transposed(node, source, self.weight(node))
        if node.op_type == "Conv":
            self._conv(node, source, self.weight(node))
        return node.op_type == "Conv"

    def _conv(self, node: NodeProto, source: NodeProto, weight: NodeProto) -> None:
        chain = [self.only_reader(node.output[0])]
        if chain[0] is not None and chain[0].op_type in ("Relu", "PRelu"):
            chain.append(self.only_reader(chain[0].output[0]))
        *middle, last = chain
        if last is None or last.op_type != "QuantizeLinear":
            return self._accumulate(node, source, weight)
        slope = 1.0
        if middle and middle[0].op_type == "PRelu":
            slope = self.constants[middle[0].input[1]]
            if slope.size != 1 or slope.item() == 0:  # a factor for each channel has no such operator
                return self._accumulate(node, source, weight)
            slope = slope.item()
        scale, zero = last.input[1:]
        if middle and middle[0].op_type == "Relu" and self.constants[zero] != 0:
            return self._accumulate(node, source, weight)
        codes, scales, bias = self._weights(node, source, weight)

        def product(name: str, output: str, sign: int, step: str) -> NodeProto:
            # Positive ones share their constants. The one code that has no negative becomes the next to it.
            part = node.name if sign > 0 else name
            inputs = [
                *source.input,
                self.constant(f"{part}.codes", np.minimum(sign * codes.astype(np.int16), 127), np.int8),
                self.constant(f"{node.name}.scales", scales, np.float32),
                self.constant("zero", 0, np.int8),
                step,
                zero,
                *([self.constant(f"{part}.bias", sign * bias, np.int32)] if bias is not None else []),
            ]
            return helper.make_node("QLinearConv", inputs, [output], name, **geometry(node))

        if slope == 1.0:
            return self.replace(last, product(node.name, last.output[0], 1, scale))
        steep = self.constant(f"{node.name}.steep", self.constants[scale] / abs(slope), np.float32)
        above, below = (f"{node.name}.{part}" for part in ("above", "below"))
        self.replace(
            last,
            product(above, above, 1, scale),
            product(below, below, 1 if slope > 0 else -1, steep),
            helper.make_node("Max" if slope < 1 else "Min", [above, below], last.output, last.name),
        )

    def _weights(
        self, node: NodeProto, source: NodeProto, weight: NodeProto
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """int8 codes, scales, and bias in steps of the accumulator."""
        codes, scales = self.constants[weight.input[0]], self.constants[weight.input[1]].astype(np.float64)
        scales = np.broadcast_to(scales.reshape(-1), codes.shape[:1])
        if len(node.input) < 3:
            return codes, scales, None
        bias, step = self.constants[node.input[2]].astype(np.float64), float(self.constants[source.input[1]])
        # A channel whose weights are next to nothing, which int32 would not hold the bias of: its steps become coarser.
        wider = np.maximum(scales, np.abs(bias) / (step * 2.0**30))
        wider[wider == 0] = 1.0
        codes = np.rint(codes * (scales / wider).reshape(-1, *(1,) * (codes.ndim - 1)))
        return codes, wider, np.rint(bias / (step * wider))

    def _accumulate(self, node: NodeProto, source: NodeProto, weight: NodeProto) -> None:
        """int32 by ConvInteger, whose result becomes float at once."""
        codes, scales, bias = self._weights(node, source, weight)
        name = node.name
        column = (-1, *(1,) * (codes.ndim - 2))
        inputs = [source.input[0], self.constant(f"{name}.codes", codes, np.int8), source.input[2]]
        sums = [helper.make_node("ConvInteger", inputs, [f"{name}.sum"], name, **geometry(node))]
        total = f"{name}.sum"
        if bias is not None:
            total = f"{name}.total"
            bias = self.constant(f"{name}.bias", bias.reshape(column), np.int32)
            sums.append(helper.make_node("Add", [f"{name}.sum", bias], [total]))
        scale = self.constant(f"{name}.scales", (scales * self.constants[source.input[1]]).reshape(column), np.float32)
        self.replace(node, *sums, *self._to_float(name, total, scale, node.output[0]))

    @staticmethod
    def _to_float(name: str, total: str, scale: str, output: str) -> list[NodeProto]:
        return [
            helper.make_node("Cast", [total], [f"{name}.float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.float", scale], [output], f"{name}.scale"),
        ]

    def _transposed(self, node: NodeProto, source: NodeProto, weight: NodeProto) -> bool:
        """Channels to the samples of each frame, and int32 sums of frames that overlap."""
        codes, scale = (self.constants[name] for name in weight.input[:2])
        stride = attribute(node, "strides", [1])[0]
        usual = {"group": 1, "pads": [0, 0], "dilations": [1], "output_padding": [0]}
        plain = codes.ndim == 3 and codes.shape[1] == 1 and codes.shape[2] % stride == 0 and scale.size == 1
        if (
            not plain
            or len(node.input) > 2
            or any(attribute(node, name, value) != value for name, value in usual.items())
        ):
            return False
        name, parts = node.name, codes.shape[2] // stride
        matrix = self.constant(f"{weight.input[0]}.matrix", codes[:, 0], np.int8)
        pieces = [f"{name}.piece{p}" for p in range(parts)]
        nodes = [
            helper.make_node("Transpose", [source.input[0]], [f"{name}.frames"], perm=[0, 2, 1]),
            helper.make_node("MatMulInteger", [f"{name}.frames", matrix, source.input[2]], [f"{name}.sum"], name),
            helper.make_node("Split", [f"{name}.sum"], pieces, axis=2),
        ]
        total = None
        for p, piece in enumerate(pieces):
            pads = self.constant(f"{name}.pads{p}", [0, p, 0, 0, parts - 1 - p, 0], np.int64)
            nodes.append(helper.make_node("Pad", [piece, pads], [f"{piece}.at"]))
            if total:
                nodes.append(helper.make_node("Add", [total, f"{piece}.at"], [f"{name}.total{p}"]))
            total = f"{name}.total{p}" if total else f"{piece}.at"
        row = self.constant(f"{name}.row", [0, 1, -1], np.int64)
        nodes.append(helper.make_node("Reshape", [total, row], [f"{name}.wave"]))
        step = self.constant(f"{name}.scale", scale.reshape(()) * self.constants[source.input[1]], np.float32)
        self.replace(node, *nodes, *self._to_float(name, f"{name}.wave", step, node.output[0]))
        return True

    def finish(self) -> None:
        """Put the nodes that are still needed, and their constants, into the graph.

        Names are an eighth of what tracing wrote of a small model: of nodes, products keep theirs, and tensors get short ones.
        """
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed |= set(node.input)
                kept.append(node)
        ends = {x.name for x in (*self.graph.input, *self.graph.output)} | {""}
        short = {name: name if name in ends else np.base_repr(i, 36) for i, name in enumerate(sorted(needed | ends))}
        for node in kept:
            inputs, outputs = [short[name] for name in node.input], [short.get(name, "") for name in node.output]
            del node.input[:], node.output[:]
            node.input.extend(inputs), node.output.extend(outputs)
            node.name = node.name.removeprefix("/model/") if node.op_type in (*PRODUCTS, *INTEGER) else ""
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(reversed(kept))
        self.graph.initializer.extend(
            numpy_helper.from_array(value, short[name]) for name, value in self.constants.items() if name in needed
        )


def geometry(node: NodeProto) -> dict[str, Any]:
    """Attributes of a convolution that are not what they are by default."""
    values = {
        a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "kernel_shape"
    }  # the weight has it
    usual = {"dilations": {1}, "strides": {1}, "pads": {0}, "group": {1}}
    return {name: value for name, value in values.items() if set(np.atleast_1d(value).tolist()) != usual.get(name)}


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
