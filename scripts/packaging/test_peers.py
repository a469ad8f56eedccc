#!/usr/bin/env python3
"""What a packaged gateway talks to in scripts/test-packages.sh: a tenant's backend over HTTPS, and a name server.

    test_peers.py FOLDER NAME...

Serves https://NAME:PORT with a certificate from FOLDER (ca.pem, backend.pem, backend.key) and answers queries for the names with
127.0.0.1 on 127.0.0.153:53. Writes the port into FOLDER/port once both listen, and ends with its standard input.
"""

import http.server
import json
import pathlib
import socket
import ssl
import struct
import sys
import threading

folder = pathlib.Path(sys.argv[1])
names = set(sys.argv[2:])


class Backend(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.dumps({"row_count": 1, "rows": [{"region": "north", "orders": 12}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def queried_name(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    return ".".join(labels), at + 5, struct.unpack("!H", query[at + 1 : at + 3])[0]


def serve_names(server):
    while True:
        query, peer = server.recvfrom(512)
        name, end, kind = queried_name(query)
        known = name in names
        is_address = known and kind == 1
        head = struct.pack("!HHHHHH", struct.unpack("!H", query[:2])[0], 0x8580 if known else 0x8583, 1, is_address, 0, 0)
        record = struct.pack("!HHHIH4B", 0xC00C, 1, 1, 60, 4, 127, 0, 0, 1) if is_address else b""
        server.sendto(head + query[12:end] + record, peer)


dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.bind(("127.0.0.153", 53))
threading.Thread(target=serve_names, args=(dns,), daemon=True).start()

tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(folder / "backend.pem", folder / "backend.key")
web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
web.socket = tls.wrap_socket(web.socket, server_side=True)
threading.Thread(target=web.serve_forever, daemon=True).start()
(folder / "port").write_text(str(web.server_port))
sys.stdin.read()
