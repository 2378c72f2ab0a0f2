"""A server on 127.0.0.1 that answers as its script says: well, badly or not at all."""

import io
import ipaddress
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LONGEST = 20.0  # seconds after which no answer goes on, whatever a test forgot


class Answers(BaseHTTPRequestHandler):
    """Gives one answer of ``server.script`` for each request; the last one again and again.

    Who asks for the headers alone (HEAD) gets ``server.head``, if there is one.
    """

    server: "Server"

    def do_GET(self) -> None:
        self.server.requests.append((self.command, dict(self.headers)))
        self.server.paths.append(self.path)
        script = self.server.script
        if self.command == "HEAD" and self.server.head:
            answer = self.server.head
        else:
            answer = script.pop(0) if len(script) > 1 else script[0]
        try:
            answer(self)
        except ConnectionError:  # who asked has gone
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Keeps what was asked of it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.script: list[Answer] = []
        self.head: Answer | None = None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.paths: list[str] = []
        self.over = threading.Event()  # ends answers that would go on for ever

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.base}/trips.parquet"

    @property
    def ranges(self) -> list[str | None]:
        """What each request for the file itself asked of it."""
        return [headers.get("Range") for method, headers in self.requests if method == "GET"]

    def handle_error(self, *_: object) -> None:
        """A connection that was broken on purpose is no news."""


Answer = Callable[[Answers], object]


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server that listens, until the block ends."""
    with Server() as server:
        if tls:
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that nobody but its own file vouches for, and how to use it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2100, 1, 1))
    signed = builder.add_extension(here, critical=False).sign(key, hashes.SHA256())
    kind = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "certificate.pem"
    path.write_bytes(signed.public_bytes(kind) + key.private_bytes(kind, form, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parquet(seed: int, rows: int = 40_000) -> bytes:
    """A Parquet file that is compressed, in several pages, to about 6 bytes a row."""
    buffer = io.BytesIO()
    numbers = np.random.default_rng(seed).integers(0, 2**40, rows)
    pq.write_table(
        pa.table({"trip": numbers}),
        buffer,
        use_dictionary=False,
        compression="zstd",
        data_page_size=1 << 16,
    )
    return buffer.getvalue()


WHOLE, OTHER = parquet(1), parquet(2)


# -- answers -------------------------------------------------------------------------------------


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(request: Answers) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    return answer


def file(
    body: bytes = WHOLE, etag: str = '"one"', cut: int | None = None, ranges: bool = True
) -> Answer:
    """A file server as in RFC 9110; ``cut``: it hangs up after so many bytes of the body."""

    def answer(request: Answers) -> None:
        asked = request.headers.get("Range")
        start = 0
        if ranges and asked and request.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if etag:
            request.send_header("ETag", etag)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[start:][:cut])

    return answer


def says(*head: str, body: bytes = b"") -> Answer:
    """The very bytes: a status line, headers, and a body that ends with the connection."""

    def answer(request: Answers) -> None:
        lines = [*head, "Connection: close", "", ""]
        request.wfile.write("\r\n".join(lines).encode("latin-1") + body)

    return answer


def chunked(body: bytes, *, ends: bool = True) -> Answer:
    """In one chunk of the chunked encoding; else its length is said and the rest is not there."""
    chunk = f"{len(body):x}\r\n".encode() + body if ends else b"ffffff\r\n" + body
    last = b"\r\n0\r\n\r\n" if ends else b""
    return says("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body=chunk + last)


def trickling(body: bytes, sent: int, every: float, *, headers: bool = True) -> Answer:
    """``sent`` bytes every so many seconds, to the end of the body if the client waits for it."""

    def answer(request: Answers) -> None:
        if headers:
            request.send_response(200)
            request.send_header("ETag", '"one"')
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
        until = time.monotonic() + LONGEST
        for start in range(0, len(body), sent):
            request.wfile.write(body[start : start + sent])
            if request.server.over.wait(every) or time.monotonic() > until:
                return

    return answer


def hanging(request: Answers) -> None:
    """Nothing, for as long as anybody waits."""
    request.server.over.wait(LONGEST)


def then(first: Answer, second: Answer) -> Answer:
    """One thing after the other, over the same connection."""

    def answer(request: Answers) -> None:
        first(request)
        second(request)

    return answer


def reset(request: Answers) -> None:
    """Break the connection as a machine that is switched off does (RST)."""
    request.wfile.flush()
    time.sleep(0.05)  # what was sent is to arrive: a reset throws away what waits
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()
