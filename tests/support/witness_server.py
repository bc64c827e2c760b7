"""A strict witness on a real socket, which keeps its state in files, and can also lie or hang.

It shares no code with the package: the formats are parsed here, and tamperlog verifies the consistency proofs.
Spec: C2SP tlog-witness, "add-checkpoint"; tlog-cosignature.
"""

import base64
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import tamperlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tests.support.http_server import serving

SIZE = "0|[1-9][0-9]*"
HASH = "[A-Za-z0-9+/]{43}="
REQUEST = re.compile(
    rf"old ({SIZE})\n((?:{HASH}\n){{0,63}})\n(([^\n]+)\n({SIZE})\n({HASH})\n(?:[^\n]+\n)*)\n((?:— [^\n]+\n)+)"
)
Answer = tuple[int, bytes]


@dataclass
class Witness:
    """A witness with the keys of the logs that it knows, by origin. Its latest checkpoints are files in `folder`."""

    name: str
    folder: Path
    logs: Mapping[str, Ed25519PublicKey]
    lie: str = ""
    """What it does instead of its duty: a name that is used below; "": nothing."""
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    url: str = ""
    clock: Callable[[], float] = time.time
    requests: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end of the test: a hanging witness answers no request before."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def vkey(self) -> str:
        material = b"\x04" + self.key.public_key().public_bytes_raw()
        return f"{self.name}+{self._key_id().hex()}+{base64.b64encode(material).decode()}"

    def read_latest(self, origin: str) -> tuple[int, bytes]:
        """Return size and root of the latest checkpoint that it has cosigned; (0, b"") if there is none."""
        path = self._path(origin)
        if not path.exists():
            return 0, b""
        stored = json.loads(path.read_text())
        return stored["size"], bytes.fromhex(stored["root"])

    def answer(self, body: bytes) -> Answer:
        """Return status and body of the response to add-checkpoint."""
        self.requests.append(body.decode())
        if self.lie == "hang":
            self.released.wait(60)
            return 503, b""
        if self.lie == "fail":
            return 500, b""
        if self.lie == "redirect":
            return 307, b""
        if self.lie in ("huge", "endless"):
            return 200, b"x" * 2_000_000
        matched = REQUEST.fullmatch(body.decode())
        if matched is None:
            return 400, b""
        text, origin, size, root = matched[3], matched[4], int(matched[5]), base64.b64decode(matched[6])
        proof = [base64.b64decode(line) for line in matched[2].split()]
        if self.lie == "larger":
            return 409, b"%d\n" % (size + 100)
        if self.lie == "other_sizes":
            return 409, b"%d\n" % (size - len(self.requests))
        if origin not in self.logs:
            return 404, b""
        if not self._is_signed(text, origin, matched[7]):
            return 403, b""
        with self._lock:
            refusal = self._find_refusal(origin, int(matched[1]), size, root, proof)
            if refusal:
                return refusal
            self._store(origin, size, root)
        return 200, self._cosign(text.replace(origin, "other.example/log", 1) if self.lie == "origin" else text)

    def _is_signed(self, text: str, origin: str, lines: str) -> bool:
        public_key = self.logs[origin]
        material = b"\x01" + public_key.public_bytes_raw()
        key_id = sha256(origin.encode() + b"\n" + material).digest()[:4]
        for line in lines.splitlines():
            _, name, encoded = line.split(" ")
            blob = base64.b64decode(encoded)
            if name == origin and blob[:4] == key_id:
                try:
                    public_key.verify(blob[4:], text.encode())
                except InvalidSignature:
                    return False
                return True
        return False

    def _find_refusal(self, origin: str, old_size: int, size: int, root: bytes, proof: list[bytes]) -> Answer | None:
        if old_size > size:
            return 400, b""
        known_size, known_root = self.read_latest(origin)
        if old_size != known_size:
            return 409, b"%d\n" % known_size
        if old_size == 0:
            return (422, b"") if proof else None
        try:
            tamperlog.verify_consistency(old_size, known_root, size, root, proof)
        except tamperlog.ProofError:
            return 422, b""
        return None

    def _cosign(self, text: str) -> bytes:
        if self.lie == "many_lines":
            other = base64.b64encode(bytes(12)).decode()
            return f"— {self.name} {other}\n".encode() * 1_500
        now = int(self.clock()) + {"replay": -7_200, "future": 7_200}.get(self.lie, 0)
        now = 0 if self.lie == "time_zero" else now
        key = Ed25519PrivateKey.generate() if self.lie == "signature" else self.key
        signature = key.sign(f"cosignature/v1\ntime {now}\n{text}".encode())
        blob = self._key_id() + now.to_bytes(8, "big") + signature
        return f"— {self.name} {base64.b64encode(blob).decode()}\n".encode()

    def _key_id(self) -> bytes:
        material = b"\x04" + self.key.public_key().public_bytes_raw()
        return sha256(self.name.encode() + b"\n" + material).digest()[:4]

    def _path(self, origin: str) -> Path:
        return self.folder / f"{self.name.replace('/', '_')}-{sha256(origin.encode()).hexdigest()[:16]}.json"

    def _store(self, origin: str, size: int, root: bytes) -> None:
        draft = self._path(origin).with_suffix(".draft")
        with draft.open("w") as file:
            file.write(json.dumps({"size": size, "root": root.hex()}))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path(origin))


@contextmanager
def witness(name: str, folder: Path, logs: Mapping[str, Ed25519PublicKey], *, lie: str = "") -> Iterator[Witness]:
    """Run a witness during the block."""
    running = Witness(name, folder, logs, lie=lie)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, content = running.answer(body) if self.path == "/w/add-checkpoint" else (404, b"")
            self.send_response(status)
            if status == 409:
                self.send_header("Content-Type", "text/x.tlog.size")
            if running.lie == "redirect":
                self.send_header("Location", "http://127.0.0.1:1/")
            if running.lie == "endless":
                self.end_headers()
                while not running.released.wait(0.1):
                    self.wfile.write(b"x")
                return
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with serving(server) as address:
        running.url = f"{address}/w"
        try:
            yield running
        finally:
            running.released.set()
