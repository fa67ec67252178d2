"""torch-pruning's magnitude pruner: GRAPH.json WEIGHTS.npz MACS OUT.npz.

The graph is a Keras network's, its weights are in Keras' order of axes, and so are those written.
Every layer but the last loses the same share of its channels, as many as the MACs need.
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from torch import nn

graph, weights, limit, out = sys.argv[1:]
layers, arrays = json.loads(Path(graph).read_text()), dict(np.load(weights))
limit = float(limit)


class Twin(nn.Module):
    """The same network in the order (n, C, H, W)."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict()
        for layer in layers:
            made = built(layer)
            if made is not None:
                self.parts[layer["name"]] = made

    def forward(self, x):
        values = {}
        for layer in layers:
            name = layer["name"]
            given = [values[one] for one in layer["inputs"]]
            if layer["kind"] == "InputLayer":
                values[name] = x
            elif layer["kind"] == "Add":
                values[name] = given[0] + given[1]
            elif name in self.parts:
                values[name] = self.parts[name](given[0])
            else:
                values[name] = given[0]
            if layer.get("activation") == "relu" or layer["kind"] == "ReLU":
                values[name] = torch.relu(values[name])
        return values[layers[-1]["name"]]


def of(name, place):
    return torch.tensor(arrays[f"{name}.{place}"])


def built(layer):
    name, kind = layer["name"], layer["kind"]
    if kind == "Conv2D":
        kh, kw, inputs, outputs = arrays[f"{name}.0"].shape
        padding = (kh // 2, kw // 2) if layer["padding"] == "same" else 0
        biased = f"{name}.1" in arrays
        made = nn.Conv2d(inputs, outputs, (kh, kw), tuple(layer["strides"]), padding, bias=biased)
        made.weight.data = of(name, 0).permute(3, 2, 0, 1)
        if biased:
            made.bias.data = of(name, 1)
        return made
    if kind == "Dense":
        # A flattened map is (H, W, C) in Keras and (C, H, W) here.
        rows = of(name, 0)
        made = nn.Linear(*rows.shape, bias=f"{name}.1" in arrays)
        made.weight.data = rows.reshape(*spread(layer, rows), -1).permute(3, 2, 0, 1).flatten(1)
        if made.bias is not None:
            made.bias.data = of(name, 1)
        return made
    if kind == "BatchNormalization":
        norm = nn.BatchNorm2d if len(layer["shape"]) == 3 else nn.BatchNorm1d
        made = norm(len(of(name, 0)), layer["epsilon"])
        made.weight.data, made.bias.data = of(name, 0), of(name, 1)
        made.running_mean.data, made.running_var.data = of(name, 2), of(name, 3)
        return made
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        return (nn.MaxPool2d if kind[0] == "M" else nn.AvgPool2d)(tuple(layer["pool_size"]))
    return nn.Flatten() if kind == "Flatten" else None


def spread(layer, rows):
    """Return (H, W, C) of what a dense layer reads: one position, but for a flattened map."""
    maps = {one["name"]: one["shape"] for one in layers if one["kind"] == "Flatten"}
    H, W, *_ = maps.get(layer["inputs"][0], (1, 1))
    return H, W, len(rows) // (H * W)


def pruned(share):
    twin = copy.deepcopy(whole)
    last = [part for part in twin.parts.values() if isinstance(part, nn.Linear)][-1:]
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(
        twin, example, importance=importance, pruning_ratio=share, ignored_layers=last
    )
    pruner.step()
    return twin


def macs_of(twin):
    counted = []

    def count(module, _, output):
        kernel = module.weight[0].numel()
        counted.append(kernel * output[0].numel())

    hooks = [
        part.register_forward_hook(count)
        for part in twin.parts.values()
        if isinstance(part, nn.Conv2d | nn.Linear)
    ]
    twin(example)
    for hook in hooks:
        hook.remove()
    return sum(counted)


whole = Twin().eval()
H, W, C = layers[0]["shape"]
example = torch.zeros(1, C, H, W)
low, high = 0.0, 0.99
for _ in range(12):
    middle = (low + high) / 2
    low, high = (low, middle) if macs_of(pruned(middle)) <= limit else (middle, high)
parts = dict(pruned(high).parts.items())
for layer in layers:
    part = parts.get(layer["name"])
    if isinstance(part, nn.Conv2d):
        found = [part.weight.permute(2, 3, 1, 0)]
    elif isinstance(part, nn.Linear):
        H, W, C = spread(layer, part.weight[0])
        found = [part.weight.reshape(-1, C, H, W).permute(2, 3, 1, 0).flatten(0, 2)]
    elif isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
        found = [part.weight, part.bias, part.running_mean, part.running_var]
    else:
        continue
    if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
        found.append(part.bias)
    for place, array in enumerate(found):
        arrays[f"{layer['name']}.{place}"] = array.detach().numpy()
np.savez(out, **arrays)
