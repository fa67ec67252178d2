"""Notes for the user: repairs, layouts, doubts about data.

A note is a record of the logger ``dsconvert.notes`` at level WARNING. Python shows it on stderr
without any set-up, the command line colours it, and a program filters it as any other log.
"""

from __future__ import annotations

import logging

from .option_words import as_arguments

LOGGER = "dsconvert.notes"


def note(text: str) -> None:
    """Tell the user something that is no error, in one sentence.

    Args:
        text: With the words of the command line, which finds them in the record's ``options``.
    """
    logging.getLogger(LOGGER).warning("%s", as_arguments(text), extra={"options": text})
