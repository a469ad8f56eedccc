"""Posts a body that will be refused, by one of Python's HTTP clients, and prints the status that it read, or what it met instead."""

import http.client
import ssl
import sys

client, url, ca, size, token = sys.argv[1:6]
host, path = url.removeprefix("https://").split("/", 1)
body = b'{"a":"' + b"x" * int(size) + b'"}'
headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
if token:
    headers["authorization"] = "Bearer " + token
trusting = ssl.create_default_context(cafile=ca)


def standard():
    connection = http.client.HTTPSConnection(host, context=trusting, timeout=60)
    connection.request("POST", "/" + path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def httpx():
    try:
        import httpx
    except ImportError:
        import httpx2 as httpx  # as newer FastMCP brings it
    with httpx.Client(verify=trusting, timeout=60) as session:
        return session.post(url, content=body, headers=headers).status_code


try:
    print({"http.client": standard, "httpx": httpx}[client]())
except Exception as error:
    print(type(error).__name__, error)
