"""The address of a server: looked at, and held, before minutes go into what it will serve."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lavic.errors import UserError
from lavic.ranges import check_ranges


class Address:
    """A host and a port that nobody else listens on; other programs cannot take it until `release`.

    Args:
        host: the address to listen on.
        port: the port; 0 takes a free one, which `port` then is.

    Raises:
        UserError: the port is taken or none, or the host is not of this machine.
    """

    def __init__(self, host: str, port: int) -> None:
        check_ranges("--", port=port)
        self.host = host
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
            self._socket = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            raise self._refused(port, error) from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(place)
            self._socket.listen(1)  # with SO_REUSEADDR, two could be bound to it, but only one listens
        except OSError as error:
            self._socket.close()
            raise self._refused(port, error) from None
        self.port: int = self._socket.getsockname()[1]

    @staticmethod
    def _refused(port: int, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or error
        return UserError(f"--port {port} cannot be listened on ({reason}); give another --port, or another --host.")

    def release(self) -> None:
        """Lets the server take it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def held(host: str, port: int) -> Iterator[Address]:
    """An address that is held until it is released or the block ends."""
    address = Address(host, port)
    try:
        yield address
    finally:
        address.release()
