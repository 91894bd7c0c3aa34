"""The errors that end a crawl, and what each of them says to the user."""


class UserError(Exception):
    """A mistake of the user's: one sentence naming the thing, the value and the way out. Exit status 2."""


class StorageError(Exception):
    """The disk takes no more (full, read-only, broken): all that is stored stays. Exit status 3."""
