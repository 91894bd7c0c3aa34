"""The name that `lavic/evaluation/item_ids.py` had in 0.1, for programs that still import it; it goes with 0.4."""

from lavic.evaluation.item_ids import named_item as named_item
