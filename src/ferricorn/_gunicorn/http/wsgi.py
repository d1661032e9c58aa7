"""`gunicorn.http.wsgi`: the `resp` that `post_request` and loggers are given."""

from ferricorn._gunicorn import SERVER, SERVER_SOFTWARE

__all__ = ["SERVER", "SERVER_SOFTWARE", "Response"]


class Response:
    """What was answered. `headers` are the application's; what the server adds is not among them."""

    def __init__(self, req, sock, cfg):
        self.req = req
        self.sock = sock
        self.cfg = cfg
        self.version = SERVER
        self.status = None
        self.status_code = None
        self.chunked = False
        self.must_close = False
        self.upgrade = False
        self.headers = []
        self.headers_sent = False
        # The Content-Length, if the application set one, and the bytes of the body that were sent.
        self.response_length = None
        self.sent = 0

    def force_close(self):
        self.must_close = True

    def should_close(self):
        return self.must_close or self.req.should_close()
