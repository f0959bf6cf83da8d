"""A name server for one name, that can fall silent, refuse, or not know it any more."""

import socket
import struct
import threading

A, AAAA = 1, 28


class NameServer:
    """Answers A questions for every name with `address`. mode: "answer", "silent", "servfail",
    "nxdomain". n_asked: questions so far."""

    def __init__(self, address="127.0.0.1"):
        self.address = address
        self.mode = "answer"
        self.n_asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self):
        self.mode = "closed"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def resolv_conf(self):
        return f"nameserver 127.0.0.1:{self.port}\noptions timeout:1 attempts:2\n"

    def _serve(self):
        while self.mode != "closed":
            question, peer = self._socket.recvfrom(4096)
            if len(question) > 12 and self.mode not in ("silent", "closed"):
                self.n_asked += 1
                self._socket.sendto(self._reply(question), peer)

    def _reply(self, question):
        end = question.index(b"\0", 12) + 5
        kind = struct.unpack("!H", question[end - 4:end - 2])[0]
        code = {"servfail": 2, "nxdomain": 3}.get(self.mode, 0)
        has_answer = code == 0 and kind == A
        head = question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, int(has_answer), 0, 0)
        answer = b""
        if has_answer:
            answer = b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 1, 4) + socket.inet_aton(self.address)
        return head + question[12:end] + answer
