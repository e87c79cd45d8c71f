"""Which entries of which weights belong to the same channel, found by running a model once on tensors without data.

Every scalar of the weights and of the persistent buffers is a node. A channel of an activation is named by a node: that of
the first weight of its row. Each aten operation passes these names on. Views, copies and concatenations move them as they move
the values. Element-wise operations join the names that meet, and what they take from weights: two tensors that are added have
the same channels, a bias belongs to the channel that it is added to. A contraction ends the channels of its input, which the
columns of its weight read, and begins those of its output, which the rows of its weight make. A contraction over something
else than channels, as a linear layer over bands, joins what it mixes.

On the meta device recurrent layers and attention decompose into these operations (see setk.cost.macs), so no layer needs a
rule of its own. An operation that is unknown here joins all that goes into it: channels that pass through it cannot be kept
apart, and therefore not be removed.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from setk.compress.aten import BATCH_NORMS, CREATED, POINTWISE, REDUCTIONS, SOFTMAXES, VIEWS, extremes, flat, pairs
from setk.compress.nodes import Nodes, Tag
from setk.models import Model

FRAMES = 3  # the second is the first in which a recurrent weight reads a channel


class Trace(TorchDispatchMode):
    """The names of all tensors while a model runs. Afterwards `made` and `read` have, for each scalar of the weights, the
    channel that it makes and the one that it reads (0: none), and `mixed` the channels that share a norm with others."""

    def __init__(self, model: nn.Module):
        super().__init__()
        tensors = model.state_dict(keep_vars=True)
        self.first = dict(zip(tensors, np.cumsum([1, *(t.numel() for t in tensors.values())])))
        self.count = 1 + sum(t.numel() for t in tensors.values())
        self.nodes, self.reads = Nodes(self.count), np.zeros(self.count, np.int64)
        self.contracted: list[tuple[np.ndarray, np.ndarray]] = []  # channels of two activations, left and right
        self.shared: list[np.ndarray] = []
        self.products: list[list[tuple[np.ndarray, np.ndarray]]] = []
        self._tags: dict[int, tuple[Tensor, Tag]] = {}
        for name, tensor in tensors.items():
            if tensor.dim():
                self._set(
                    tensor,
                    Tag(None, torch.arange(self.first[name], self.first[name] + tensor.numel()).view(tensor.shape)),
                )

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`made` and `read` [count] and which of the channels in them are `mixed`. A channel that two activations are
        contracted over, as queries and keys are, is made by the right one and read by what makes the left one."""
        for product in self.products:
            for scalars, channels in product:
                self._own(scalars, channels)
        made = self.nodes.find(np.arange(self.count))
        channel = np.arange(self.count)
        for left, right in self.contracted:
            channel[self.nodes.find(left)] = self.nodes.find(right)
        read = channel[self.nodes.find(self.reads)]
        reader = channel[made] != made
        read[reader] = channel[made[reader]]
        made[reader] = 0
        mixed = channel[self.nodes.find(np.unique(np.concatenate([np.zeros(1, np.int64), *self.shared])))]
        return made, read, mixed

    def _own(self, scalars: np.ndarray, channels: np.ndarray) -> None:
        """Scalars that meet one channel each are its own. One that meets several, as the slope of all of them, is nobody's."""
        own, at = np.unique(scalars, return_inverse=True)
        found, least, most = self.nodes.find(channels), np.full(len(own), self.count), np.zeros(len(own), np.int64)
        np.minimum.at(least, at, found)
        np.maximum.at(most, at, found)
        self.nodes.join(own[least == most], most[least == most])

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = func.overloadpacket.__name__.removesuffix("_")
        tensors = [x for x in flat(args) if isinstance(x, Tensor)]
        if any(id(x) in self._tags for x in tensors):
            self._follow(name, func, output, args, kwargs, tensors)
        return output

    def _follow(self, name: str, func: Any, output: Any, args: tuple, kwargs: dict, tensors: list[Tensor]) -> None:
        if name in VIEWS:
            kwargs = {k: v for k, v in kwargs.items() if k != "memory_format"}
            self._move(output, args[0], lambda x: func(x, *args[1:], **kwargs))
        elif name in ("view", "_unsafe_view", "reshape", "_reshape_alias"):
            self._move(output, args[0], lambda x: x.reshape(output.shape))
        elif name in ("_to_copy", "copy"):
            self._move(output, args[name == "copy"], lambda x: x.expand(output.shape))
        elif name == "constant_pad_nd":
            self._move(output, args[0], lambda x: torch.constant_pad_nd(x, args[1], 0))
        elif name in ("cat", "stack"):
            self._concatenate(output, args[0], lambda parts: func(parts, *args[1:], **kwargs))
        elif name in POINTWISE:
            self._pointwise(output, [self._tag(x) for x in tensors], name == "mul")
        elif name == "glu":
            halves = [self._tag(args[0]).apply(lambda x, half=half: x.chunk(2, args[1])[half]) for half in (0, 1)]
            self._pointwise(output, halves)
        elif name in BATCH_NORMS:
            groups = args[6] if name == "native_group_norm" else None
            self._channel_norm(output[0], [self._tag(x) for x in tensors], groups)
        elif name == "native_layer_norm":
            self._share(self._tag(args[0]), range(-len(args[1]), 0))
            self._pointwise(output[0], [self._tag(x) for x in tensors])
        elif name in SOFTMAXES:
            self._share(self._tag(args[0]), [args[1]])
            self._pointwise(output, [self._tag(args[0])])
        elif name in REDUCTIONS:
            at = REDUCTIONS[name]
            self._reduce(output, self._tag(args[0]), args[at] if len(args) > at else None)
        elif name in ("mm", "bmm"):
            self._product(output, *tensors)
        elif name in ("addmm", "baddbmm"):
            self._product(output, *tensors[1:])
            self._pointwise(output, [self._tag(output), self._tag(tensors[0])])
        elif name == "convolution":
            self._convolution(output, *args)
        elif name not in CREATED:
            self._join_all(output, tensors)

    def _tag(self, tensor: Tensor) -> Tag:
        return self._tags[id(tensor)][1] if id(tensor) in self._tags else Tag()

    def _set(self, tensor: Tensor, tag: Tag) -> None:
        self._tags[id(tensor)] = tensor, tag  # with the tensor, so that its id stays its own

    def _move(self, output: Any, source: Tensor, move: Any) -> None:
        tag = self._tag(source)
        if isinstance(output, Tensor):
            self._set(output, tag.apply(move))
            return
        for i, part in enumerate(output):
            self._set(part, tag.apply(lambda x, i=i: move(x)[i]))

    def _concatenate(self, output: Tensor, inputs: list[Tensor], join: Callable[[list[Tensor]], Tensor]) -> None:
        tags = [self._tag(x) for x in inputs]
        joined: list[Tensor | None] = []
        for names in ([tag.channels for tag in tags], [tag.scalars for tag in tags]):
            if all(part is None for part in names):
                joined.append(None)
                continue
            nameless = (torch.zeros(x.shape, dtype=torch.long) for x in inputs)
            joined.append(join([other if part is None else part for part, other in zip(names, nameless)]))
        self._set(output, Tag(*joined))

    def _pointwise(self, output: Tensor, tags: list[Tag], multiplied: bool = False) -> None:
        """Join the channels that meet in an element, and the scalars of weights with them."""
        channels, scalars = None, []
        for tag in tags:
            if tag.channels is not None:
                other = tag.channels.expand(output.shape)
                if channels is not None:
                    self._join(channels, other)
                channels = other if channels is None else torch.where(channels > 0, channels, other)
            if tag.scalars is not None and tag.channels is None:
                scalars.append(tag.scalars.expand(output.shape))
        if channels is None:
            scalars.sort(key=lambda x: -len(x.unique()))
            if len(scalars) < 2:
                self._set(output, Tag(None, *scalars))
                return
            channels = scalars[0]
        product = [pairs(own, channels) for own in scalars]
        self.products.append(product)
        self._set(output, Tag(channels, scalars[0] if multiplied and len(scalars) == 1 else None, product))

    def _channel_norm(self, output: Tensor, tags: list[Tag], groups: int | None) -> None:
        x, *own = tags
        if groups is not None and x.channels is not None:
            self._share(Tag(x.channels.unflatten(1, (groups, -1))), range(2, x.channels.dim() + 1))
        shape = 1, -1, *(1,) * (output.dim() - 2)
        own = [tag.apply(lambda scalars: scalars.view(shape)) for tag in own]
        if x.channels is not None:
            for tag in own:
                self._join(tag.scalars.expand(x.channels.shape), x.channels)
        self._pointwise(output, [x, *own])

    def _share(self, tag: Tag, dims: Iterable[int]) -> None:
        """Note the channels that have statistics in common with others over `dims`."""
        if tag.channels is not None:
            found = self._found(tag.channels)
            low, high = extremes(found, tuple(dims))
            self.shared.append(found[(low != high).expand(found.shape) & (found > 0)].unique().numpy())

    def _reduce(self, output: Tensor, tag: Tag, dims: int | Sequence[int] | None) -> None:
        """A sum over one channel is of that channel, one over several of none; but the sum of weights times channels is a
        contraction."""
        if dims in (None, []):
            dims = range(max(x.dim() for x in (tag.channels, tag.scalars) if x is not None))
        dims = (dims,) if isinstance(dims, int) else tuple(dims)
        if tag.channels is None:
            rows = tag.scalars.amin(dims, keepdim=True)
            self._join(tag.scalars, rows.expand(tag.scalars.shape))
            self._set(output, Tag(rows.reshape(output.shape)))
            return
        found = self._found(tag.channels)
        low, high = extremes(found, dims)
        if bool((low == high).all()):
            self._set(output, Tag(high.reshape(output.shape)))
        elif tag.scalars is not None and tag.product:
            tag.product.clear()
            rows = tag.scalars.amin(dims, keepdim=True)
            self._join(tag.scalars, rows.expand(tag.scalars.shape))
            self._read(tag.scalars, tag.channels)
            self._set(output, Tag(rows.reshape(output.shape)))
        else:
            self._share(tag, dims)
            self._set(output, Tag(torch.where(low == high, high, 0).reshape(output.shape)))

    def _product(self, output: Tensor, a: Tensor, b: Tensor) -> None:
        """a [n, i, k] b [n, k, j], with or without n."""
        left, right = (self._tag(x).apply(lambda y: y if y.dim() == 3 else y[None]) for x in (a, b))
        if right.scalars is not None and right.channels is None:
            channels = self._contract(
                left.channels if left.channels is not None else left.scalars, right.scalars, a.shape[-2]
            )
        elif left.scalars is not None and left.channels is None:
            turned = None if right.channels is None else right.channels.mT
            channels = self._contract(turned, left.scalars.mT, b.shape[-1]).mT
        else:
            channels = self._contract_activations(left.channels, right.channels, output)
        self._set(output, Tag(channels.reshape(output.shape)))

    def _contract(self, x: Tensor | None, weight: Tensor, rows: int) -> Tensor:
        """Channels x [n, i, k] by the scalars of a weight [n, k, j] -> channels [n, i, j]."""
        if x is not None:
            found = self._found(x)
            low, high = extremes(found, (1,))
            if not bool((low == high).all()):  # k counts no channels: those of each row go on
                low, high = extremes(found, (2,))
                self._join(found, high.expand(found.shape))
                return high.expand(-1, -1, weight.shape[-1])
            self._read(weight, high.mT)
        makers = weight.masked_fill(weight == 0, self.count).amin(1, keepdim=True) % self.count
        self._join(weight, makers.expand(weight.shape))
        return makers.expand(-1, rows, -1)

    def _contract_activations(self, a: Tensor | None, b: Tensor | None, output: Tensor) -> Tensor:
        shape = output.shape if output.dim() == 3 else (1, *output.shape)
        columns = None if a is None else extremes(self._found(a), (1,))
        rows = None if b is None else extremes(self._found(b), (2,))
        if columns is not None and rows is not None and all(torch.equal(*x) and x[1].any() for x in (columns, rows)):
            self.contracted.append(pairs(columns[1].mT, rows[1]))
            return torch.zeros(shape, dtype=torch.long)
        channels = torch.zeros(shape, dtype=torch.long)
        for x, dim in ((a, 2), (b, 1)):
            if x is not None:
                _, high = extremes(self._found(x), (dim,))
                self._join(x, high.expand(x.shape))
                self._join(channels, high.expand(shape))
                channels = torch.where(channels > 0, channels, high)
        return channels

    def _convolution(
        self,
        output: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride,
        padding,
        dilation,
        transposed: bool,
        output_padding,
        groups: int,
    ) -> None:
        scalars = self._tag(weight).scalars.flatten(2)
        per_group = scalars.unflatten(0, (groups, -1))
        per_group = per_group.transpose(1, 2) if transposed else per_group  # [groups, outputs, inputs, taps]
        makers = per_group.amin((2, 3), keepdim=True)
        self._join(per_group, makers.expand(per_group.shape))
        tag = self._tag(x)
        if tag.channels is not None:
            by_channel = tag.channels.transpose(0, 1).flatten(1)
            _, high = extremes(self._found(by_channel), (1,))
            self._join(by_channel, high.expand(by_channel.shape))
            inputs = high.view(groups, 1, -1, 1).expand(per_group.shape)
            if groups > 1:  # what it makes is a channel that it reads, or the channels of a group
                self._join(per_group, inputs)
            else:
                self._read(per_group, inputs)
        shape = 1, -1, *(1,) * (output.dim() - 2)
        self._set(output, Tag(makers.reshape(shape).expand(output.shape)))
        if bias is not None:
            self._pointwise(output, [self._tag(output), self._tag(bias).apply(lambda own: own.view(shape))])

    def _join_all(self, output: Any, tensors: list[Tensor]) -> None:
        names = [t for x in tensors for tag in [self._tag(x)] for t in (tag.channels, tag.scalars) if t is not None]
        every = torch.cat([t.flatten() for t in names]).unique()
        every = every[every > 0]
        self._join(every, every[:1].expand(every.shape))
        for part in flat(output if isinstance(output, (tuple, list)) else [output]):
            if isinstance(part, Tensor) and len(every):
                self._set(part, Tag(every[:1].expand(part.numel()).reshape(part.shape)))

    def _found(self, names: Tensor) -> Tensor:
        return torch.from_numpy(self.nodes.find(names.numpy()))

    def _join(self, a: Tensor, b: Tensor) -> None:
        self.nodes.join(*pairs(a, b))

    def _read(self, weight: Tensor, channels: Tensor) -> None:
        """The scalars of a weight read channels, which broadcast to them."""
        scalars, channels = pairs(weight, channels.expand(weight.shape))
        self.nodes.join(self.reads[scalars], channels)
        self.reads[scalars] = channels


@torch.no_grad()
def channels(model: Model) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Of every weight and buffer of a model the channel that each scalar makes and the one that it reads, in its shape; and
    the channels that share a norm with others. `model` is on the meta device."""
    trace = Trace(model.eval())
    with trace:
        frames = torch.zeros(1, FRAMES + model.lookahead, *model.transform.shape, device="meta")
        model(frames, model.init_state(1))
    made, read, mixed = trace.finish()
    owners = {}
    for name, tensor in model.state_dict().items():
        entries = slice(trace.first[name], trace.first[name] + tensor.numel())
        owners[name] = made[entries].reshape(tensor.shape), read[entries].reshape(tensor.shape)
    return owners, mixed
