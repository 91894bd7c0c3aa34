"""What every benchmark says of the machine that it ran on; imports no torch, for those that need none."""

import platform
from pathlib import Path


def processor_name() -> str:
    """The processor's model, or its kind where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
