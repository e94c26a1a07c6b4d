"""A proxy on loopback that does to a server's connections what networks and sick servers do.

| fault | what happens |
|---|---|
| `none` | connections are passed on |
| `refuse` | nobody listens |
| `silent` | connections are accepted, and never answered |
| `reset` | connections are reset at once |
| `401`, `403`, `404`, `429`, `500`, `503` | each request gets this status; 429 with `Retry-After: 1` |
| `truncate` | answers end after 700 bytes |
| `corrupt` | in what comes after the first 900 bytes of a connection's answers, every 700th byte is changed |
| `trickle` | answers come at 50 bytes a second |
| `garbage` | each request gets bytes that aren't HTTP |
| `vanish` | the server is gone after some requests |
| `tls`, `tls-unknown`, `tls-expired` | connections are passed on, and are TLS with a certificate of the given file |
| `expire` | requests after the first ones get 401, as if their token had been good until then |
"""

import select
import socket
import ssl
import struct
import threading
import time

STATUS = {"401", "403", "404", "429", "500", "503"}

class Proxy:
    """Listens on `port` and passes on to `server`, a `(host, port)`, with a fault; `certificate` is a PEM
    file with its key, and `requests` how many there are until a server vanishes."""

    def __init__(self, server, fault="none", certificate=None, requests=3):
        self.server = server
        self.tls = None
        if certificate:
            self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.tls.load_cert_chain(certificate)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = self.requests = 0
        self.most = requests
        self.open = []
        self.fault = fault
        if fault == "refuse":
            self.listener.close()
            return
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.fault != "refuse":
            # Closing alone doesn't wake who waits in accept.
            with_errors_ignored(self.listener.shutdown, socket.SHUT_RDWR)
        self.listener.close()
        for client in self.open:
            with_errors_ignored(client.shutdown, socket.SHUT_RDWR)
            client.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            if not self.tls:
                self.open.append(client)
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        fault = self.fault
        if fault == "silent":
            return
        if fault == "reset" or (fault == "vanish" and self.requests >= self.most):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        try:
            if self.tls:
                client = self.tls.wrap_socket(client, server_side=True)
                self.decrypt(client)
            elif fault == "expire" and self.requests >= self.most:
                self.answer(client, "401")
            elif fault in STATUS or fault == "garbage":
                self.answer(client, fault)
            else:
                self.relay(client, fault)
        except OSError:
            pass
        finally:
            client.close()

    def answer(self, client, fault):
        """Answers one request without asking the server; its body is read, lest the answer get lost."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(65536)
            if not piece:
                return
            head += piece
        self.requests += 1
        if fault == "garbage":
            client.sendall(b"\x00\xff garbage \r\n\r\n" * 50)
            return
        later = "Retry-After: 1\r\n" if fault == "429" else ""
        client.sendall(f"HTTP/1.1 {fault} Fault\r\n{later}Content-Length: 6\r\nConnection: close\r\n\r\nfault\n".encode())
        client.shutdown(socket.SHUT_WR)
        client.settimeout(2)
        while client.recv(65536):
            pass

    def relay(self, client, fault):
        server = socket.create_connection(self.server)
        self.open.append(server)

        def upwards():
            try:
                while piece := client.recv(65536):
                    self.requests += 1
                    if fault == "vanish" and self.requests > self.most:
                        break
                    if fault == "expire" and self.requests > self.most:
                        break
                    server.sendall(piece)
                server.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        threading.Thread(target=upwards, daemon=True).start()
        sent = 0
        while piece := server.recv(50 if fault == "trickle" else 16384):
            if fault == "trickle":
                time.sleep(1)
            if fault == "truncate":
                piece = piece[: max(0, 700 - sent)]
            if fault == "corrupt":
                piece = bytes(byte ^ 0x20 if sent + n >= 900 and (sent + n) % 700 == 0 else byte for n, byte in enumerate(piece))
            if fault == "vanish" and self.requests > self.most:
                break
            client.sendall(piece)
            sent += len(piece)
            if fault == "truncate" and sent >= 700:
                break
        server.close()

    def decrypt(self, client):
        """Passes on what comes by TLS: in one thread, as a TLS connection may not be used in two."""
        with socket.create_connection(self.server) as server:
            while True:
                ready = [client] if client.pending() else select.select([client, server], [], [])[0]
                for side, other in ((client, server), (server, client)):
                    if side in ready:
                        piece = side.recv(65536)
                        if not piece:
                            return
                        other.sendall(piece)


def with_errors_ignored(act, *args):
    try:
        act(*args)
    except OSError:
        pass
