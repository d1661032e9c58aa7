"""Request hooks that note what they are given; what they do is chosen by the request's query."""

import json
import threading

import gate


def describe(value):
    if isinstance(value, (list, tuple)):
        return [describe(one) for one in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__


def pre_request(worker, req):
    if req.query == "pre-raises":
        raise ValueError("pre_request is broken")
    if req.query == "pre-changes":
        req.headers.append(("X-REQUEST-ID", "given-by-hook"))
        req.headers.remove(("X-GONE", "yes"))
        req.path = "/changed%20path"
        req.scheme = "https"
    if req.proxy_protocol_info:
        gate.note("proxy", json.dumps(req.proxy_protocol_info))
    names = "method uri path query fragment version scheme headers peer_addr remote_addr proxy_protocol_info".split()
    seen = {name: describe(getattr(req, name)) for name in names}
    seen["body"] = hasattr(req.body, "read")
    seen["thread"] = threading.current_thread() is threading.main_thread()
    seen["worker"] = [describe(worker.pid), worker.nr, worker.alive, worker.booted, worker.cfg.threads]
    gate.note("pre", json.dumps(seen))


def post_request(worker, req, environ, resp):
    if req.query == "post-raises":
        raise ValueError("post_request is broken")
    seen = {"environ": environ.get("PATH_INFO"), "method": req.method}
    if resp is not None:
        names = "status status_code headers sent headers_sent response_length chunked".split()
        seen.update({name: describe(getattr(resp, name, "absent")) for name in names})
    gate.note("post", json.dumps(seen))
