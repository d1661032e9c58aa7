import logging

log = logging.getLogger("shop")
log.debug("imported")


def application(environ, start_response):
    log.info("serving %s", environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"logged"]
