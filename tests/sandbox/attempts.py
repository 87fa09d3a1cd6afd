"""Attempts to get out of a sandbox. A program of its own: it makes each attempt and prints one JSON object of outcomes.

    attempts.py TARGETS NAME...

TARGETS is JSON: `secret` and `outside` (a file to read, a folder to write in), `victim` (a process), `tcp`, `udp`
(ports of listeners), `unix` (the path of one), `abstract` (the name of one). An attempt that raises has failed.
"""

import ctypes
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
from typing import Any

TARGETS: dict[str, Any] = {}
LIBC = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"


def read_secret() -> object:
    with open(TARGETS["secret"]) as file:
        return file.read()


def read_by_link() -> object:
    os.symlink(TARGETS["secret"], "link")
    with open("link") as file:
        return file.read()


def hard_link() -> object:
    os.link(TARGETS["secret"], "hard")
    with open("hard") as file:
        return file.read()


def list_home() -> object:
    return os.listdir(os.path.dirname(TARGETS["secret"]))


def write_outside() -> None:
    with open(os.path.join(TARGETS["outside"], "written"), "w") as file:
        file.write("x")


def climb() -> object:
    with open(os.path.join("..", "climbed"), "w") as file:
        file.write("x")
    if os.path.realpath("../climbed").startswith(TARGETS["above"]):
        return True
    raise PermissionError("elsewhere")


def chmod_outside() -> None:
    os.chmod(TARGETS["secret"], 0o777)
    if os.stat(TARGETS["secret"]).st_mode & 0o777 != 0o777:
        raise PermissionError("nothing changed")


def truncate_outside() -> None:
    os.truncate(TARGETS["secret"], 0)


def rename_in() -> None:
    os.rename(TARGETS["secret"], "taken")


def environment_of_the_parent() -> object:
    with open(f"/proc/{TARGETS['victim']}/environ", "rb") as file:
        return file.read().decode()


def memory_of_the_parent() -> None:
    with open(f"/proc/{TARGETS['victim']}/mem", "rb"):
        pass


def signal_to_the_parent() -> None:
    os.kill(TARGETS["victim"], 0)
    os.kill(TARGETS["victim"], signal.SIGUSR1)


def signal_to_all() -> None:
    os.kill(-1, signal.SIGUSR1)
    with open(f"/proc/{TARGETS['victim']}/status"):
        pass


def _call(number: int, *arguments: object) -> int:
    result: int = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def ptrace() -> None:
    _call(101 if X86 else 117, 16, TARGETS["victim"], 0, 0)  # PTRACE_ATTACH
    os.waitpid(TARGETS["victim"], 0)


def process_vm_readv() -> None:
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_void_p * 2)(TARGETS["address"], 8)
    _call(310 if X86 else 270, TARGETS["victim"], local, 1, remote, 1, 0)


def pidfd() -> None:
    _call(434, TARGETS["victim"], 0)


def limits_of_the_parent() -> None:
    _call(302 if X86 else 261, TARGETS["victim"], 4, None, ctypes.create_string_buffer(16))


def tcp() -> None:
    with socket.create_connection(("127.0.0.1", TARGETS["tcp"]), 2):
        pass


def udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", TARGETS["udp"]))


def unix_socket() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(TARGETS["unix"])


def abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + TARGETS["abstract"])


def datagram_from_a_pair() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.sendto(b"x", TARGETS["unix_datagram"])


def netlink() -> None:
    socket.socket(16, socket.SOCK_RAW, 0).close()


def user_namespace() -> None:
    _call(272 if X86 else 97, 0x10000000)


def mount_namespace_by_clone() -> None:
    pid = _call(56 if X86 else 220, 0x10000000 | 0x00020000 | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def io_uring() -> None:
    os.close(_call(425, 4, ctypes.create_string_buffer(256)))


def keyring() -> None:
    _call(250 if X86 else 219, 0, -3, 1)  # KEYCTL_GET_KEYRING_ID of the session


def bpf() -> None:
    attributes = struct.pack("IIII", 1, 4, 4, 1)  # an array map of one entry
    os.close(_call(321 if X86 else 280, 0, attributes + bytes(112), 128))


def perf() -> None:
    attributes = struct.pack("IIQQQQQ", 1, 112, 0, 0, 0, 0, 0x21) + bytes(64)
    os.close(_call(298 if X86 else 241, attributes, 0, -1, -1, 0))


def other_abi() -> None:
    """A 32-bit system call of x86: getpid by int 0x80."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    child = os.fork()
    if child == 0:
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        os._exit(0 if function() == os.getpid() else 1)
    if os.waitpid(child, 0)[1]:
        raise OSError("killed, or refused")


def push_into_the_terminal() -> None:
    import fcntl

    with open("/dev/tty") as terminal:
        fcntl.ioctl(terminal, termios.TIOCSTI, b"x")


def shared_memory() -> None:
    identifier = _call(29 if X86 else 194, 0x7A7A7A7A, 4096, 0o1600)
    LIBC.shmctl(identifier, 0, None)


def become_root() -> None:
    os.setuid(0)
    if os.getuid():
        raise PermissionError
    with open("/etc/shadow") as file:
        file.read(1)


def set_user_id_program() -> None:
    """sudo, su and the like, which no_new_privs keeps from their rights."""
    outcome = subprocess.run(["su", "-c", "id -u"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10)
    if outcome.stdout.strip() != b"0":
        raise PermissionError(outcome.stderr.decode())


def inherited_descriptors() -> None:
    found = []
    for number in range(3, 1024):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            try:
                os.fstat(number)
                found.append(str(number))
            except OSError:
                continue
    if not any(TARGETS["inherited"] in name or name.isdigit() for name in found):
        raise PermissionError("none")


def secret_in_the_environment() -> object:
    return os.environ["GPTOSS_TEST_SECRET"]


def block_device() -> None:
    os.mknod("device", 0o600 | 0o060000, os.makedev(7, 0))


ATTEMPTS = {
    name: value
    for name, value in globals().items()
    if callable(value) and name[0] != "_" and value.__module__ == __name__
}


def main() -> None:
    TARGETS.update(json.loads(sys.argv[1]))
    outcomes: dict[str, bool | str] = {}
    for name in sys.argv[2:] or ATTEMPTS:
        try:
            ATTEMPTS[name]()
            outcomes[name] = True
        except BaseException as error:
            outcomes[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
