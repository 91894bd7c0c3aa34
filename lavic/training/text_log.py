"""The text log of a run: everything that is logged, on the console and line by line in a file."""

import logging
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

STEPS = "lavic.training.run_log.steps"  # the logger of single steps: a progress bar shows the same on a terminal
LINE = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")


def start_text_log(path: Path, terminal: bool) -> None:
    """Sends all logging and Python's warnings to the console and, line by line, to the file.

    Args:
        path: the text log; processes other than 0 write none and only show errors.
        terminal: the console has a progress bar, so the lines of single steps go to the file alone.
    """
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "transformers"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(said in record.msg for said in ("Tip:", "TPU available", "weights_only"))
    )
    console = logging.StreamHandler()
    console.setFormatter(LINE)
    root.handlers = [console]
    if getattr(rank_zero_only, "rank", 0):
        console.setLevel(logging.ERROR)
        return
    if terminal:
        console.addFilter(lambda record: record.name != STEPS)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(LINE)
    root.addHandler(file)
