"""ONNX models as Keras models, and their weights back again."""

from .importing import Imported, import_onnx

__all__ = ["Imported", "import_onnx"]
