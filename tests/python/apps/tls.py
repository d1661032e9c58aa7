"""Shows what an application sees of TLS."""

import json


def shown(environ, start_response):
    client = environ.get("gunicorn.socket")
    certificate = client.getpeercert()
    body = json.dumps(
        {
            "environ": {key: value for key, value in environ.items() if isinstance(value, str)},
            "certificate": certificate,
            "binary": len(client.getpeercert(binary_form=True) or b""),
            "cipher": client.cipher(),
            "version": client.version(),
            "alpn": client.selected_alpn_protocol(),
        }
    ).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def upgraded(environ, start_response):
    """Says what the socket of an upgraded connection says, before it is hijacked and afterwards."""
    client = environ["gunicorn.socket"]
    before = [client.getpeercert(), client.cipher(), client.version(), client.selected_alpn_protocol()]
    if environ["PATH_INFO"] == "/declined":
        body = json.dumps(before).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
    after = [client.getpeercert(), client.cipher(), client.version(), client.selected_alpn_protocol()]
    client.sendall(json.dumps([before, after, len(client.getpeercert(True)), client.fileno() > 0]).encode())
    client.close()
    raise StopIteration
