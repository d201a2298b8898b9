"""The registry beside docker-registry and nginx, in one run on loopback.

What is compared is the CPU time of the server process, per GB or per request: wall times say nothing on a shared
machine. Usage: bench_registry.py COFFERDAM [MEGABYTES]; needs skopeo, curl, openssl, docker-registry and nginx.
"""

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
HEADS = 20_000
CONNECTIONS = 32
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process, its port, and what it has used so far."""

    def __init__(self, name, command, port, tls=False, environment=None):
        self.name, self.port, self.tls = name, port, tls
        log = open(os.devnull, "wb")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, f"{name} ended with {self.process.returncode}"
                time.sleep(0.05)
        raise SystemExit(f"{name} does not listen")

    def pids(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [str(self.process.pid), *children]

    def cpu(self):
        """Seconds of user and system time of the process and its workers."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def peak(self):
        """Most resident MiB that one of its processes ever had."""
        lines = [line for pid in self.pids() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return max(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024

    def url(self, path):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{path}"

    def stop(self):
        self.process.terminate()
        self.process.wait()


def measure(server, work):
    before = server.cpu()
    work()
    time.sleep(0.3)
    return server.cpu() - before


def fetch(server, path, times, ca):
    for _ in range(times):
        run("curl", "-sf", "--cacert", ca, "-o", "/dev/null", server.url(path))


def heads(server, path, user=None):
    """HEAD requests over some connections, all asked before the first answer is read."""
    lines = [f"HEAD {path} HTTP/1.1", "Host: localhost", f"Accept: {MANIFEST}"]
    if user:
        lines.append("Authorization: Basic " + base64.b64encode(user.encode()).decode())
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(CONNECTIONS)]
    for _ in range(HEADS // CONNECTIONS):
        for one in sockets:
            one.sendall(request)
        for one in sockets:
            answer = one.recv(4096)
            while not answer.endswith(b"\r\n\r\n"):
                answer += one.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200"), answer
    for one in sockets:
        one.close()


def crowd(server, path, ca):
    """Many downloads of a large blob at once, for ten seconds."""
    command = ["curl", "-s", "--max-time", "10", "--cacert", ca, "-o", "/dev/null", server.url(path)]
    for process in [subprocess.Popen(command) for _ in range(CONNECTIONS)]:
        process.wait()


def main():
    cofferdam, megabytes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 512
    work = Path(tempfile.mkdtemp(prefix="bench-registry-"))
    servers = []
    try:
        bench(cofferdam, megabytes, work, servers)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(work)


def image(work, megabytes):
    """An OCI layout with an image of one layer of random bytes."""
    layout, blobs = work / "layout", work / "layout/blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(kind, content):
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    layer = blob("application/vnd.oci.image.layer.v1.tar", os.urandom(megabytes * 1_000_000))
    diff = {"type": "layers", "diff_ids": [layer["digest"]]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": diff}).encode()
    config = blob("application/vnd.oci.image.config.v1+json", config)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).encode()
    entry = blob(MANIFEST, manifest)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "image"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return layout, layer["digest"], blobs


def start(cofferdam, work, servers):
    """Each server plain and with TLS."""
    key, certificate = str(work / "key.pem"), str(work / "certificate.pem")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", names, "-keyout", key, "-out", certificate)
    run("htpasswd", "-bBc", "-C", "10", str(work / "htpasswd"), "ada", "secret")

    for tls in [False, True]:
        suffix = "-tls" if tls else ""
        port = free_port()
        secure = ["--tls-cert", certificate, "--tls-key", key] if tls else ["--plain-http"]
        servers.append(Server(
            "ours" + suffix,
            [cofferdam, "registry", "serve", "--store", str(work / ("store" + suffix)), "--listen", f"127.0.0.1:{port}",
             "--htpasswd", str(work / "htpasswd"), "--anonymous-pull", *secure],
            port, tls))
        port = free_port()
        settings = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(work / ("docker" + suffix))}},
            "http": {"addr": f"127.0.0.1:{port}", **({"tls": {"certificate": certificate, "key": key}} if tls else {})},
        }
        (work / f"docker{suffix}.yaml").write_text(json.dumps(settings))
        servers.append(Server(
            "docker-registry" + suffix,
            ["docker-registry", "serve", str(work / f"docker{suffix}.yaml")], port, tls,
            {"OTEL_TRACES_EXPORTER": "none"}))
        port = free_port()
        listen = f"{port} ssl" if tls else f"{port}"
        lines = f"ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;" if tls else ""
        (work / f"nginx{suffix}.conf").write_text(f"""
user root; worker_processes 1; daemon off; pid {work}/nginx{suffix}.pid; error_log /dev/null;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; client_body_temp_path {work}/body{suffix};
  proxy_temp_path {work}/p{suffix}; fastcgi_temp_path {work}/f{suffix}; uwsgi_temp_path {work}/u{suffix}; scgi_temp_path {work}/s{suffix};
  server {{ listen 127.0.0.1:{listen}; {lines} root {work}/layout/blobs; }} }}
""")
        servers.append(Server("nginx" + suffix, ["nginx", "-c", str(work / f"nginx{suffix}.conf")], port, tls))
    return certificate


def bench(cofferdam, megabytes, work, servers):
    layout, layer, blobs = image(work, megabytes)
    certificate = start(cofferdam, work, servers)
    # For skopeo and curl.
    os.environ["SSL_CERT_FILE"] = certificate
    gigabytes = megabytes / 1000
    table = {server.name: {} for server in servers}
    for server in servers:
        row = table[server.name]
        if server.name.startswith("nginx"):
            blob, tag = "/sha256/" + layer.split(":")[1], "/../../index.json"
            tag = "/sha256/" + json.loads((layout / "index.json").read_text())["manifests"][0]["digest"].split(":")[1]
        else:
            target = f"docker://127.0.0.1:{server.port}/a/b:1"
            flags = [] if server.tls else ["--dest-tls-verify=false"]
            push = lambda: run("skopeo", "--insecure-policy", "copy", "--preserve-digests", *flags, "--dest-creds",
                               "ada:secret", f"oci:{layout}:image", target)
            row["push"] = measure(server, push) / gigabytes
            blob, tag = f"/v2/a/b/blobs/{layer}", "/v2/a/b/manifests/1"
        fetch(server, blob, 1, certificate)
        row["get"] = measure(server, lambda: fetch(server, blob, 4, certificate)) / (4 * gigabytes)
        if not server.tls:
            heads(server, tag)
            row["head"] = measure(server, lambda: heads(server, tag)) / HEADS * 1e6
            if server.name == "ours":
                heads(server, tag, "ada:secret")
                row["head as a user"] = measure(server, lambda: heads(server, tag, "ada:secret")) / HEADS * 1e6
        crowd(server, blob, certificate)
        row["peak"] = server.peak()
    report(table, megabytes)
    for blobs in [0, 100_000]:
        print(f"from its start until /readyz answers, with {blobs} blobs: {start_up(cofferdam, work, blobs):.0f} ms, the middle of 9 starts")


def start_up(cofferdam, work, blobs):
    """Milliseconds, the middle of nine starts: the machine does other things, too."""
    store = work / f"store-of-{blobs}"

    def start():
        port = free_port()
        command = [cofferdam, "registry", "serve", "--store", str(store), "--listen", f"127.0.0.1:{port}",
                   "--anonymous-pull", "--plain-http"]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as one:
                    one.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    assert one.recv(64).startswith(b"HTTP/1.1 200")
                    break
            except ConnectionRefusedError:
                assert process.poll() is None, f"it ended with {process.returncode}"
                time.sleep(0.001)
        spent = (time.monotonic() - began) * 1000
        process.terminate()
        process.wait()
        return spent

    # The first one makes the store.
    start()
    for number in range(blobs):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        path = store / "blobs/sha256" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    times = [start() for _ in range(9)]
    return sorted(times)[4]


def report(table, megabytes):
    print(f"\nRegistry, blob of {megabytes} MB; CPU time of the server process; x: times nginx of this run")
    print(f"{'':<22} {'GET s/GB':>9} {'x':>6} {'HEAD us':>9} {'x':>6} {'push s/GB':>10} {'peak MiB':>9}")
    for name, row in table.items():
        base = table["nginx-tls" if name.endswith("-tls") else "nginx"]
        head = f"{row['head']:>9.1f} {row['head'] / base['head']:>6.2f}" if "head" in row else f"{'-':>9} {'-':>6}"
        push = f"{row['push']:>10.2f}" if "push" in row else f"{'-':>10}"
        print(f"{name:<22} {row['get']:>9.3f} {row['get'] / base['get']:>6.2f} {head} {push} {row['peak']:>9}")
    ours = table["ours"]
    print(f"a password costs {ours['head as a user'] - ours['head']:.1f} us a request more than none")


if __name__ == "__main__":
    main()
