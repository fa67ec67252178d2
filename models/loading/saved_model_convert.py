"""Make an .onnx file of a SavedModel, in a process of its own.

``python saved_model_convert.py FOLDER OUTPUT OPSET SIGNATURE TRUST``, where SIGNATURE may be empty
and TRUST is 0 or 1. To load a SavedModel is to run a part of it: what fills its tables and other
resources. Such a part can write files. So its operations are looked through first. What is wrong is
printed as the last line, in JSON: ``{"code": …, "problem": …}``; then the exit code is 3.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_OUTSIDE = re.compile(
    r"(Read|Write)File|MatchingFiles(Dataset)?|ImmutableConst|InitializeTableFromTextFile|"
    r"(Create|Write|Import|Flush|Close)\w*(Summary|Event)|SummaryWriter|\w*Reader(V2)?$|RecordInput|"
    r"(Experimental)?(TextLine|FixedLengthRecord|TFRecord|CSV|LMDB|Sql|Snapshot|DataService|Load|Save)"
    r"\w*Dataset|Cache\w*Dataset|\w*DatasetToTFRecord|\w*Snapshot|RegisterDataset|Skipgram|"
    r"LoadAndRemapMatrix|GenerateVocabRemapping|CalibrationStatisticsSaver|FileSystem|Rpc|Debug|"
    r"DTensorRestore|_?DTensorSave|RemoteCall"
)
"""Operations that read or write files, or talk to other machines, by how their names begin."""
_CHECKPOINTS = re.compile(r"(Save|Restore)(V2|Slices?)?$|MergeV2Checkpoints")
"""Operations that every SavedModel has for its weights, which loading does not call."""


def main(words: list[str]) -> int:
    """Look through the folder, then run tf2onnx; return the exit code."""
    folder, output, opset, signature, trust = words
    found = None if trust == "1" else _outside(Path(folder))
    if found is not None:
        return _told("needs-trust", f"it has the operation {found[0]} in {found[1]}")
    options = ["--saved-model", folder, "--output", output, "--opset", opset]
    if signature:
        options += ["--signature_def", signature]
    try:
        from tf2onnx import convert

        sys.argv = ["tf2onnx", *options]
        convert.main()
    except Exception:  # whatever TensorFlow, or a layer of tf2onnx, raises
        lost = _lost_weights(Path(folder) / "variables")
        if lost:
            return _told("damaged-file", lost)
        raise
    return 0


def _told(code: str, problem: str) -> int:
    sys.stdout.write("\n" + json.dumps({"code": code, "problem": problem}) + "\n")
    return 3


def _outside(folder: Path) -> tuple[str, str] | None:
    """Return an operation that reaches beyond the model, and its place; None if there is none."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        functions = {one.signature.name: one for one in graph.graph_def.library.function}
        places = [("the graph", graph.graph_def.node)]
        places += [(f"the function {name}", one.node_def) for name, one in functions.items()]
        for place, nodes in places:
            for node in nodes:
                if _OUTSIDE.match(node.op) or _prints_to_a_file(node):
                    return node.op, place
        for name in _called(graph, functions):
            for node in functions[name].node_def:
                if _CHECKPOINTS.match(node.op):
                    return node.op, f"the function {name}"
        for node in _run_while_loading(graph):
            if node.op.startswith("Save") or node.op == "MergeV2Checkpoints":
                return node.op, "the graph"
    return None


def _prints_to_a_file(node: Any) -> bool:
    where = node.attr["output_stream"].s if "output_stream" in node.attr else b""
    return bool(where.startswith(b"file:"))


def _called(graph: Any, functions: dict[str, Any]) -> set[str]:
    """Return the functions that the model's objects and signatures call, each other's included."""
    signatures = {key for key in graph.object_graph_def.concrete_functions if key in functions}
    found: set[str] = set()
    waiting = sorted(signatures)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += [one for one in _names_in(functions[name].node_def) if one in functions]
    return found


def _names_in(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            yield value.func.name
            yield from (one.name for one in value.list.func)


def _run_while_loading(graph: Any) -> list[Any]:
    """Return the nodes of a graph of TensorFlow 1 that its loading runs."""
    nodes = {node.name: node for node in graph.graph_def.node}
    waiting = [graph.saver_def.restore_op_name]
    waiting += [
        name
        for key in ("legacy_init_op", "saved_model_main_op", "table_initializer")
        if key in graph.collection_def
        for name in graph.collection_def[key].node_list.value
    ]
    waiting += [
        one.name
        for key in ("__saved_model_init_op", "__saved_model_train_op")
        if key in graph.signature_def
        for one in graph.signature_def[key].outputs.values()
    ]
    found: dict[str, Any] = {}
    while waiting:
        name = waiting.pop().lstrip("^").split(":")[0]
        if name in nodes and name not in found:
            found[name] = nodes[name]
            waiting += list(nodes[name].input)
    return list(found.values())


def _lost_weights(folder: Path) -> str:
    """Return what is missing or damaged among the weights; empty where nothing is."""
    if not (folder / "variables.index").is_file():
        return "variables/variables.index, the list of its weights, is missing"
    shards = {file.name for file in folder.glob("variables.data-*-of-*")}
    count = max((int(name.rpartition("-")[2]) for name in shards), default=1)
    wanted = {f"variables.data-{number:05d}-of-{count:05d}" for number in range(min(count, 9999))}
    if not wanted <= shards:
        return f"variables/{min(wanted - shards)}, which holds weights, is missing"
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(folder / "variables"))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:  # TensorFlow's own classes
        return f"its weights cannot be read ({str(error).splitlines()[0][:200]})"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
