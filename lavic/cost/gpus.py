"""GPUs by name: dense bf16 throughput, memory and bandwidth, from the vendors' data sheets."""

import re
from dataclasses import dataclass

from lavic.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """One GPU model.

    Args:
        tflops: dense bf16 (fp16 where the GPU has no bf16) tensor-core TFLOP/s with float32 accumulation.
        gib: memory in GiB.
        gb_per_s: memory bandwidth in GB/s.
    """

    tflops: float
    gib: float
    gb_per_s: float


GPUS = {
    "RTX 3060": Gpu(25.5, 12, 360),
    "RTX 3080": Gpu(59.5, 10, 760),
    "RTX 3090": Gpu(71.0, 24, 936),
    "RTX 4060 Ti": Gpu(44.1, 16, 288),
    "RTX 4070": Gpu(58.3, 12, 504),
    "RTX 4080": Gpu(97.5, 16, 717),
    "RTX 4090": Gpu(165.2, 24, 1008),
    "RTX 5090": Gpu(209.5, 32, 1792),
    "RTX 6000 Ada": Gpu(364.2, 48, 960),
    "RTX A6000": Gpu(154.8, 48, 768),
    "RTX A5000": Gpu(111.1, 24, 768),
    "T4": Gpu(65.0, 16, 320),
    "V100": Gpu(125.0, 32, 900),
    "A10G": Gpu(70.0, 24, 600),
    "A10": Gpu(125.0, 24, 600),
    "A40": Gpu(149.7, 48, 696),
    "L4": Gpu(121.0, 24, 300),
    "L40S": Gpu(362.1, 48, 864),
    "A100-SXM4-40GB": Gpu(312.0, 40, 1555),
    "A100": Gpu(312.0, 80, 2039),
    "H100 PCIe": Gpu(756.0, 80, 2000),
    "H100 NVL": Gpu(835.0, 94, 3900),
    "H100": Gpu(989.4, 80, 3350),
    "H200": Gpu(989.4, 141, 4800),
    "B200": Gpu(2250.0, 180, 8000),
}


def known_gpu(name: str) -> Gpu | None:
    """The GPU that a device calls itself, such as `NVIDIA GeForce RTX 4090`; None if it is not in the table.

    The longest name of the table that stands in `name` as whole words counts, so that a variant that is not in the
    table (`RTX 4070 Ti`, `RTX 4090 Laptop GPU`) is unknown rather than taken for another.
    """
    words = name.replace("NVIDIA", "").replace("GeForce", "").replace("Tesla", "").split()
    plain = " ".join(words)
    if plain in GPUS:
        return GPUS[plain]
    matching = [known for known in GPUS if plain.startswith((known + "-", known + " "))]
    variants = {"Ti", "SUPER", "Laptop", "Max-Q", "D", "Mobile"}
    if not matching or variants & set(plain.removeprefix(max(matching, key=len)).replace("-", " ").split()):
        return None
    return GPUS[max(matching, key=len)]


def named_gpu(name: str) -> Gpu:
    """The GPU that a user names, in any spelling (`RTX_4090`, `rtx4090`, `4090`).

    Raises:
        UserError: it is in no spelling one of the known ones, which are listed.
    """
    squeezed = _squeezed(name)
    named = next((known for known in GPUS if _squeezed(known) == squeezed), None)
    if named is None and squeezed.isdigit():  # a GeForce's number alone
        named = next((known for known in GPUS if _squeezed(known) == f"rtx{squeezed}"), None)
    gpu = GPUS[named] if named else known_gpu(name)
    if gpu is None:
        raise UserError(f"The GPU '{name}' is not known; give one of {', '.join(GPUS)}.")
    return gpu


def _squeezed(name: str) -> str:
    """A name's letters and digits, without its maker's."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"^(nvidia)?(geforce|tesla)?", "", plain)
