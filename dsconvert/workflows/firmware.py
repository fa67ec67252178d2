"""What programs on microcontrollers take of an exported file: a C array, a file for an NPU."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dsconvert.deploy.exporting.records import Artifact

    from .export_options import ExportOptions


class FirmwarePlaces(NamedTuple):
    """Where the files go that are made beside an exported one.

    Attributes:
        header: The C header; None if none is asked for.
        compiled: The file that Vela compiles; None if none is asked for.
    """

    header: Path | None
    compiled: Path | None


def firmware_places(output: Path, options: ExportOptions, *, overwrite: bool) -> FirmwarePlaces:
    """Check, before any work, what is asked for beside a .tflite file.

    Args:
        output: The exported file.
        options: How it is made.
        overwrite: Whether files may exist.

    Raises:
        InputError: If the file is none that can become this, or something cannot be written.
        MissingExtra: If Vela is asked for and not installed.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.base.files import check_writable, refuse_folder

    header = None if options.c_array is None else Path(options.c_array)
    accelerator = options.compile_for
    asked = {"--c-array": header, "--compile": accelerator}
    for option in (name for name, value in asked.items() if value is not None):
        if output.suffix != ".tflite":
            raise InputError(
                f"{option} is for .tflite files, and the output is {output}.",
                f"Try: -o {output.with_suffix('.tflite')}",
                code="option-not-applicable",
            )
    if header is not None:
        refuse_folder(header)
        if header.suffix not in (".h", ".hpp"):
            raise InputError(
                f"--c-array writes a header, and {header} ends in {header.suffix!r}; "
                "allowed: .h or .hpp.",
                f"Try: --c-array {header.with_suffix('.h')}",
                code="wrong-suffix",
            )
        check_writable(header, overwrite=overwrite)
    if accelerator is None:
        return FirmwarePlaces(header, None)
    _check_compilable(accelerator, options)
    compiled = output.with_name(f"{output.stem}-{accelerator}.tflite")
    check_writable(compiled, overwrite=overwrite)
    return FirmwarePlaces(header, compiled)


def _check_compilable(accelerator: str, options: ExportOptions) -> None:
    """Refuse what Vela cannot compile, and what nobody would have verified."""
    from dsconvert.base.errors import InputError
    from dsconvert.deploy.devices.vela import check_accelerator, vela_version

    check_accelerator(accelerator)
    if not options.quantize.startswith("int"):
        raise InputError(
            f"--compile {accelerator} is for int8 files, and this one is {options.quantize}.",
            "Add --quantize int8.",
            code="int8-only",
        )
    if not options.verify:
        raise InputError(
            f"--compile {accelerator} does not go with --no-verify: a compiled file runs on the "
            "NPU alone, so its outputs are compared before.",
            "Leave --no-verify out.",
            code="options-exclude-each-other",
        )
    vela_version()


def write_firmware(
    artifact: Artifact, file: Path, places: FirmwarePlaces, options: ExportOptions
) -> Artifact:
    """Write what is asked for of a file that is about to take its place: all of it, or nothing.

    Args:
        artifact: The file's record.
        file: Where it is until then.
        places: Where the others go.
        options: As for `firmware_places`.

    Returns:
        The record with the files that were written.

    Raises:
        InputError: If the file cannot become this, or something cannot be written.
    """
    import msgspec

    from dsconvert.base.files import replacing
    from dsconvert.deploy.devices.vela import compile_file
    from dsconvert.deploy.exporting.c_array import header_of

    called, sram, notes = artifact.path, None, list(artifact.notes)
    with ExitStack() as written:  # they take their places when all of them are there
        if places.compiled is not None and options.compile_for is not None:
            compiled = written.enter_context(replacing(places.compiled, overwrite=True))
            found = compile_file(file, options.compile_for, compiled)
            file, called, sram = compiled, str(places.compiled), round(1024 * found.sram_kib)
            notes.append(
                f"{called} is for {options.compile_for}, compiled by Vela {found.version}: "
                f"{100 * found.npu_share:.0f} % of the operators run on the NPU, "
                f"{found.sram_kib:.0f} KiB of SRAM; {artifact.path} was verified before"
            )
            artifact = msgspec.structs.replace(artifact, compiled=called)
        if places.header is not None:
            header = written.enter_context(replacing(places.header, overwrite=True))
            text = header_of(
                file,
                places.header.stem,
                preprocessing=artifact.preprocessing,
                sram_bytes=sram,
            )
            header.write_text(text, encoding="utf-8")
            notes.append(f"{places.header} holds {called} as a C array")
            artifact = msgspec.structs.replace(artifact, c_array=str(places.header))
    return msgspec.structs.replace(artifact, notes=tuple(notes))
