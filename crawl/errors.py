"""The errors that end a crawl, and what each of them says to the user."""

from lavic.errors import UserError as UserError  # exit status 2


class StorageError(Exception):
    """The disk takes no more (full, read-only, broken): all that is stored stays. Exit status 3."""
