"""AWS KMS for tests: moto's server, and a server that only gives the answers which moto cannot give.

What moto does not prove, tried with 5.2.5: a key that is disabled, pending deletion or denied to everybody by its
policy still decrypts there; another key than KeyId's gives AccessDeniedException, where AWS says
IncorrectKeyException; grants and throttling are not played; credentials are not checked. A wrong encryption context
and a damaged ciphertext it does refuse, as AWS does. `AnsweringKms` covers AWS's codes, as far as its documents go.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3

REGION = "eu-central-1"


@dataclass(frozen=True)
class KmsWorld:
    """A KMS with two keys."""

    endpoint: str
    key_arn: str
    other_key_arn: str

    @classmethod
    def create(cls, endpoint: str) -> KmsWorld:
        with contextlib.closing(boto3.client("kms", region_name=REGION, endpoint_url=endpoint)) as client:
            return cls(endpoint, *(client.create_key()["KeyMetadata"]["Arn"] for _ in range(2)))

    def client(self) -> Any:
        return boto3.client("kms", region_name=REGION, endpoint_url=self.endpoint)

    def new_uri(self, path: Path) -> str:
        return f"awskms:{path}?key-id={self.key_arn}&endpoint-url={self.endpoint}"

    def uri(self, path: Path, more: str = "") -> str:
        return f"awskms:{path}?endpoint-url={self.endpoint}{more}"


@dataclass
class AnsweringKms:
    """Gives the same answer to every request, and keeps the requests."""

    endpoint: str
    status: int
    body: bytes
    requests: list[dict[str, Any]]


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[AnsweringKms]:
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield AnsweringKms(f"http://127.0.0.1:{server.server_port}", status, body, requests)
        finally:
            server.shutdown()
            thread.join()
