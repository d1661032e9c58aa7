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
