"""`python -m lavic report RUN`: one HTML page of a run that needs no other file and no network."""

import base64
import shlex
import time
from html import escape
from pathlib import Path
from typing import Any

from lavic.commands.options import OptionParser, with_new_names
from lavic.files import read_text, write_text
from lavic.files.json_entries import Entry, read_entries
from lavic.runs.run_files import Run, find_run
from lavic.runs.run_metrics import RunMetric, learning_rates, left_out_text, monitored, run_metrics
from lavic.runs.svg_chart import chart

CURVES = {
    "Loss (nats a token)": (("train", "train_loss"), ("validation", "val_loss")),
    "Visual gain (nats a token)": (("validation", "visual_gain"), ("validation", "visual_gain_blank")),
    "Validation perplexity": (("validation", "val_perplexity"),),
    "Gradient norm before clipping": (("train", "grad_norm"),),
    "Learning rate": (),
    "Samples a second": (("train", "samples_per_second"),),
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1320px; margin: 2rem auto; padding: 0 1rem; color: #1f2937 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .15rem .9rem .15rem 0; text-align: left; vertical-align: top }
th { font-weight: 500; color: #6b7280; white-space: nowrap } pre { background: #f3f4f6; padding: 1rem; overflow: auto }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1rem }
svg { width: 100%; border: 1px solid #e5e7eb } svg text { font-size: 11px; fill: #6b7280 }
svg .title { font-size: 13px; fill: #1f2937 } svg .grid { stroke: #e5e7eb }
.sample { display: grid; grid-template-columns: 200px 1fr; gap: 1rem; margin: 1rem 0 } .sample img { width: 200px }
.status { padding: .1rem .6rem; border-radius: 1rem; background: #e5e7eb; font-size: 1rem }
.failed, .crashed { background: #fecaca } .finished { background: #bbf7d0 }
"""


def main(arguments: list[str]) -> None:
    """Writes the page and prints where it is."""
    parser = OptionParser(prog="python -m lavic report", description=__doc__)
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run's name or its directory (default: the newest)")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="directory of the runs (default: logs)")
    parser.add_argument("--out", type=Path, help="the page to write (default: report.html in the run's directory)")
    options = parser.parse(with_new_names(arguments))
    named = Path(options.run) if options.run else None
    if named is not None and named.is_dir():
        run = find_run(named.resolve().parent, named.resolve().name)
    else:
        run = find_run(options.logs, options.run)
    output = options.out or run.directory / "report.html"
    write_text(output, page(run))
    print(output)


def page(run: Run) -> str:
    """The whole page."""
    status = run.status()
    sections = {
        "Summary": _table(_summary(run)),
        "Curves": f'<div class="curves">{"".join(_curves(run))}</div>',
        "Validation images": _samples(run.directory / "samples"),
        "Warnings and skipped steps": _troubles(run),
        "Configuration": _configuration(run.directory / "config.yaml"),
        "Versions": _table(run.about.get("versions", {})),
    }
    body = "".join(f"<h2>{name}</h2>{content or '<p>none</p>'}" for name, content in sections.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(run.run_id)}</title>'
        f"<style>{STYLE}</style></head><body>"
        f'<h1>{escape(run.run_id)} <span class="status {status}">{status}</span></h1>{body}</body></html>\n'
    )


def _summary(run: Run) -> dict[str, Any]:
    about, train, val = run.about, run.last("train"), run.last("validation")
    by = monitored(run)
    best = by.best(run)
    continued = about.get("continues")
    return {
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about["started"])),
        "continues": f"{continued['run_id']} from step {continued['step']}" if continued else None,
        "end": run.last("end").get("message"),
        "steps": f"{run.step} of {about.get('total_steps')}",
        "epochs": f"{train.get('epoch')} of {about.get('epochs')}",
        "samples": f"{about.get('train_samples')} to train, {about.get('val_samples')} to validate",
        "left out": left_out_text(run),
        "trainable parameters": about.get("trainable_parameters"),
        "device": f"{about.get('processes')} x {about.get('device')} on {about.get('host')}",
        **{_named(metric): metric.text(val.get(metric.name)) for metric in run_metrics(run)},
        f"best {by.label}": f"{by.text(best[by.name])} at step {best['step']}" if best else None,
        "samples a second": train.get("samples_per_second"),
        "tokens a second": train.get("tokens_per_second"),
        "model FLOP utilisation": train.get("mfu"),
        "peak memory, GiB": train.get("memory_gib"),
        "output": about.get("output_dir"),
        "command": shlex.join(about.get("command", [])),
    }


def _named(metric: RunMetric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def _curves(run: Run) -> list[str]:
    by, known = monitored(run), {name for series in CURVES.values() for _, name in series}
    own = {} if by.name in known else {by.label.capitalize(): (("validation", by.name),)}
    shown = {**own, **CURVES}
    lines = {title: {name: _points(run, kind, name) for kind, name in series} for title, series in shown.items()} | {
        "Learning rate": _rates(run)
    }
    return [chart(title, named) for title, named in lines.items()]


def _rates(run: Run) -> dict[str, list[tuple[float, float]]]:
    """The learning rate by step, a line for each part that has its own."""
    rates: dict[str, list[tuple[float, float]]] = {}
    for event in run.of("train"):
        for part, rate in learning_rates(event).items():
            if rate is not None:
                rates.setdefault(part or "lr", []).append((event["step"], rate))
    return rates


def _points(run: Run, kind: str, name: str) -> list[tuple[float, float]]:
    return [(e["step"], e[name]) for e in run.of(kind) if e.get(name) is not None]


def _samples(folder: Path) -> str:
    """Every epoch's images with target and generated text; the last epoch's are unfolded."""
    epochs = sorted(folder.glob("epoch_*/samples.jsonl"), key=lambda path: int(path.parent.name.rpartition("_")[2]))
    parts = []
    for path in epochs:
        samples = [line.value for line in read_entries(path) if isinstance(line, Entry)]
        shown = "".join(_sample(sample, path.with_name(f"{k}.jpg")) for k, sample in enumerate(samples))
        name = path.parent.name.replace("_", " ")
        parts.append(f"<details{' open' if path == epochs[-1] else ''}><summary>{name}</summary>{shown}</details>")
    return "".join(parts)


def _sample(sample: dict[str, Any], image: Path) -> str:
    encoded = base64.b64encode(image.read_bytes()).decode() if image.is_file() else ""
    fields = {name: value for name, value in sample.items() if name != "image"}
    shown = f'<img alt="{escape(str(sample.get("image")))}" src="data:image/jpeg;base64,{encoded}">'
    return f'<div class="sample">{shown}{_table(fields)}</div>'


def _troubles(run: Run) -> str:
    lines = [
        e["message"] if e["event"] == "warning" else f"step {e['step']} skipped, not finite: {', '.join(e['samples'])}"
        for e in run.events
        if e["event"] in ("warning", "skip")
    ]
    return f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""


def _configuration(path: Path) -> str:
    return f"<pre>{escape(read_text(path))}</pre>" if path.is_file() else ""


def _table(rows: dict[str, Any]) -> str:
    shown = {name: f"{v:.6g}" if isinstance(v, float) else str(v) for name, v in rows.items() if v is not None}
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in shown.items())
    return f"<table>{cells}</table>"
