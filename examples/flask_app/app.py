"""A small Flask application: a page, a JSON route, an upload and a stream."""

from __future__ import annotations

import os
import threading
import time

from flask import Flask, Response, jsonify, request, stream_with_context

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "<!doctype html><title>ferricorn</title><h1>Hello from Flask on ferricorn</h1>\n"


@app.get("/hello/<name>")
def hello(name: str) -> Response:
    return jsonify(hello=name, worker=os.getpid(), thread=threading.current_thread().name)


@app.post("/upload")
def upload() -> Response:
    """Count the bytes of an uploaded file: curl -F file=@picture.jpg http://127.0.0.1:5000/upload"""
    sent = request.files["file"]
    return jsonify(name=sent.filename, bytes=len(sent.read()))


@app.get("/stream")
def stream() -> Response:
    """Five lines, one after the other: curl -N http://127.0.0.1:5000/stream"""
    pause = float(request.args.get("pause", "0.2"))

    def lines():
        for number in range(1, 6):
            yield f"line {number}\n"
            time.sleep(pause)

    return Response(stream_with_context(lines()), mimetype="text/plain")
