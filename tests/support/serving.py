"""A server of our own for a test, on a port that the system chooses."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], certificate_for: str | None = None) -> Iterator[str]:
    """Its address. With a host name, it serves HTTPS, with a certificate of an authority that nobody knows."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate_for:
        import trustme  # only the suite of the infrastructure has it

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert(certificate_for).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http{'s' if certificate_for else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
