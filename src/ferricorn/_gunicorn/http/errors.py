"""`gunicorn.http.errors`: names for `except` clauses. Requests are refused before Python sees them, so nothing here is
raised by the server."""


class ParseException(Exception):
    """A request that is not one."""


class NoMoreData(IOError):
    """The client has stopped in the middle."""


class InvalidRequestLine(ParseException):
    pass


class InvalidRequestMethod(ParseException):
    pass


class InvalidHTTPVersion(ParseException):
    pass


class InvalidHeader(ParseException):
    pass


class InvalidHeaderName(ParseException):
    pass


class LimitRequestLine(ParseException):
    pass


class LimitRequestHeaders(ParseException):
    pass


class InvalidSchemeHeaders(ParseException):
    pass


class ConfigurationProblem(ParseException):
    pass
