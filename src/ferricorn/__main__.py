"""`python -m ferricorn` and the `ferricorn` command: enter Rust at once."""

import sys

from ferricorn._core import run


def main() -> None:
    """Serve as the command line says; exits the interpreter with gunicorn's exit codes."""
    sys.exit(run(sys.argv))


if __name__ == "__main__":
    main()
