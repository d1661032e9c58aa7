"""`python -m gunicorn`."""

from ferricorn._gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run(prog="gunicorn")
