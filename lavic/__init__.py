"""LaViC: visually-aware conversational recommendation with vision-language models (Jeon et al., KDD 2025)."""

import logging

__version__ = "0.3.0"

# On some processors bitsandbytes, which PEFT imports, warns of a kernel that is not used (model/quantization.py).
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
