"""Runs a program in a terminal of its own: terminal.py COLUMNS LINES PROGRAM ARGUMENT...

Writes JSON objects to stdout, one per line: the program's output, and at the end its exit code and whether the terminal's settings
are unchanged. Reads JSON objects from stdin, one per line: keys to press or a signal to send.
"""
import codecs
import ctypes
import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios


PR_SET_PDEATHSIG = 1


def tell(**what):
    print(json.dumps(what), flush=True)


columns, lines, *command = sys.argv[1:]
terminal, inside = pty.openpty()
fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", int(lines), int(columns), 0, 0))
before = termios.tcgetattr(inside)
program = os.fork()
if program == 0:
    # The program must end with this one, in whatever way that ends: Profanity survives the loss of its terminal, and spins.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    fcntl.ioctl(inside, termios.TIOCSCTTY, 0)
    for descriptor in (0, 1, 2):
        os.dup2(inside, descriptor)
    os.close(terminal)
    os.close(inside)
    os.execvp(command[0], command)

decode = codecs.getincrementaldecoder("utf-8")("replace").decode
code, watched, pending = None, [terminal, sys.stdin.fileno()], b""
while True:
    ready, _, _ = select.select(watched, [], [], 0.02)
    if terminal in ready:
        tell(drawn=decode(os.read(terminal, 65536)))
    elif code is not None:
        break
    if sys.stdin.fileno() in ready:
        piece = os.read(sys.stdin.fileno(), 65536)
        if not piece:
            # The test has ended.
            watched.remove(sys.stdin.fileno())
            if code is None:
                os.kill(program, signal.SIGKILL)
        *whole, pending = (pending + piece).split(b"\n")
        for line in whole:
            order = json.loads(line)
            if "keys" in order:
                os.write(terminal, order["keys"].encode())
            if "signal" in order and code is None:
                os.kill(program, order["signal"])
    if code is None:
        pid, status = os.waitpid(program, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
tell(code=code, restored=termios.tcgetattr(inside) == before)
