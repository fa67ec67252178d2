"""The same small program for C++ and for Kotlin on Android, from templates in programs/."""

from __future__ import annotations

from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsconvert.models.data.preprocess import Preprocessing

    from ..results.optimized import FileFigures

_INCLUDE = {
    "tflite.cc": '#include "tensorflow/lite/c/c_api.h"',
    "onnx.cc": '#include "onnxruntime_cxx_api.h"',
    "tflite.kt": """
import android.content.Context
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor""",
    "onnx.kt": """
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import android.content.Context""",
}
_BUILD = {
    "tflite.cc": "g++ -std=c++17 -O2 run.cc -I TENSORFLOW -L LIBRARIES -ltensorflowlite_c -o run",
    "onnx.cc": "g++ -std=c++17 -O2 run.cc -I ONNXRUNTIME/include -L ONNXRUNTIME/lib "
    "-lonnxruntime -o run",
    "tflite.kt": 'implementation("com.google.ai.edge.litert:litert:1.4.0")',
    "onnx.kt": 'implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0")',
}


def native_programs(file: FileFigures, preprocessing: Preprocessing) -> dict[str, str]:
    """Return the programs that run a file with its preprocessing and its scales, by name.

    Args:
        file: The file, below files/.
        preprocessing: What is done to stored values.

    Returns:
        The text of ``run.cc``, for desktops and boards, and of ``Model.kt``, for Android.
    """
    kind = "tflite" if file.name.endswith(".tflite") else "onnx"
    return {
        name: _text(kind, suffix, file, preprocessing)
        for name, suffix in (("run.cc", "cc"), ("Model.kt", "kt"))
    }


def _text(kind: str, suffix: str, file: FileFigures, preprocessing: Preprocessing) -> str:
    chosen = f"{kind}.{suffix}"
    return Template(_stored(f"main.{suffix}")).substitute(
        name=file.name,
        what=file.form,
        include=_INCLUDE[chosen],
        build=_BUILD[chosen],
        model=_stored(chosen).rstrip("\n"),
        scale=repr(float(preprocessing.scale)),
        mean=_floats(preprocessing.mean, 0.0),
        std=_floats(preprocessing.std, 1.0),
    )


def _floats(values: tuple[float, ...] | None, without: float) -> str:
    """Write numbers as both languages read them: 0.5f."""
    return ", ".join(f"{float(value)!r}f" for value in values or (without,))


def _stored(name: str) -> str:
    return files(__package__).joinpath("programs", name).read_text("utf-8")
