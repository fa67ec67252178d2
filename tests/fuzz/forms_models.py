"""Damaged model files: HDF5, Keras' archives, ONNX and TFLite."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import odd


def h5(random: Random, folder: Path, path: Path) -> None:
    """A .h5 file with a changed dataset, attribute or description, or with damaged bytes."""
    content = (folder / "net.h5").read_bytes()
    if random.random() < 0.35:
        path.write_bytes(odd.change_bytes(random, content))
        return
    path.write_bytes(content)
    for _ in range(random.choice((1, 1, 2))):
        _change_h5(random, path)


def _change_h5(random: Random, path: Path) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        places: list[Any] = []
        file.visititems(lambda name, item: places.append(item))
        item = random.choice(places)
        kind = random.randrange(6)
        if kind == 0 and "model_config" in file.attrs:
            tree = odd.change_tree(random, json.loads(file.attrs["model_config"]))
            file.attrs["model_config"] = json.dumps(tree)
        elif kind == 1 and len(item.attrs):
            _attribute(random, item.attrs, random.choice(list(item.attrs)))
        elif kind == 2:
            _attribute(random, file.attrs, random.choice(list(file.attrs)))
        elif kind == 3 and not isinstance(item, h5py.Group):
            item[...] = random.choice((np.nan, np.inf, 0, 1e38, -1))
        elif item.name in file:
            _replace_h5(random, file, item)


def _attribute(random: Random, attributes: Any, name: str) -> None:
    try:
        attributes[name] = odd.value(random)
    except (TypeError, ValueError, OSError, OverflowError):
        attributes[name] = random.choice((0, b"\xff\xfe", np.zeros((3, 3)), np.array([b"a", b"b"])))


def _replace_h5(random: Random, file: Any, item: Any) -> None:
    import h5py

    name, shape = item.name, getattr(item, "shape", (3,)) or (1,)
    del file[name]
    kind = random.randrange(9)
    if kind == 0:
        file.create_dataset(name, (10 ** random.choice((3, 9, 12)),), "f4", chunks=(4096,))
    elif kind == 1:
        file.create_dataset(name, data=np.zeros(shape[::-1], "f4"))
    elif kind == 2:
        file.create_dataset(
            name, data=np.zeros(shape, random.choice(("i8", "f8", "S3", "?", "c8")))
        )
    elif kind == 3:
        file[name] = h5py.ExternalLink(random.choice(("/etc/passwd", "net.h5", "..")), "/x")
    elif kind == 4:
        file[name] = h5py.SoftLink(random.choice(("/", name, "/nothing")))
    elif kind == 5:
        file.create_group(name)
    elif kind == 6:
        file.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, 10**6)])
    elif kind == 7:
        file.create_dataset(name, data=np.zeros(2**20), compression="gzip")
    else:
        file.create_dataset(name, data=np.full(shape, np.nan, "f4"))


def keras(random: Random, folder: Path, path: Path) -> None:
    """A .keras archive with a changed description, changed weights, odd members or bytes."""
    content = (folder / "net.keras").read_bytes()
    if random.random() < 0.2:
        path.write_bytes(odd.change_bytes(random, content))
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kind = random.randrange(6)
    if kind < 3:
        name = random.choice(("config.json", "config.json", "metadata.json"))
        tree = odd.change_tree(random, json.loads(members[name]))
        members[name] = json.dumps(tree).encode()
    elif kind == 3:
        weights = path.with_name("weights.h5")
        weights.write_bytes(members["model.weights.h5"])
        _change_h5(random, weights)
        members["model.weights.h5"] = weights.read_bytes()
        weights.unlink()
    elif kind == 4:
        name = random.choice(list(members))
        members[name] = odd.change_bytes(random, members[name])
    else:
        _odd_member(random, members)
    packing = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _odd_member(random: Random, members: dict[str, bytes]) -> None:
    kind = random.randrange(4)
    if kind == 0:
        del members[random.choice(list(members))]
    elif kind == 1:
        members[random.choice(("../outside", "/tmp/outside", "assets/../../x", "a" * 300))] = b"x"
    elif kind == 2:
        members[random.choice(("config.json", "assets/x", "assets/a/b"))] = bytes(150 << 20)
    else:
        members[random.choice(list(members))] = b""


def onnx(random: Random, folder: Path, path: Path) -> None:
    """An .onnx file with changed nodes, tensors, types or attributes, or with damaged bytes."""
    from onnx import ModelProto

    name = random.choice(("net.onnx", "kinds.onnx", "int8.onnx"))
    content = (folder / name).read_bytes()
    if random.random() < 0.25:
        path.write_bytes(odd.change_bytes(random, content, (folder / "net.onnx").read_bytes()))
        return
    model = ModelProto.FromString(content)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        try:
            random.choice(_ONNX)(random, model)
        except (
            IndexError,
            ValueError,
            TypeError,
        ):  # nothing of that kind is left, or no such value
            continue
    path.write_bytes(model.SerializeToString())


def _number(random: Random) -> int:
    return random.choice(odd.INTEGERS)


def _tensor(random: Random, model: Any) -> None:
    tensor = random.choice(list(model.graph.initializer))
    kind = random.randrange(7)
    if kind == 0 and tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = _number(random)
    elif kind == 1:
        tensor.data_type = random.randrange(0, 26)
    elif kind == 2:
        tensor.raw_data = odd.change_bytes(random, tensor.raw_data)
    elif kind == 3:
        tensor.raw_data = np.full(
            len(tensor.raw_data) // 4, random.choice((np.nan, np.inf, 1e30, 0)), "f4"
        ).tobytes()
    elif kind == 4:
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        for key, word in (
            ("location", random.choice(("/etc/passwd", "../x", "data.bin", "/dev/zero", "", "."))),
            ("offset", str(_number(random))),
            ("length", random.choice(("x", str(_number(random))))),
        ):
            tensor.external_data.add(key=key, value=word)
    elif kind == 5:
        tensor.dims.append(_number(random))
    else:
        tensor.name = _name(random)


def _node(random: Random, model: Any) -> None:
    nodes = model.graph.node
    number = random.randrange(len(nodes))
    node = nodes[number]
    kind = random.randrange(8)
    if kind == 0:
        del nodes[number]
    elif kind == 1:
        nodes.add().CopyFrom(node)
    elif kind == 2:
        node.op_type = random.choice(
            ("Conv", "ConvTranspose", "Reshape", "Expand", "Tile", "Resize", "Range", "If", "Loop",
             "NonZero", "ConstantOfShape", "Pad", "Identity", "Einsum", "LSTM", "", "X\x1b[2J")
        )  # fmt: skip
    elif kind == 3:
        node.input[random.randrange(len(node.input))] = random.choice(
            ("", "nothing", node.output[0], *(o for n in nodes for o in n.output))
        )
    elif kind == 4:
        node.output[0] = random.choice(("", "y", *(i for n in nodes for i in n.input)))
    elif kind == 5:
        node.name = _name(random)
    elif kind == 6:
        node.domain = random.choice(("com.microsoft", "ai.onnx", "nobody", "ai.onnx.ml"))
    else:
        node.input.append(random.choice(("", "x", "w")))


def _attribute_of_node(random: Random, model: Any) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    attribute = random.choice(list(random.choice(nodes).attribute))
    kind = random.randrange(5)
    if kind < 2 and attribute.ints:
        attribute.ints[random.randrange(len(attribute.ints))] = _number(random)
    elif kind == 2:
        attribute.ints.append(_number(random))
    elif kind == 3:
        attribute.i, attribute.f = _number(random), random.choice((float("nan"), 1e38, -1.0))
    else:
        attribute.type = random.randrange(0, 15)


def _value(random: Random, model: Any) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    value = random.choice(values)
    kind = random.randrange(4)
    shape = value.type.tensor_type.shape
    if kind == 0 and shape.dim:
        shape.dim[random.randrange(len(shape.dim))].dim_value = _number(random)
    elif kind == 1:
        value.type.tensor_type.elem_type = random.randrange(0, 26)
    elif kind == 2:
        value.name = _name(random)
    else:
        shape.dim.add().dim_param = _name(random)


def _name(random: Random) -> str:
    return random.choice(("", "x", "y", "w", "a\nb", "\x1b[2J", "[/b]", "x" * 255, "a/b", "ü", '"'))


def _whole(random: Random, model: Any) -> None:
    kind = random.randrange(7)
    if kind == 0:
        model.ir_version = _number(random)
    elif kind == 1:
        model.opset_import[0].version = random.choice((0, 1, 6, 7, 12, 24, 99, 2**40))
    elif kind == 2:
        del model.opset_import[:]
    elif kind == 3:
        del model.graph.output[:]
    elif kind == 4:
        del model.graph.input[:]
    elif kind == 5:
        model.graph.name = _name(random)
        model.metadata_props.add(key=_name(random), value="\x1b[2J" * 3)
    else:
        _nest(random, model)


def _nest(random: Random, model: Any) -> None:
    """Graphs in graphs in graphs."""
    from onnx import GraphProto, helper

    graph = GraphProto()
    graph.CopyFrom(model.graph)
    for _ in range(random.choice((1, 10, 40))):
        node = helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=GraphProto())
        graph = helper.make_graph([node], "inner", [], list(model.graph.output))
    model.graph.node.add().CopyFrom(graph.node[0])


_ONNX = (_tensor, _tensor, _node, _node, _attribute_of_node, _attribute_of_node, _value, _whole)


def tflite(random: Random, folder: Path, path: Path) -> None:
    """A .tflite file with changed fields, or with damaged bytes."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    content = (folder / random.choice(("net.tflite", "int8.tflite"))).read_bytes()
    if random.random() < 0.4:
        path.write_bytes(odd.change_bytes(random, content))
        return
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        _field(random, model)
    builder = flatbuffers.Builder(len(content))
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
    except Exception:  # a value that no field of its type takes
        path.write_bytes(odd.change_bytes(random, content))


def _field(random: Random, model: Any) -> None:
    graph = model.subgraphs[0]
    holder = random.choice(
        (model, graph, *graph.tensors, *graph.operators, *graph.operators, *model.operatorCodes)
    )
    for _ in range(random.randrange(3)):  # into its parts
        inner = [one for one in vars(holder).values() if hasattr(one, "__dict__")]
        holder = random.choice(inner) if inner else holder
    name = random.choice(list(vars(holder)))
    old = getattr(holder, name)
    if isinstance(old, np.ndarray) and old.size:
        changed = old.copy()
        with np.errstate(all="ignore"):
            number = (
                _number(random)
                if old.dtype.kind in "iu"
                else random.choice((0, -1, np.nan, np.inf))
            )
            changed.flat[random.randrange(old.size)] = np.asarray(number).astype(old.dtype)
        kept = changed if random.random() < 0.7 else changed[: old.size // 2]
        setattr(holder, name, kept)
    elif isinstance(old, list) and old:
        kind = random.randrange(3)
        if kind == 0:
            old.pop(random.randrange(len(old)))
        elif kind == 1:
            old.append(old[0])
        else:
            old[0], old[-1] = old[-1], old[0]
    elif isinstance(old, bool | int):
        setattr(holder, name, random.choice((0, 1, -1, 2, 7, 127, 255, 32767, 2**31 - 1)))
    elif isinstance(old, float):
        setattr(holder, name, random.choice((0.0, -1.0, float("nan"), float("inf"))))
    elif isinstance(old, bytes | str):
        setattr(holder, name, random.choice((b"", b"\xff\xfe", b"x" * 255, b"\x1b[2J")))
