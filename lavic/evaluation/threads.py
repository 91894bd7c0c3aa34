"""What conversations of one thread have in common."""

import re

_SUBMISSION = re.compile(r"<submission>(.*?)(?:</submission>|\Z)", re.DOTALL)


def thread_of(context: str) -> str:
    """The thread's submission, its spaces made one; all of a context without one."""
    found = _SUBMISSION.search(context)
    submission = found.group(1).split() if found else []
    return " ".join(submission or context.split())
