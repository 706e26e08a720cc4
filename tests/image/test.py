"""Builds the image from target/image and runs it as a new user would. Called by tests/container."""

import atexit
import base64
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "examples/compose"
USER = 65532
# The maximum size of the image, in bytes.
LARGEST = 40_000_000
# The maximum wait in seconds, for a busy machine. Normally nothing here takes a tenth of it.
PATIENCE = 120


def step(text):
    print(f"== {text}", flush=True)


def check(fine, text):
    if not fine:
        sys.exit(f"tests/container: {text}")


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    sys.exit(f"tests/container: {what} took longer than {PATIENCE} s")


class Buildah:
    """buildah with a storage of its own. Its containers use the network of the machine."""

    def __init__(self, directory):
        self.command = ["buildah", "--root", str(directory / "root"), "--runroot", str(directory / "runroot"),
                        "--storage-driver", "vfs"]

    def __call__(self, *arguments):
        done = subprocess.run([*self.command, *arguments], cwd=ROOT, text=True, capture_output=True)
        check(done.returncode == 0, f"buildah {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def run(self, container, volume, command):
        """Returns the command line that runs a command in a container, as the image's user, with a directory as its volume.

        It mounts one volume only: with a second one, buildah 1.28 sometimes mounts the image's own volume over the first.
        """
        volume = f"--volume={volume}:/var/lib/pushward"
        return [*self.command, "run", "--isolation", "chroot", volume, container, "--", *command]


def image_is_as_documented(buildah):
    """Returns the commands of the image: its own, and that of its health check."""
    image = json.loads(buildah("inspect", "--type", "image", "pushward"))
    docker = image["Docker"]["config"]
    check(docker["User"] == f"{USER}:{USER}", f"the user is {docker['User']!r}")
    check(set(docker["Volumes"]) == {"/var/lib/pushward"}, f"the volumes are {docker['Volumes']}")
    ports = {"5222/tcp", "5223/tcp", "9522/tcp"}
    check(set(docker["ExposedPorts"]) == ports, f"the ports are {docker['ExposedPorts']}")
    kind, *health = docker["Healthcheck"]["Test"]
    check(kind == "CMD", "the health check needs a shell, which the image does not have")
    return docker["Entrypoint"] + docker["Cmd"], health


def files(root):
    """Returns all files of the image with size, owner and time of change, except those that buildah adds at run time."""
    given = {"etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv"}
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.split("/")[0] in {"dev", "proc", "sys"} or name in given:
            continue
        entry = path.lstat()
        # buildah changes the directories into which it mounts.
        changed = entry.st_mtime_ns if path.is_file() else None
        found[name] = (path.is_file(), entry.st_size if path.is_file() else None, entry.st_uid, changed)
    return found


def image_has_nothing_else(root):
    listed = files(root)
    wanted = {
        "etc/pushward/config.toml", "etc/ssl/certs/ca-certificates.crt", "usr/bin/pushward",
        "usr/share/doc/pushward/LICENSE-APACHE", "usr/share/doc/pushward/LICENSE-MIT", "var/lib/pushward/.keep",
    }
    found = {name for name, (is_file, *_) in listed.items() if is_file}
    check(found == wanted, f"the image lacks {wanted - found} and has {found - wanted}")
    owned = {name for name, (_, _, owner, _) in listed.items() if owner != 0}
    check(owned == {"var/lib/pushward", "var/lib/pushward/.keep"}, f"its user owns {owned}")
    size = sum(size for _, size, *_ in listed.values() if size)
    binary = listed["usr/bin/pushward"][1]
    print(f"image: {size / 1e6:.1f} MB, the binary {binary / 1e6:.1f} MB of it")
    check(size < LARGEST, "the image has become large")


def demo_runs(buildah, container, volume):
    done = subprocess.run(buildah.run(container, volume, ["/usr/bin/pushward", "demo"]),
                          text=True, capture_output=True, timeout=PATIENCE)
    check(done.returncode == 0, f"the demo failed:\n{done.stdout}{done.stderr}")
    check("every message delivered once" in done.stdout, f"the demo says:\n{done.stdout}")
    print(done.stdout.strip().splitlines()[-1])
    check([path.name for path in volume.iterdir()] == [], f"the demo left {list(volume.iterdir())}")


class Names(socketserver.BaseRequestHandler):
    """A name server like that of a container engine: every name is 127.0.0.1."""

    def handle(self):
        query, reply = self.request
        question = query[12:query.index(b"\0", 12) + 5]
        is_a = question[-4:-2] == b"\0\1"
        header = query[:2] + struct.pack(">HHHHH", 0x8580, 1, is_a, 0, 0)
        answer = b"\xc0\x0c" + struct.pack(">HHIH4s", 1, 1, 60, 4, bytes([127, 0, 0, 1])) if is_a else b""
        reply.sendto(header + question + answer, self.client_address)


def replaced(text, *pairs):
    """Returns the text with each `old` replaced by its `new`. Every `old` must occur."""
    for old, new in pairs:
        check(old in text, f"{old!r} is not in the example")
        text = text.replace(old, new)
    return text


def example_is_whole():
    """Checks that the files in compose.yaml exist, and that its ports are those of the image."""
    services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]
    check(set(services) == {"prosody", "pushward"}, f"the services are {set(services)}")
    for name, service in services.items():
        context = EXAMPLE / service["build"]["context"]
        check((context / service["build"]["dockerfile"]).is_file(), f"{name}: no {service['build']['dockerfile']}")
        for source in (volume.split(":")[0] for volume in service["volumes"]):
            check(not source.startswith(".") or (EXAMPLE / source).is_file(), f"{name}: no {source}")
    check(services["pushward"]["network_mode"] == "service:prosody", "Pushward does not share Prosody's loopback")
    inside = {port.split(":")[-1] for port in services["prosody"]["ports"]}
    check(inside == {"5222", "5223", "9522"}, f"the ports are {inside}")


class Prosody:
    """The example's Prosody, on a port and in a directory of its own."""

    def __init__(self, directory, port):
        directory.mkdir()
        shutil.chown(directory, "prosody", "prosody")
        self.config = directory / "prosody.cfg.lua"
        self.config.write_text(replaced((EXAMPLE / "prosody.cfg.lua").read_text(), ("5322", str(port)),
                                        ("/var/lib/prosody", str(directory))))
        checked = self.control("check", "config")
        check("All checks passed" in checked, f"prosodyctl check config:\n{checked}")
        self.control("register", "alice", "localhost", "wonderland")
        self.log = directory / "log"
        self.process = subprocess.Popen(["setpriv", "--reuid=prosody", "--regid=prosody", "--init-groups", "prosody", "-F",
                                         "--config", self.config], stdout=self.log.open("w"), stderr=subprocess.STDOUT)
        atexit.register(self.stop)
        until("Prosody", lambda: accepts(port) or check(self.process.poll() is None, self.log.read_text()))

    def control(self, *arguments):
        done = subprocess.run(["prosodyctl", "--config", self.config, *arguments], text=True, capture_output=True)
        check(done.returncode == 0, f"prosodyctl {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


def accepts(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def logs_in(port):
    """Logs in over direct TLS and checks for stream management, which only Pushward offers."""
    context = ssl.create_default_context()
    # The certificate is the development certificate.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    header = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    secret = base64.b64encode(b"\0alice\0wonderland").decode()
    auth = f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as stream:
            for sent, wanted in [(header, "</stream:features>"), (auth, "<success"), (header, "</stream:features>")]:
                stream.sendall(sent.encode())
                answer = ""
                while wanted not in answer:
                    part = stream.recv(65536).decode()
                    check(part, f"the stream ended after {answer!r}")
                    answer += part
            check("urn:xmpp:sm:3" in answer, f"no stream management is offered: {answer}")


def metrics(port):
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as page:
        page.sendall(f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: page.recv(65536), b"")).decode()


def pushward_of(parent):
    """Returns the process of Pushward below that of buildah."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text()
            parent_of = int(re.search(r"^PPid:\s+(\d+)", status, re.M)[1])
            name = re.search(r"^Name:\s+(\S+)", status, re.M)[1]
        except (OSError, TypeError):
            continue
        if parent_of == parent:
            return (int(entry.name), status) if name == "pushward" else pushward_of(int(entry.name))
    return None


def serves_the_example(buildah, container, root, directory):
    upstream, starttls, direct, page = free_ports(4)
    prosody = Prosody(directory / "prosody", upstream)
    # A name server resolves the name, as in a container's network.
    text = replaced((EXAMPLE / "pushward.toml").read_text(), ("localhost:5322", f"prosody.test:{upstream}"),
                    (":5222", f":{starttls}"), (":5223", f":{direct}"), (":9522", f":{page}"))
    config = directory / "config.toml"
    config.write_text(text)
    buildah("copy", container, str(config), "/etc/pushward/config.toml")
    state = directory / "state"
    state.mkdir()
    os.chown(state, USER, USER)
    command, health = image_is_as_documented(buildah)

    def healthy():
        return subprocess.run(buildah.run(container, state, health), capture_output=True).returncode == 0

    check(not healthy(), "the health check is content although nothing runs")
    before = files(root)
    log = directory / "log"
    runner = subprocess.Popen(buildah.run(container, state, command), stdout=log.open("w"), stderr=subprocess.STDOUT)
    try:
        until("readiness", lambda: healthy() or check(runner.poll() is None, f"it ended:\n{log.read_text()}"))
        process, status = until("the process", lambda: pushward_of(runner.pid))
        uids = re.search(r"^Uid:\s+(.*)$", status, re.M)[1].split()
        check(set(uids) == {str(USER)}, f"it runs as {uids}")
        checked = subprocess.run(buildah.run(container, state, ["/usr/bin/pushward", "check"]), text=True, capture_output=True)
        check(checked.returncode == 0, f"pushward check:\n{checked.stdout}{checked.stderr}")
        logs_in(direct)
        counted = metrics(page)
        check('pushward_upstream_connects_total{host="localhost",outcome="connected"} 1' in counted, f"metrics:\n{counted}")
        os.kill(process, signal.SIGTERM)
        check(runner.wait(PATIENCE) == 0, f"it did not end in order:\n{log.read_text()}")
    finally:
        if runner.poll() is None:
            # Kills Pushward instead of buildah, which would leave its child running.
            for process, _ in filter(None, [pushward_of(runner.pid)]):
                os.kill(process, signal.SIGKILL)
            runner.wait(PATIENCE)
        prosody.stop()
    check(not healthy(), "the health check is content although it has ended")
    after = files(root)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    check(not changed, f"it wrote outside its volume: {changed}")
    written = {path.name for path in state.rglob("*") if path.is_file()}
    check({"pushward.redb", "localhost.pem", "localhost.key"} <= written, f"the volume has {written}")


def main():
    directory = Path(tempfile.mkdtemp(prefix="pushward-image-"))
    directory.chmod(0o755)
    buildah = Buildah(directory)
    names = socketserver.ThreadingUDPServer(("127.0.0.153", 53), Names)
    threading.Thread(target=names.serve_forever, daemon=True).start()
    try:
        step("the image is built")
        buildah("build", "--isolation", "chroot", "--format", "docker", "--target", "prebuilt", "--tag", "pushward",
                "--file", "Containerfile", ".")
        container = buildah("from", "--dns", "127.0.0.153", "pushward")
        root = Path(buildah("mount", container))
        image_is_as_documented(buildah)
        image_has_nothing_else(root)
        step("the demo runs in it")
        volume = directory / "demo"
        volume.mkdir()
        os.chown(volume, USER, USER)
        demo_runs(buildah, container, volume)
        step("it serves the example with Prosody")
        example_is_whole()
        serves_the_example(buildah, container, root, directory)
        step("the container image is fine")
    finally:
        names.shutdown()
        subprocess.run([*buildah.command, "umount", "--all"], capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
