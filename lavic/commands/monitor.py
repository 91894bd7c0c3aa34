"""`./monitor_training.sh`: follows the newest run from its metrics file, or prints one look at it.

Nothing here imports PyTorch, so that it starts at once and works beside a run that fills the machine.
"""

import math
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lavic.commands.options import OptionParser
from lavic.ranges import check_ranges
from lavic.runs.run_files import Run, find_run
from lavic.runs.run_metrics import learning_rates, left_out_text, monitored, run_metrics
from lavic.runs.terminal_chart import draw

COLOURS = {"running": "green", "finished": "cyan", "interrupted": "yellow", "stale": "yellow"}
EXPLAINED = {
    "running": "alive",
    "finished": "came to its end",
    "interrupted": "stopped by a signal after saving; --resume goes on",
    "failed": "ended with an error; --resume goes on from the last checkpoint",
    "crashed": "its process is gone and wrote no end; --resume goes on from the last checkpoint",
    "stale": "silent for over 10 minutes on another host",
}


def main(arguments: Sequence[str]) -> int:
    """The command line: which run, and what of it to print once."""
    parser = OptionParser(prog="./monitor_training.sh", description="Follows a run, or prints one look at it.")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="Folder of the runs.")
    parser.add_argument("--run", type=str | None, default=None, help="A run's name in it; the newest by default.")
    parser.add_argument("--interval", type=float, default=2.0, help="Seconds between two looks.")
    for flag, text in {
        "summary": "status, progress and newest metrics",
        "loss": "the loss curves",
        "errors": "warnings, skipped steps and how the run ended",
        "gpu": "what nvidia-smi says of the GPUs",
    }.items():
        parser.add_argument(f"--{flag}", action="store_true", help=f"Print once: {text}.")
    options = parser.parse(arguments)
    check_ranges("--", interval=options.interval)
    console = Console()
    run = find_run(options.logs, options.run)
    parts: list[RenderableType] = []
    if options.summary:
        parts += [header(run), numbers(run)]
    if options.loss:
        parts.append(curves(run, console.width, 16))
    if options.errors:
        parts.append(troubles(run, last=20))
    if options.gpu:
        parts.append(gpus())
    if parts or not console.is_terminal:
        console.print(Group(*(parts or [screen(run, console)])))
        return 0
    with suppress(KeyboardInterrupt):
        follow(options.logs, options.run, options.interval, console)
    return 0


def follow(logs: Path, run_id: str | None, interval: float, console: Console) -> None:
    """Redraws the screen until the run ends; without a name, a newer run takes its place."""
    run = find_run(logs, run_id)
    with Live(screen(run, console), console=console, screen=True, auto_refresh=False) as live:
        while run.status() == "running":
            time.sleep(interval)
            run = find_run(logs, run_id)
            live.update(screen(run, console), refresh=True)
    console.print(screen(run, console))


def screen(run: Run, console: Console) -> RenderableType:
    """Everything at one look."""
    rows = max(5, min(18, console.height - 25))
    return Group(header(run), numbers(run), curves(run, console.width, rows), troubles(run, last=4))


def header(run: Run) -> RenderableType:
    """Which run, whether it lives, and how far it is."""
    about, status, total = run.about, run.status(), run.about.get("total_steps")
    title = Text.assemble(
        (run.run_id, "bold"), "  ", (status, f"bold {COLOURS.get(status, 'red')}"), f"  ({EXPLAINED[status]})"
    )
    ended = run.last("end")
    seconds = (run.events[-1]["time"] if status != "running" and run.events else time.time()) - about["started"]
    left = run.seconds_left() if status == "running" else None
    epoch = run.last("train").get("epoch", 0.0)
    progress = Text(
        f"step {run.step:,}/{total:,}" if total else f"step {run.step:,}",
    ).append(f"  epoch {epoch:.2f}/{about.get('epochs')}  running for {_duration(seconds)}")
    progress.append(f"  about {_duration(left)} left" if left is not None else "")
    lines: list[RenderableType] = [title, progress]
    if total:
        bar = Table.grid(expand=True)  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=total, completed=min(run.step, total)))
        lines.append(bar)
    processes = about.get("processes", 1)
    where = f"{about.get('host')}, process {about.get('pid')}, {processes} x {about.get('device')}"
    lines.append(Text(f"{where}; output {about.get('output_dir')}; log {about.get('log')}", style="dim"))
    if about.get("continues"):
        lines.append(Text(f"continues {about['continues']['run_id']} from step {about['continues']['step']}", "dim"))
    if ended and status == "failed":
        lines.append(Text(str(ended["message"]), style="red"))
    return Panel(Group(*lines), title="LaViC training")


def numbers(run: Run) -> RenderableType:
    """The newest metrics, best values and counts."""
    train, val = run.last("train"), run.last("validation")
    by, rates = monitored(run), learning_rates(train) or {"": None}
    saved, adapter = run.last("checkpoint"), run.last("adapter")
    adapter_value = adapter.get("value", adapter.get(by.name))
    validation = [(metric.label, f"{metric.text(val.get(metric.name))} {metric.unit}") for metric in run_metrics(run)]
    cells = [
        ("train_loss", _number(train.get("train_loss"))),
        *((f"lr, {part}" if part else "learning rate", _number(rate, ".2e")) for part, rate in rates.items()),
        ("grad_norm", _number(train.get("grad_norm"), ".3f")),
        *validation,
        (f"best {by.label}", by.text(by.best(run).get(by.name))),
        ("samples/s", _number(train.get("samples_per_second"), ".2f")),
        ("tokens/s", _number(train.get("tokens_per_second"), ",.0f")),
        ("model FLOP use", _number(train.get("mfu"), ".1%")),
        ("waiting for data", _number(train.get("data_wait"), ".0%")),
        ("peak memory", f"{_number(train.get('memory_gib'), '.2f')} GiB"),
        ("samples", f"{run.about.get('train_samples') or '-'} train, {run.about.get('val_samples') or '-'} val"),
        ("left out", left_out_text(run)),
        ("skipped steps", str(len(run.of("skip")))),
        ("last checkpoint", _ago(saved, f"step {saved.get('step')}")),
        ("best adapter", _ago(adapter, f"step {adapter.get('step')}, {by.label} {by.text(adapter_value)}")),
        ("warnings", str(len(run.of("warning")))),
    ]
    table = Table.grid(padding=(0, 2))
    half = (len(cells) + 1) // 2
    for left, right in zip_longest(cells[:half], cells[half:], fillvalue=("", "")):
        table.add_row(Text(left[0], style="dim"), Text(left[1]), Text(right[0], style="dim"), Text(right[1]))
    return Panel(table, title="newest metrics")


def curves(run: Run, width: int, height: int) -> RenderableType:
    """train_loss as a line, val_loss as marks, over optimizer steps."""
    line = [(e["step"], e["train_loss"]) for e in run.of("train") if math.isfinite(e["train_loss"])]
    marks = [(e["step"], e["val_loss"]) for e in run.of("validation") if math.isfinite(e.get("val_loss", math.nan))]
    rows = draw(line, marks, width - 4, height)
    text = Text("\n".join(rows) if rows else "no losses yet", no_wrap=True, overflow="crop")
    return Panel(text, title="train_loss (line) and val_loss (●) by step")


def troubles(run: Run, last: int) -> RenderableType:
    """The newest warnings and skipped steps, and a bad end."""
    lines = [
        (
            e,
            e["message"] if e["event"] == "warning" else f"step {e['step']} skipped, not finite: {e['samples']}",
        )
        for e in run.events
        if e["event"] in ("warning", "skip")
    ][-last:]
    text = Text("\n".join(f"{time.strftime('%H:%M:%S', time.localtime(e['time']))}  {said}" for e, said in lines))
    ended, status = run.last("end"), run.status()
    if status in ("failed", "interrupted", "crashed", "stale"):
        text.append(f"{chr(10) if lines else ''}{status}: {ended.get('message') or EXPLAINED[status]}", style="red")
    return Panel(text if text.plain else Text("none", style="dim"), title="warnings and errors")


def gpus() -> RenderableType:
    """Name, use, memory, temperature and power of each GPU."""
    fields = "index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw"
    if shutil.which("nvidia-smi") is None:
        return Panel("no nvidia-smi on this machine", title="GPUs")
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Panel(Text(f"nvidia-smi failed: {error}"), title="GPUs")
    table = Table(*fields.split(","), box=None)
    for line in found.strip().splitlines():
        table.add_row(*(Text(part.strip()) for part in line.split(",")))
    return Panel(table, title="GPUs")


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def _ago(event: dict[str, float], what: str) -> str:
    return f"{what}, {_duration(time.time() - event['time'])} ago" if event else "none yet"
