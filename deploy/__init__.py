"""What comes out: export, verification, runtimes, profiling."""

from .export import export
from .onnx_place import place_onnx
from .profile import profile
from .runtime import Runtime
from .runtimes import open_runtime
from .types import Artifact, Measurement

__all__ = ["Artifact", "Measurement", "Runtime", "export", "open_runtime", "place_onnx", "profile"]
