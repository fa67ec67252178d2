"""Figures of each epoch as TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require


def event_log(folder: Path) -> Any:
    """Return a Keras callback that writes what each epoch came to.

    The package ``tensorboard`` is only needed to look at the figures.

    Args:
        folder: For the event files; a resumed run adds its own to those of the first.

    Raises:
        InputError: If the folder cannot be made.

    Example:
        >>> from dsconvert.models.training.event_log import event_log
        >>> log = event_log(Path("logs"))
        >>> log.on_epoch_end(0, {"loss": 0.5})
        >>> log.on_train_end()
        >>> len(list(Path("logs").glob("events.*")))
        1
    """
    tf = require("tensorflow", "keras", "to write event files")
    keras = require("keras", "keras", "to write event files")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write event files into {folder}: {error.strerror}.",
            "Name a folder of yours with --log-dir.",
            code="not-writable",
        ) from error
    scalar = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    )

    class EventLog(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        """Writes one value per figure and epoch."""

        def __init__(self) -> None:
            super().__init__()
            self._writer = tf.summary.create_file_writer(str(folder))

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            """Write the figures of an epoch, counted from 1 as in the report."""
            with self._writer.as_default():
                for name, value in (logs or {}).items():
                    if name != "val_loss":  # the same as output_error
                        tf.summary.write(
                            name, tf.constant(value, tf.float32), epoch + 1, metadata=scalar
                        )
            self._writer.flush()

        def on_train_end(self, logs: dict[str, float] | None = None) -> None:
            """Close the file."""
            del logs
            self._writer.close()

    return EventLog()
