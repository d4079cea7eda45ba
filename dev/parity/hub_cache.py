"""One cache, two programs: what huggingface_hub downloads dinov3 finds, and the other way round.

    hub_cache.py --binary target/release/dinov3

Runs against a hub on this machine, so it needs no network and no weights. Exits with 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPOSITORY = "timm/vit_small_patch16_dinov3.lvd1689m"
MODEL = "vit_small_patch16_dinov3"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"model.safetensors": os.urandom(3_000_000), "config.json": b'{"architecture": "vit_small_patch16_dinov3"}'}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """The part of the hub that both ask for; large files lie under /storage/."""

    downloads = []

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path = self.path.split("?")[0]
        for name, data in FILES.items():
            large = name.endswith(".safetensors")
            if path == f"/storage/{sha256(data)}":
                return self.give(200, {}, data, body)
            if path not in (f"/{REPOSITORY}/resolve/main/{name}", f"/{REPOSITORY}/resolve/{COMMIT}/{name}"):
                continue
            facts = {"X-Repo-Commit": COMMIT}
            if not large:
                return self.give(200, facts | {"ETag": f'"{git_sha1(data)}"'}, data, body)
            host, port = self.server.server_address
            # Another host for the same server, as the hub's storage is.
            location = f"http://localhost:{port}/storage/{sha256(data)}"
            facts |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data)), "Location": location}
            return self.give(302, facts, b"", body)
        code = "EntryNotFound" if path.startswith(f"/{REPOSITORY}/resolve/") else "RepoNotFound"
        return self.give(404, {"X-Error-Code": code}, b"", body)

    def give(self, status, headers, data, body):
        if body and status == 200:
            self.downloads.append(self.path)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


def layout(cache):
    """Every file and link below the repository's folder, by its path."""
    root = Path(cache) / ("models--" + REPOSITORY.replace("/", "--"))
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file():
            found[name] = sha256(path.read_bytes())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True, type=Path)
    binary = str(parser.parse_args().binary.resolve())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    failures = []

    def check(what, passed):
        print(f"{'ok  ' if passed else 'FAIL'}  {what}")
        if not passed:
            failures.append(what)

    with tempfile.TemporaryDirectory() as folder:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_") and not name.lower().endswith("_proxy")}

        def environment(name, offline):
            extra = {"HF_HOME": f"{folder}/{name}", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
            extra["HF_HUB_OFFLINE"] = "1" if offline else "0"
            extra["HF_HUB_DISABLE_XET"] = "1"
            return clean | extra

        def ours(name, offline):
            command = [binary, "fetch", MODEL, "--json"]
            run = subprocess.run(command, env=environment(name, offline), capture_output=True, text=True, timeout=60)
            if run.returncode:
                sys.exit(f"dinov3 fetch failed: {run.stderr}")
            return json.loads(run.stdout)[0]

        def theirs(name, offline):
            code = (
                "from huggingface_hub import hf_hub_download as d\n"
                f"for name in {sorted(FILES)!r}: print(d({REPOSITORY!r}, name))"
            )
            command = [sys.executable, "-c", code]
            run = subprocess.run(command, env=environment(name, offline), capture_output=True, text=True, timeout=120)
            if run.returncode:
                sys.exit(f"huggingface_hub failed: {run.stderr}")
            return run.stdout.split()

        mine = ours("ours", offline=False)
        check("dinov3 downloads all files", all(file["downloaded"] for file in mine["files"]) and len(mine["files"]) == 2)
        check("huggingface_hub finds them without a network", all(map(os.path.exists, theirs("ours", offline=True))))
        before = len(Hub.downloads)
        paths = theirs("ours", offline=False)
        check("huggingface_hub downloads none of them again", len(Hub.downloads) == before)
        check("both name the same paths", os.path.realpath(mine["weights"]) in map(os.path.realpath, paths))

        theirs("theirs", offline=False)
        before = len(Hub.downloads)
        found = ours("theirs", offline=True)
        check("dinov3 finds what huggingface_hub downloaded, without a network", found["cached"] == "offline")
        found = ours("theirs", offline=False)
        check("dinov3 downloads none of it again", not any(file["downloaded"] for file in found["files"]))
        check("and asks for no bytes", len(Hub.downloads) == before)
        check("dinov3 reads the SHA-256 from the cache", found["files"][0]["sha256"] == sha256(FILES["model.safetensors"]))

        first, second = layout(f"{folder}/ours/hub"), layout(f"{folder}/theirs/hub")
        check(f"the two caches hold the same {len(first)} files and links", first == second and len(first) == 5)
        if first != second:
            print(json.dumps({"ours": first, "theirs": second}, indent=2))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
