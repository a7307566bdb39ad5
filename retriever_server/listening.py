"""The socket a service listens on."""

import errno
import socket

from retriever_server.errors import AddressError

_BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host:port``; port 0 takes a free one.

    Raises:
        AddressError: The port is in use, or the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressError(f"--host {host} is not an address of this machine ({error.strerror}).") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Bound sockets may share a port until one of them listens: listen now, so the second server is told.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"port {port} on {host} is in use; stop the process that uses it, "
                "or choose another --port (0 takes a free one)."
            ) from error
        raise AddressError(f"cannot listen on {host} port {port} ({error.strerror}).") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL under which a bound socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
