"""What visitors upload: kept for an hour, a bounded number of bytes, and no longer than the server lives."""

import atexit
import fcntl
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

PREFIX, LOCK = "lavic-web-", ".lock"
SECONDS, BYTES = 3600.0, 256 * 2**20
BETWEEN = 60.0  # seconds between two sweeps


class Uploads:
    """A folder of this process's own in the system's temporary folder, removed as the process ends.

    The folders that killed servers have left are removed as it is made.

    Args:
        seconds: the age at which a file is removed.
        most: bytes of all files at most; beyond, the oldest go first.
    """

    def __init__(self, seconds: float = SECONDS, most: int = BYTES) -> None:
        remove_left_behind(Path(tempfile.gettempdir()))
        self.seconds, self.most = seconds, most
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = (self.folder / LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # the system opens it when this process ends, however it ends
        self._ended = threading.Event()
        atexit.register(self.close)
        threading.Thread(target=self._sweep_now_and_then, daemon=True).start()

    def sweep(self, now: float | None = None) -> None:
        """Removes what is too old, then the oldest of what is too much.

        Args:
            now: the time in seconds since 1970; the clock's by default.
        """
        now = time.time() if now is None else now
        files = sorted(_files(self.folder), reverse=True)  # the newest first
        total = 0
        for changed, size, path in files:
            total += size
            if now - changed > self.seconds or total > self.most:
                with suppress(OSError):
                    path.unlink()
                    path.parent.rmdir()  # where it was the last one in it

    def close(self) -> None:
        """Ends the sweeping and removes the folder."""
        self._ended.set()
        atexit.unregister(self.close)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _sweep_now_and_then(self) -> None:
        while not self._ended.wait(BETWEEN):
            self.sweep()


def remove_left_behind(temporary: Path) -> None:
    """Removes the folders of servers that are no more."""
    for folder in temporary.glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """Time of change in seconds, bytes and path of every file but the lock."""
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.stat()
            if path.is_file() and path.name != LOCK:
                found.append((status.st_mtime, status.st_size, path))
    return found
