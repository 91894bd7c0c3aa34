"""One module a command, named as typed."""
