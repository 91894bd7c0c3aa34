"""The demo: a catalogue drawn by code, a toy LLaVA-v1.6, and the steps that train it on a CPU."""
