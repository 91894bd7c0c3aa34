"""The pages of `python -m lavic web`: the shop's assistant, and a chat with any LLaVA."""
