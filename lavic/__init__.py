"""LaViC: visually-aware conversational recommendation with LLaVA-v1.6 (Jeon et al., KDD 2025)."""

__version__ = "0.1.0"
