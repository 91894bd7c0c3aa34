"""Libraries' messages that say nothing about a run are shown nowhere."""

import logging
import warnings

NOISE = ("litlogger", "\U0001f4a1", "Failed to load CPU gemm_4bit_forward", "Seed set to")
LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "bitsandbytes",
    "bitsandbytes.cextension",
)


def quieten() -> None:
    """Leaves them out; called before transformers, Lightning or bitsandbytes have said anything."""
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)  # it prints to stdout
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="lightning|torch|peft|transformers|bitsandbytes")
    for client in ("httpx", "httpx2"):
        logging.getLogger(client).setLevel(logging.WARNING)  # each request, otherwise
    for name in LOGGERS:
        logging.getLogger(name).addFilter(lambda record: not any(noise in record.getMessage() for noise in NOISE))
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
