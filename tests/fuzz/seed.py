"""Make the seeds of the fuzz targets from tests/corpus: `seed.py DIRECTORY` fills DIRECTORY/<target>."""

import sys
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "corpus"


def main(directory: Path) -> None:
    for target in ("head", "chunked", "exchange"):
        (directory / target).mkdir(parents=True, exist_ok=True)
    for case in sorted(CORPUS.glob("*/*.http")):
        request = case.read_bytes()
        name = f"{case.parent.name}-{case.stem}"
        for target in ("head", "exchange"):
            (directory / target / name).write_bytes(request)
        _, _, body = request.partition(b"\r\n\r\n")
        if body:
            (directory / "chunked" / name).write_bytes(body)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
