"""`from ferricorn.app.wsgiapp import run`: what the command line does, for programs that set `sys.argv` themselves."""

from ferricorn._gunicorn.app.wsgiapp import WSGIApplication, run

__all__ = ["WSGIApplication", "run"]
