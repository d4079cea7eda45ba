"""A web server for one folder, as scenes meet them: late, faulty, with ranges or without."""

import http.server
import re
import threading
import time


class SceneServer:
    """Serves a folder on a free port while the block runs.

    latency_s: before every answer. fault_every: every n-th request is answered 500. ranges: whether `Range` is obeyed.
    Counts `requests` with their ranges, and of these `faults`, and `sent_bytes`.
    """

    def __init__(self, folder, *, latency_s=0.05, fault_every=None, ranges=True):
        self.folder, self.latency_s, self.fault_every, self.ranges = folder, latency_s, fault_every, ranges
        self.lock = threading.Lock()
        self.requests, self.faults, self.sent_bytes = [], 0, 0

    def __enter__(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(False)

            def do_GET(self):
                self.answer(True)

            def answer(self, with_body):
                time.sleep(outer.latency_s)
                with outer.lock:
                    outer.requests.append((self.command, self.headers.get("Range")))
                    faulty = outer.fault_every and len(outer.requests) % outer.fault_every == 0
                    outer.faults += bool(faulty)
                if faulty:
                    return self.reply(500, b"not now", with_body)
                path = outer.folder / self.path.lstrip("/")
                if not path.is_file():
                    return self.reply(404, b"", with_body)
                size = path.stat().st_size
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                with open(path, "rb") as file:
                    if not (asked and outer.ranges):
                        return self.reply(200, file.read(), with_body, size)
                    first = int(asked[1])
                    last = min(int(asked[2]) if asked[2] else size - 1, size - 1)
                    if first > last:
                        return self.reply(416, b"", with_body, extra={"Content-Range": f"bytes */{size}"})
                    file.seek(first)
                    body = file.read(last + 1 - first)
                self.reply(206, body, with_body, extra={"Content-Range": f"bytes {first}-{last}/{size}"})

            def reply(self, status, body, with_body, size=None, extra=None):
                self.send_response(status)
                self.send_header("Content-Length", str(size if size is not None else len(body)))
                if status in (200, 206):
                    self.send_header("ETag", '"the-only-version"')
                if outer.ranges:
                    self.send_header("Accept-Ranges", "bytes")
                for name, value in (extra or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                if with_body:
                    try:
                        self.wfile.write(body)
                    except (BrokenPipeError, ConnectionResetError):
                        self.close_connection = True
                        return
                    with outer.lock:
                        outer.sent_bytes += len(body)

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                pass  # a client that went away

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
