"""A bucket on this machine: the few calls of S3's protocol that keeping clips needs,
over real HTTP.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

XML = '<?xml version="1.0" encoding="UTF-8"?>'
TIME = "2024-01-01T00:00:00.000Z"


class Bucket(ThreadingHTTPServer):
    """`objects` by `bucket/key`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.connections: list[socket.socket] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was cut is what some tests want."""

    def url(self, name: str) -> str:
        """As `clips.store` names a place in it."""
        return f"s3://{name}?scheme=http&endpoint_override=127.0.0.1:{self.server_port}&region=here"


@contextmanager
def bucket() -> Iterator[Bucket]:
    """One that answers for the length of a block."""
    with Bucket() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        for connection in server.connections:  # kept alive, they would go on being served
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bucket

    def setup(self) -> None:
        """Remember the connection."""
        super().setup()
        self.server.connections.append(self.connection)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _key(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)

    def _reply(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        """What was sent: HTTP's chunks taken off, then those that carry S3's checksum."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in (self.headers.get("Content-Encoding") or ""):
            return data
        whole = b""
        while size := int((head := data.partition(b"\r\n"))[0].split(b";")[0], 16):
            whole, data = whole + head[2][:size], head[2][size + 2 :]
        return whole

    def _missing(self) -> None:
        body = f"{XML}<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"
        self._reply(body.encode(), 404, Content_Type="application/xml")

    def do_HEAD(self) -> None:
        """An object, or a bucket."""
        self.do_GET()

    def do_GET(self) -> None:
        """An object, or the names below a prefix."""
        key, query = self._key()
        if "list-type" in query or ("/" not in key and self.command == "GET"):
            self._list(key, query.get("prefix", [""])[0])
        elif "/" not in key:
            self._reply()
        elif key not in self.server.objects:
            self._missing()
        else:
            data = self.server.objects[key]
            found = self.headers.get("Range")
            if found:
                first, last = (int(number) for number in found.removeprefix("bytes=").split("-"))
                whole, data = len(data), data[first : last + 1]
                span = f"bytes {first}-{first + len(data) - 1}/{whole}"
                self._reply(data, 206, Content_Range=span, ETag='"e"')
            else:
                self._reply(data, ETag='"e"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")

    def _list(self, name: str, prefix: str) -> None:
        keys = [key for key in self.server.objects if key.startswith(f"{name}/{prefix}")]
        rows = "".join(
            f"<Contents><Key>{escape(key.partition('/')[2])}</Key><LastModified>{TIME}</LastModified><ETag>e</ETag>"
            f"<Size>{len(self.server.objects[key])}</Size></Contents>"
            for key in sorted(keys)
        )
        body = (
            f"{XML}<ListBucketResult><Name>{name}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(keys)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        )
        self._reply(body.encode(), Content_Type="application/xml")

    def do_PUT(self) -> None:
        """Store, store a part, or copy."""
        key, query = self._key()
        data = self._body()
        source = self.headers.get("x-amz-copy-source")
        if source:
            self.server.objects[key] = self.server.objects[unquote(source).strip("/")]
            facts = f"<ETag>e</ETag><LastModified>{TIME}</LastModified>"
            body = f"{XML}<CopyObjectResult>{facts}</CopyObjectResult>"
            self._reply(body.encode(), Content_Type="application/xml")
            return
        if "partNumber" in query:
            self.server.parts[key][int(query["partNumber"][0])] = data
        else:
            self.server.objects[key] = data
        self._reply(ETag='"e"')

    def do_POST(self) -> None:
        """Begin or end an upload in parts, or delete several."""
        key, query = self._key()
        self._body()
        if "uploads" in query:
            self.server.parts[key] = {}
            name = "InitiateMultipartUploadResult"
        else:
            parts = self.server.parts.pop(key)
            self.server.objects[key] = b"".join(parts[number] for number in sorted(parts))
            name = "CompleteMultipartUploadResult"
        facts = f"<Bucket>b</Bucket><Key>{key}</Key><UploadId>u</UploadId><ETag>e</ETag>"
        body = f"{XML}<{name}>{facts}</{name}>"
        self._reply(body.encode(), Content_Type="application/xml")

    def do_DELETE(self) -> None:
        """One object."""
        self.server.objects.pop(self._key()[0], None)
        self._reply(status=204)
