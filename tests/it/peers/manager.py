#!/usr/bin/env python3
"""A service manager with a store for file descriptors, in place of systemd.

Usage: manager.py DIRECTORY LIMIT COMMAND...

It starts the command as systemd starts a service of Type=notify, and handles FDSTORE, FDNAME, FDPOLL, FDSTOREREMOVE and
BARRIER. It reads orders from the standard input, one in a line, and prints events as lines of JSON:

restart   sends SIGTERM, waits for the end, and starts the command again with the stored descriptors
kill      the same with SIGKILL
pause     sends SIGTERM and waits for the end
start     starts the command again with the stored descriptors
stop      sends SIGTERM, waits for the end, and closes the stored descriptors
names     prints the names of the stored descriptors
"""

import array
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import sys

directory, limit, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
path = os.path.join(directory, "notify")
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(path)
notify.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
store = []  # (name, descriptor, polled)
pid = None


def say(**event):
    print(json.dumps(event), flush=True)


def start():
    global pid
    passed = [(name, fd) for name, fd, _ in store]
    pid = os.fork()
    if pid:
        say(event="started", pid=pid)
        return
    # The process ends with this one: PR_SET_PDEATHSIG.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # Out of the way of the numbers from 3 on.
    high = [(name, fcntl.fcntl(fd, fcntl.F_DUPFD, 500 + len(passed))) for name, fd in passed]
    environment = dict(os.environ, NOTIFY_SOCKET=path, FDSTORE=str(limit))
    for number, (_, fd) in enumerate(high):
        os.dup2(fd, 3 + number, inheritable=True)
        os.close(fd)
    os.closerange(3 + len(high), 1000 + 2 * len(high))
    if high:
        environment.update(
            LISTEN_FDS=str(len(high)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=":".join(name for name, _ in high)
        )
    os.execve(command[0], command, environment)


def forget(wanted):
    global store
    for name, fd, _ in store:
        if wanted(name, fd):
            os.close(fd)
    store = [entry for entry in store if not wanted(entry[0], entry[1])]


def receive():
    size = socket.CMSG_SPACE(253 * array.array("i").itemsize)
    message, control, flags, _ = notify.recvmsg(4096, size)
    descriptors = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    fields = dict(line.split("=", 1) for line in message.decode().splitlines() if "=" in line)
    name = fields.get("FDNAME", "stored")
    if fields.get("FDSTORE") == "1":
        for fd in descriptors:
            if len(store) >= limit:
                os.close(fd)
            else:
                store.append((name, fd, fields.get("FDPOLL") != "0"))
    else:
        # Among them that of BARRIER=1.
        for fd in descriptors:
            os.close(fd)
    if fields.get("FDSTOREREMOVE") == "1":
        forget(lambda known, _: known == name)
    if "READY" in fields:
        say(event="ready")


def hung_up():
    poll = select.poll()
    for _, fd, polled in store:
        if polled:
            poll.register(fd, 0)
    gone = {fd for fd, events in poll.poll(0) if events & (select.POLLHUP | select.POLLERR)}
    if gone:
        say(event="hung up", names=[name for name, fd, _ in store if fd in gone])
        forget(lambda _, fd: fd in gone)


def end(number):
    global pid
    os.kill(pid, number)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            pid = None
            say(event="ended", status=os.waitstatus_to_exitcode(status))
            break
        if select.select([notify], [], [], 0.005)[0]:
            receive()
    while select.select([notify], [], [], 0)[0]:
        receive()
    hung_up()


start()
orders = b""
while True:
    ready, _, _ = select.select([notify, 0], [], [], 0.05)
    if notify in ready:
        receive()
    hung_up()
    if pid and os.waitpid(pid, os.WNOHANG)[0]:
        pid = None
        say(event="exited")
    if 0 in ready:
        read = os.read(0, 4096)
        if not read:
            if pid:
                os.kill(pid, signal.SIGKILL)
            sys.exit()
        orders += read
        while b"\n" in orders:
            order, orders = orders.split(b"\n", 1)
            if order in (b"restart", b"kill"):
                end(signal.SIGTERM if order == b"restart" else signal.SIGKILL)
                say(event="store", names=[name for name, _, _ in store])
                start()
            elif order == b"pause":
                end(signal.SIGTERM)
                say(event="store", names=[name for name, _, _ in store])
            elif order == b"start":
                start()
            elif order == b"stop":
                end(signal.SIGTERM)
                forget(lambda *_: True)
                sys.exit()
            elif order == b"names":
                say(event="store", names=[name for name, _, _ in store])
