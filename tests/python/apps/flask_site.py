"""A Flask application that uses what Flask applications use: sessions, uploads, streams, errors, files."""

from pathlib import Path

from flask import (
    Flask,
    Response,
    abort,
    jsonify,
    redirect,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)

import gate

app = Flask(__name__)
app.secret_key = "only for the tests"


@app.get("/")
def index():
    return "<p>Grüße, 世界</p>"


@app.route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def echo():
    return jsonify(
        method=request.method,
        args=request.args.to_dict(),
        form=request.form.to_dict(),
        json=request.get_json(silent=True),
        agent=request.user_agent.string,
        cookies=request.cookies,
        url=request.url,
        remote=request.remote_addr,
    )


@app.post("/upload")
def upload():
    return jsonify(
        {name: [one.filename, len(one.read())] for name, one in request.files.items()} | request.form.to_dict()
    )


@app.get("/stream")
def stream():
    def parts():
        yield "first"
        gate.wait("second")
        yield f"second of {request.path}"

    return Response(stream_with_context(parts()), mimetype="text/plain")


@app.get("/download")
def download():
    return send_file(Path(__file__), conditional=True, mimetype="text/x-python")


@app.get("/visits")
def visits():
    session["visits"] = session.get("visits", 0) + 1
    return str(session["visits"])


@app.get("/away")
def away():
    return redirect(url_for("index", _external=True))


@app.get("/missing")
def missing():
    abort(404)


@app.get("/broken")
def broken():
    raise RuntimeError("broken view")


def create_app(name="factory"):
    made = Flask(name)
    made.add_url_rule("/", view_func=lambda: f"made by {name}")
    return made
