"""Make the seeds of the fuzz targets from tests/corpus: `seed.py DIRECTORY` fills DIRECTORY/<target>."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "corpus"
LINES = ("proxy", "proxy_tls", "forwarded", "control", "ciphers", "certificate", "http2_frames", "uwsgi")
TARGETS = ("head", "chunked", "exchange", *LINES)


def main(directory: Path) -> None:
    for target in TARGETS:
        (directory / target).mkdir(parents=True, exist_ok=True)
    for case in sorted(CORPUS.glob("*/*.http")):
        request = case.read_bytes()
        name = f"{case.parent.name}-{case.stem}"
        for target in ("head", "exchange"):
            (directory / target / name).write_bytes(request)
        head, _, body = request.partition(b"\r\n\r\n")
        if body:
            (directory / "chunked" / name).write_bytes(body)
        (directory / "forwarded" / name).write_bytes(head.partition(b"\r\n")[2])
    # What proxies add, and what is not HTTP, is in no request of the corpus.
    for target in LINES:
        for number, line in enumerate((HERE / f"{target}.seeds").read_text().splitlines()):
            seed = line.encode().decode("unicode_escape").encode("latin-1")
            (directory / target / f"line-{number}").write_bytes(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
