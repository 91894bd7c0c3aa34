"""The range of each number that a user may set, by the option's name, which has one sense in every command."""

from dataclasses import dataclass

from lavic.errors import UserError


@dataclass(frozen=True)
class Range:
    """From `low`, to `high` if there is one; `above` and `below` leave the end itself out."""

    low: float
    high: float | None = None
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value lies in it; NaN lies in none."""
        low = value > self.low if self.above else value >= self.low
        return low and (self.high is None or (value < self.high if self.below else value <= self.high))

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low}"
        return low if self.high is None else f"{low} and {'below' if self.below else 'at most'} {self.high}"


COUNT, NONE_OR_MORE, POSITIVE, SHARE = Range(1), Range(0), Range(0, above=True), Range(0, 1, below=True)
SEED = Range(0, 2**32 - 1)
RANGES = {
    "accumulate_grad_batches": COUNT, "batch_size": COUNT, "candidates": COUNT, "headline": COUNT, "images": COUNT,
    "k": COUNT, "max_length": COUNT, "max_new_tokens": COUNT, "max_samples": COUNT, "num_nodes": COUNT,
    "patience": COUNT, "prompt_tokens": COUNT, "r": COUNT, "resamples": COUNT, "stop_after": COUNT, "top": COUNT,
    "every_minutes": NONE_OR_MORE, "every_n_steps": NONE_OR_MORE, "gradient_clip_val": NONE_OR_MORE,
    "log_every_n_steps": NONE_OR_MORE, "min_delta": NONE_OR_MORE, "count": NONE_OR_MORE, "num_workers": NONE_OR_MORE,
    "weight_decay": NONE_OR_MORE,
    "alpha": POSITIVE, "interval": POSITIVE, "lr": POSITIVE,
    "dropout": SHARE, "floor": SHARE, "valid_share": SHARE, "warmup": SHARE,
    "patience_share": Range(0, 1, above=True, below=True),
    "port": Range(0, 65535), "seed": SEED, "seed_everything": SEED,
}  # fmt: skip


def check_ranges(prefix: str = "", /, **options: object) -> None:
    """Checks numbers against the ranges of their names; what is no number, or has no range, passes.

    Args:
        prefix: put before an option's name in the message.
        **options: their values.

    Raises:
        UserError: a number is out of its range.
    """
    for name, value in options.items():
        check_number(f"{prefix}{name}", name, value)


def check_number(shown: str, option: str, value: object) -> None:
    """The same of one number, by the name that the message has and that of the option whose range it must lie in."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        allowed = RANGES.get(option)
        if allowed is not None and not allowed.holds(value):
            raise UserError(f"{shown} is {value}; it must be {allowed}.")
