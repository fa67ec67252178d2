"""What is done for a training whose model cannot be written at its end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base.errors import DsconvertError

from .saved_models import save_keras

if TYPE_CHECKING:
    from .model_files import Model, ModelPath


def keep_training(
    error: DsconvertError, state: Path | None, model: Model, loading: ModelPath | None
) -> None:
    """See that hours of training outlast a full disk, and say in the error's hint where it is.

    Args:
        error: Why the model could not be written.
        state: The run's state, which ``--resume`` goes on from; it may be missing.
        model: The trained one.
        loading: How the model that it was made from was loaded.
    """
    if state is not None and state.exists():
        error.add_hint(
            f"The training is kept in {state}: the same command with --resume goes on from there."
        )
        return
    folder = Path(tempfile.mkdtemp(prefix="dsconvert-trained-"))
    kept = folder / "model.keras"
    try:
        save_keras(model, kept, overwrite=False, loading=loading)
    except DsconvertError:
        folder.rmdir()
    else:
        error.add_hint(f"The trained model is kept as {kept}.")
