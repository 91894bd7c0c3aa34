"""The one exception for mistakes that the user can mend."""


class UserError(Exception):
    """A wrong path, field, flag, YAML key, image, ID or adapter, or too little memory.

    Its message is one sentence that names the thing, the value and the way out. The command line prints it
    without a traceback and exits with status 2.
    """
