"""Callbacks around a task: what a run keeps, writes and watches."""
