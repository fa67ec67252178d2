"""What is estimated from the files: accelerators and microcontrollers."""

from __future__ import annotations

NPUS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
"""Vela's names of the accelerators it estimates."""
MCU = "mcu"
"""Any microcontroller with TensorFlow Lite for Microcontrollers."""
