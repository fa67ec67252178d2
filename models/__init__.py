"""What goes in, and what makes it good again: model files, data, fine-tuning, evaluation."""

from .checks import check_against, check_same_inputs, layout_notes, suspicions
from .compare import compare
from .datasets import Data, load_data
from .evaluate import Evaluation, evaluate
from .finetune import finetune
from .keras_predictor import KerasPredictor
from .loading import Loaded, load, resolve_custom_objects
from .onnx_import import Imported, import_onnx
from .preprocess import Preprocessing, parse_number
from .tuning import Epoch, FinetuneSettings, Tuned

__all__ = [
    "Data",
    "Epoch",
    "Evaluation",
    "FinetuneSettings",
    "Imported",
    "KerasPredictor",
    "Loaded",
    "Preprocessing",
    "Tuned",
    "check_against",
    "check_same_inputs",
    "compare",
    "evaluate",
    "finetune",
    "import_onnx",
    "layout_notes",
    "load",
    "load_data",
    "parse_number",
    "resolve_custom_objects",
    "suspicions",
]
