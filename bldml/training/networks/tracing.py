"""A network of somebody else's program as steps one after the other, found by tracing its forward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from bldml.training.networks.row import Backbone, Parts, parameters_of


class _Root(nn.Module):
    """Calls a network with images alone: a tracer would make its optional arguments inputs too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


class _Tracer(fx.Tracer):
    """Looks only into these modules; every other one is a single operation."""

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self._opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is a single operation."""
        return module_qualified_name not in self._opened


class _Piece(nn.Module):
    """Some operations between two modules, with the parameters and buffers of the network that they use."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__()
        self.body = fx.GraphModule(root, graph)
        buffers = dict(root.named_buffers())
        used = {str(node.target) for node in graph.nodes if node.op == "get_attr"} & buffers.keys()
        places = [path.rpartition(".")[::2] for path in used]
        # In a list, so that the network is no part of this module.
        self._shared = [(self.body.get_submodule(at), root.get_submodule(at), name) for at, name in places]

    def forward(self, values: Tensor) -> Tensor:
        """Return the result; float (n, …) to float (n, …)."""
        for mine, networks, name in self._shared:  # a move to another device replaces the network's buffers
            setattr(mine, name, getattr(networks, name))
        result: Tensor = self.body(values)
        return result


def traced_steps(network: nn.Module, row: Backbone) -> list[nn.Module]:
    """Return modules that one after the other compute what the network does; only the network if it cannot be divided.

    The steps share the network's parameters. They are as small as the blocks of the row; a network whose forward pass
    cannot be followed so far is divided by stages.
    """
    root = _Root(network)
    for parts in (row.parts("blocks"), row.stages):
        opened = _opened(network, parts, row.head)
        try:
            # In evaluation mode, so that no random operation of the network's own is written into the trace.
            graph = _Tracer({"network", *(f"network.{path}" for path in opened)}).trace(root)
            return [_step(root, nodes, graph) for nodes in _cut([*graph.nodes])]
        except Exception:  # whatever the code of a foreign network does with what stands for its images
            continue
    return [network]


def _opened(network: nn.Module, parts: Parts, head: str) -> set[str]:
    """Return the paths of the modules that hold parameters of more than one part."""
    part_of = {id(p): number for number, part in enumerate(parts) for p in parameters_of(network, part)}
    part_of |= {id(p): -1 for p in network.get_submodule(head).parameters()}
    return {
        path
        for path, module in network.named_modules()
        if path and len({part_of[id(p)] for p in module.parameters()}) > 1
    }


def _cut(nodes: Sequence[fx.Node]) -> list[list[fx.Node]]:
    """Divide the operations of a graph wherever a single tensor is all that later ones need of earlier ones."""
    number = {node: i for i, node in enumerate(nodes)}
    last = {node: max((number[user] for user in node.users), default=-1) for node in nodes}
    pieces: list[list[fx.Node]] = []
    piece: list[fx.Node] = []
    needed: set[fx.Node] = set()
    for i, node in enumerate(nodes):
        if node.op in ("placeholder", "get_attr", "output"):  # a parameter is fetched again where it is used
            needed |= {node} if node.op == "placeholder" else set()
            continue
        piece.append(node)
        needed = {one for one in (*needed, node) if last[one] > i}
        if needed == {node}:
            pieces.append(piece)
            piece = []
    if piece:
        raise ValueError("the network has more than one output")
    return pieces


def _step(root: nn.Module, nodes: Sequence[fx.Node], graph: fx.Graph) -> nn.Module:
    """Return one piece of a graph as a module with one input and one output."""
    (first, *others) = nodes
    if first.op == "call_module" and not others and len(first.args) == 1 and not first.kwargs:
        return root.get_submodule(str(first.target))
    copied: dict[fx.Node, fx.Node] = {}
    piece = fx.Graph()
    value = piece.placeholder("values")
    for node in nodes:
        for before in node.all_input_nodes:
            if before in copied or before in nodes:
                continue
            # Whatever else comes from outside is the single tensor between two pieces.
            copied[before] = piece.node_copy(before) if before.op == "get_attr" else value
        copied[node] = piece.node_copy(node, copied.__getitem__)
    piece.output(copied[nodes[-1]])
    return _Piece(root, piece)


def shapes_of(steps: Sequence[nn.Module], size: int) -> list[tuple[int, ...]]:
    """Return the shape of each step's output for one image of this side, without computing it (on the meta device)."""
    values, shapes = torch.zeros(1, 3, size, size, device="meta"), []
    with torch.no_grad():
        for step in steps:
            values = step(values)
            shapes.append(tuple(values.shape))
    return shapes
