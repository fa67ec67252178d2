"""SavedModels that tf.keras wrote: keras_metadata.pb has the layers, a checkpoint the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.units import first_few

from .object_weights import Misfit, assign, check_complete, layers_with_weights, variables_by_path
from .tree import Config, is_object

METADATA = "keras_metadata.pb"
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_NODES = ("_tf_keras_network", "_tf_keras_sequential", "_tf_keras_model")


def is_saved_model(path: Path) -> bool:
    """Tell whether a path is a SavedModel folder, of Keras or not."""
    return (path / "saved_model.pb").is_file()


def is_keras_saved_model(path: Path) -> bool:
    """Tell whether a SavedModel folder also holds Keras' description of its layers.

    Of a model of a class of the user's own only its name stands there.
    """
    if not is_saved_model(path) or not (path / METADATA).is_file():
        return False
    try:
        read_metadata(path)
    except InputError as error:
        return error.code != "saved-model-without-layers"
    return True


def read_metadata(path: Path) -> tuple[Config, str]:
    """Read the configuration of the outermost model, and the version of Keras that wrote it.

    Raises:
        InputError: If there is none, as for a model of a class of the user's own.
    """
    try:
        nodes = _saved_metadata().FromString((path / METADATA).read_bytes()).nodes
        root = next(node for node in nodes if node.node_path == "root")
        said = _plain(json.loads(root.metadata))
    except Exception as error:  # protobuf's own class is private; StopIteration; JSON
        raise InputError(
            f"{path / METADATA} cannot be read: {error}.",
            "Copy or download the folder again.",
            code="damaged-file",
        ) from error
    config = {key: said.get(key) for key in ("class_name", "config")}
    if root.identifier not in _NODES or not is_object(config) or "layers" not in config["config"]:
        raise InputError(
            f"{path} was saved from a model of the class {said.get('class_name')}, "
            f"whose layers are "
            "not described in it.",
            f"Make an .onnx file of it: python -m tf2onnx.convert --saved-model {path} "
            "--output model.onnx",
            code="saved-model-without-layers",
        )
    return config, str(said.get("keras_version", "2"))


def restore_saved_model(model: Any, path: Path) -> None:
    """Set every weight of a model from the checkpoint of a SavedModel folder.

    Raises:
        Misfit: If the checkpoint's weights are not those of the model, or cannot be read.
    """
    tensorflow = require("tensorflow", "keras", "to read SavedModels")
    check_members(path)
    try:
        reader = tensorflow.train.load_checkpoint(str(path / "variables" / "variables"))
        shapes = reader.get_variable_to_shape_map()
    except Exception as error:  # TensorFlow raises its own classes over a damaged checkpoint
        raise Misfit(f"the checkpoint cannot be read ({error})") from error
    objects = _Objects(reader, {key: tuple(shape) for key, shape in shapes.items()})
    check_complete(model, _restore(model, objects))
    left = objects.unused()
    if left:
        raise Misfit(f"no layer has {first_few(sorted(left))}")


def check_members(path: Path) -> None:
    """Refuse a folder with a pipe or a device in it: reading these may never end.

    Raises:
        InputError: With the name.
    """
    for item in sorted(path.rglob("*")):
        if item.exists() and not (item.is_file() or item.is_dir()):
            raise InputError(
                f"{item} is no regular file.",
                "Copy or download the folder again.",
                code="damaged-file",
            )


def folder_sha256(path: Path) -> str:
    """Return the SHA-256 of the files of a SavedModel folder, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(str(file.relative_to(path)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


class _Value:
    """A weight in the checkpoint, read when it is asked for."""

    def __init__(self, reader: Any, key: str, shape: tuple[int, ...]) -> None:
        self.reader, self.key, self.shape, self.used = reader, key, shape, False

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        del dtype, copy
        return self.reader.get_tensor(self.key)


class _Objects:
    """The objects of a checkpoint: layers and their parts by attribute, and variables at the ends.

    A variable is stored once, under the shortest of the paths that lead to it: the kernel inside a
    nested model may be ``variables/6``. What is where stands in the graph of objects.
    """

    def __init__(self, reader: Any, shapes: dict[str, tuple[int, ...]]) -> None:
        try:
            from tensorflow.core.protobuf import trackable_object_graph_pb2 as messages

            nodes = messages.TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH)).nodes
        except Exception as error:  # TensorFlow's, protobuf's
            raise Misfit(f"the checkpoint's graph of objects cannot be read ({error})") from error
        self._inside = [{c.local_name: c.node_id for c in node.children} for node in nodes]
        self._values = {
            number: _Value(reader, one.checkpoint_key, shapes[one.checkpoint_key])
            for number, node in enumerate(nodes)
            for one in node.attributes
            if one.name == "VARIABLE_VALUE" and one.checkpoint_key in shapes
        }
        self.root = 0

    def at(self, place: int, path: str) -> int | None:
        """Return the object at the end of a path of attributes; None where nothing is."""
        found: int | None = place
        for name in path.split("/"):
            found = None if found is None else self._inside[found].get(name)
        return found

    def value(self, place: int, path: str) -> _Value | None:
        """Return the variable at the end of a path of attributes; None where no value is."""
        found = self.at(place, path)
        return None if found is None else self._values.get(found)

    def unused(self) -> list[str]:
        """Name the model's variables that no layer has read."""
        every = self._inside[self.root].get("variables")
        numbers = () if every is None else self._inside[every].values()
        values = [self._values[n] for n in numbers if n in self._values]
        seeds = ("_random_generator", "_state_var")
        return [
            value.key.removesuffix(_VALUE)
            for value in values
            if not value.used and not any(name in value.key for name in seeds)
        ]


def _restore(model: Any, objects: _Objects) -> set[int]:
    done: set[int] = set()
    for number, layer in enumerate(layers_with_weights(model)):
        at = objects.at(objects.root, f"layer_with_weights-{number}")
        if at is None:
            raise Misfit(f"it has no layer {number} with weights, which would be {layer.name}")
        variables = variables_by_path(layer)
        found = {path: objects.value(at, path) for path in variables}
        values = {path: value for path, value in found.items() if value is not None}
        done |= assign(layer.name, variables, values)
        for value in values.values():
            value.used = True
    return done


def _plain(value: Any) -> Any:
    """JSON with Keras' tuples as lists."""
    if isinstance(value, dict):
        if value.get("class_name") in ("__tuple__", "TensorShape") and "items" in value:
            return _plain(value["items"])
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list) else value


def _saved_metadata() -> Any:
    """Return the protobuf message of keras_metadata.pb, by its published definition."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="keras_metadata.proto", package="dsconvert")
    node = file.message_type.add(name="SavedObject")
    field = descriptor_pb2.FieldDescriptorProto
    for number, name in ((2, "node_id"), (3, "node_path"), (4, "identifier"), (5, "metadata")):
        kind = field.TYPE_INT32 if name == "node_id" else field.TYPE_STRING
        node.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    nodes = file.message_type.add(name="SavedMetadata")
    nodes.field.add(
        name="nodes",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".dsconvert.SavedObject",
        label=field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dsconvert.SavedMetadata"))
