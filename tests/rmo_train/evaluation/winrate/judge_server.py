"""A small OpenAI-compatible server on this machine: it hears every request, and judges as a test wants."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "local-judge"
ANSWERS = re.compile(r"<answer_of_A>\n(.*)\n</answer_of_A>\n\n<answer_of_B>\n(.*)\n</answer_of_B>", re.DOTALL)
Reply = str | tuple[int, dict[str, Any]]  # what the model says, or a status and its body


class JudgeServer:
    """`reply(first, second)` gives a verdict on the answers in the order shown. `asked` has them in that order."""

    def __init__(self, reply: Callable[[str, str], Reply]):
        self.reply = reply
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": MODEL}]} if self.path == "/v1/models" else {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/chat/completions":
                    self._send(404, {"detail": "Not Found"})
                elif body["model"] != MODEL:
                    self._send(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
                else:
                    self._judge(body)

            def _judge(self, body: dict[str, Any]) -> None:
                first, second = ANSWERS.search(body["messages"][0]["content"]).groups()
                with server.lock:
                    server.asked.append((first, second))
                    server.bodies.append(body)
                    server.keys.append(self.headers.get("Authorization"))
                found = server.reply(first, second)
                if isinstance(found, tuple):
                    self._send(*found)
                else:
                    self._send(200, {"choices": [{"message": {"role": "assistant", "content": found}}]})

            def _send(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@contextmanager
def judging(reply: Callable[[str, str], Reply]) -> Iterator[JudgeServer]:
    server = JudgeServer(reply)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()


def the_longer(first: str, second: str) -> str:
    """A judge that sees length alone."""
    return f"One is longer.\n{'tie' if len(first) == len(second) else 'A' if len(first) > len(second) else 'B'}"
