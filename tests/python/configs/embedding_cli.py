"""A program with a command line of its own on top of gunicorn's: a subclass of `Application`."""

import sys

if "--one-word" in sys.argv:
    sys.argv.remove("--one-word")
    from ferricorn.app.base import Application
else:
    from gunicorn.app.base import Application


class Program(Application):
    def init(self, parser, opts, args):
        self.greeting = args[0] if args else "nobody"
        return {"bind": "127.0.0.1:0", "workers": 1, "timeout": 7, "threads": 3}

    def load(self):
        def application(environ, start_response):
            cfg = self.cfg
            body = f"{self.greeting} {cfg.timeout} {cfg.threads} {cfg.proc_name} {cfg.preload_app} {cfg.proxy_protocol}".encode()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

        return application


if __name__ == "__main__":
    Program("%(prog)s [OPTIONS] [GREETING]").run()
