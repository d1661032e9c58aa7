"""systemd, supervisord, Kubernetes, Compose, platforms with a PORT: files are valid, and what they do loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from fronts import DEPLOY, SITE, directory, example, free_port, is_open, reload, running
from programs import program

from harness import COMMAND, PATIENCE_S, REPOSITORY, wait_until
from load import Load
from pages import blocks
from wire import Client

# Of a cluster of today; the schemas are those that Kubernetes publishes.
KUBERNETES = "1.33.0"


def note(record_property, counters) -> None:
    assert counters.lost == 0, counters.details
    record_property("requests", f"{counters.sent} sent, {counters.lost} lost")


def test_systemd_accepts_the_units():
    with directory() as home:
        # What a machine without the application has not.
        unit = example(
            "systemd/app.service",
            ("User=www-data", f"User={os.geteuid()}"),
            ("/srv/app/venv/bin/ferricorn", sys.executable),
            ("/srv/app", str(home)),
        )
        (home / "app.service").write_text(unit)
        (home / "app.socket").write_text(example("systemd/app.socket"))
        line = [program("systemd-analyze"), "verify", f"{home}/app.service", f"{home}/app.socket"]
        checked = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        # Other units of the machine may have faults of their own.
        complaints = [text for text in checked.stderr.splitlines() if "app." in text]
        assert not complaints, complaints
        (home / "app.service").write_text(unit.replace("WatchdogSec=30", "WatchdogSec=soon"))
        spoilt = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert "app.service:16: Failed to parse" in spoilt.stderr, "the check can fail"


def test_a_reload_with_a_socket_of_systemd_loses_nothing(server, record_property):
    port = free_port()
    activate = [program("systemd-socket-activate"), "-l", f"127.0.0.1:{port}", "-E", "PYTHONPATH", "-E", "GATES"]
    command = [*activate, *COMMAND]
    one = server("served:app", "--threads", "4", "-w", "2", bind=(), command=command, ready=False, **SITE)
    one.log.wait(r"Listening on ")
    # The first connection starts the server, and waits for it.
    with Client(("127.0.0.1", port), PATIENCE_S) as client:
        assert client.request("GET", "/echo?first").text.startswith("first ")
    one.wait_ready(2)
    with Load(("127.0.0.1", port)) as load:
        for number in range(1, 4):
            reload(one)
            load.wait_answered(number * 1000)
    note(record_property, load.counters)


@contextlib.contextmanager
def supervisord(home: Path, address: tuple[str, int]):
    """The program of the documentation's page, as another user and at other paths; returns how to ask supervisorctl."""
    program_ = next(block.text for block in blocks(REPOSITORY / "docs/supervisord.md") if block.language == "ini")
    environment = ",".join(f'{key}="{value}"' for key, value in SITE["env"].items())
    for old, new in (
        ("/srv/app/venv/bin/ferricorn app:app", shlex.join([*COMMAND, "served:app"])),
        ("127.0.0.1:8000", "{}:{}".format(*address)),
        ("directory=/srv/app", f"directory={SITE['cwd']}\nenvironment={environment}"),
        ("user=www-data\n", ""),
        ("/var/log/app/app.log", f"{home}/app.log"),
    ):
        assert old in program_, old
        program_ = program_.replace(old, new)
    (home / "supervisord.conf").write_text(
        f"[supervisord]\nlogfile={home}/supervisord.log\npidfile={home}/supervisord.pid\n"
        f"[unix_http_server]\nfile={home}/control.sock\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[supervisorctl]\nserverurl=unix://{home}/control.sock\n{program_}"
    )

    def control(*line: str) -> str:
        asked = [program("supervisorctl"), "-c", f"{home}/supervisord.conf", *line]
        return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False).stdout

    line = [program("supervisord"), "--nodaemon", "-c", f"{home}/supervisord.conf"]
    with running(line, lambda: "RUNNING" in control("status", "app")):
        yield control


@pytest.mark.timeout(240)
def test_supervisord_reloads_restarts_and_stops(record_property):
    port = free_port()
    with directory() as home, supervisord(home, ("127.0.0.1", port)) as control:

        def log() -> str:
            return (home / "app.log").read_text()

        wait_until(lambda: is_open(port), "it listens")
        with Load(("127.0.0.1", port)) as load:
            for _ in range(3):
                before = log().count("Booting worker")
                assert "app: signalled" in control("signal", "HUP", "app")
                wait_until(lambda before=before: log().count("Booting worker") == before + 2, "new workers")
                load.wait_answered(load.counters.answered + 300)
        note(record_property, load.counters)
        # A master that is killed is started again, and none of its workers stays.
        master = int(control("pid", "app"))
        os.kill(master, signal.SIGKILL)
        wait_until(lambda: log().count("Starting ferricorn") == 2, "supervisord has started it again")
        wait_until(lambda: is_open(port), "it listens again")
        with Load(("127.0.0.1", port), until_refused=True) as leaving:
            assert "app: stopped" in control("stop", "app")
            counters = leaving.join()
        note(record_property, counters)
        assert "Shutting down: Master" in log()


def manifest() -> dict[str, dict]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes/app.yaml").read_text())
    return {document["kind"]: document for document in documents}


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"])
def test_kubernetes_accepts_the_manifest(kind):
    document = manifest()[kind]
    kubernetes_validate.validate(document, KUBERNETES, strict=True)
    document["spec"]["replicaz"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_keda_scales_the_deployment_by_metrics_that_are_there(server):
    """KEDA's own schema has text alone in a trigger's metadata."""
    scaled = yaml.safe_load((DEPLOY / "kubernetes/keda.yaml").read_text())
    of_app = manifest()
    spec, autoscaler = scaled["spec"], of_app["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"] == autoscaler["scaleTargetRef"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (autoscaler["minReplicas"], autoscaler["maxReplicas"])
    (trigger,) = spec["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "Value")
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    one = server("served:app", "--admin-bind", "127.0.0.1:0", **SITE)
    (found,) = one.log.wait(r"Health and figures at: http://127\.0\.0\.1:(\d+)")
    with Client(("127.0.0.1", int(found.group(1))), PATIENCE_S) as client:
        metrics = client.request("GET", "/metrics").text
    names = re.findall(r"ferricorn_\w+", trigger["metadata"]["query"])
    assert len(names) == 2
    for name in names:
        assert re.search(rf"^{name}(\{{.*\}})? \d", metrics, re.MULTILINE), name


def test_the_manifest_fits_the_settings():
    pod = manifest()["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    arguments = container["args"]
    value = dict(zip(arguments, arguments[1:], strict=False))
    assert value["-b"].endswith(f":{ports['http']}")
    assert value["--admin-bind"].endswith(f":{ports['metrics']}")
    for probe, path in (("startupProbe", "ready"), ("readinessProbe", "ready"), ("livenessProbe", "live")):
        assert container[probe]["httpGet"]["path"] == f"{value['--health-path']}/{path}"
    graceful_timeout = 30
    delay = int(value["--stop-delay"])
    assert pod["terminationGracePeriodSeconds"] > delay + graceful_timeout
    readiness = container["readinessProbe"]
    assert delay > readiness["periodSeconds"] * readiness["failureThreshold"]
    writable = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert value["--worker-tmp-dir"] in writable
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_a_pod_is_drained_without_a_loss(server, record_property):
    """The new pod is ready, the old one gets SIGTERM, and clients leave it only once its readiness probe has failed."""
    [container] = manifest()["Deployment"]["spec"]["template"]["spec"]["containers"]
    readiness = container["readinessProbe"]
    with directory() as home:

        def pod():
            ports = free_port(), free_port()
            changes = {
                "0.0.0.0:8000": f"127.0.0.1:{ports[0]}",
                "0.0.0.0:9000": f"127.0.0.1:{ports[1]}",
                "/tmp": str(home),
                "app:app": "served:app",
            }
            arguments = [changes.get(word, word) for word in container["args"][1:]]
            return server(*arguments, bind=(), ready=False, **SITE).wait_ready(2)

        old = pod()
        ready = readiness["httpGet"]["path"]
        with Load(old.address) as load:
            new = pod()
            assert new.get(ready).status == 200
            with Load(new.address) as surge:
                old.send_signal(signal.SIGTERM)
                begun = time.monotonic()
                failures = 0
                while failures < readiness["failureThreshold"]:
                    failures = failures + 1 if old.get(ready).status == 503 else 0
                    load.wait_answered(load.counters.answered + 500)
                # The endpoint is gone: no new requests.
                counters = load.stop()
                assert time.monotonic() - begun < 10, "within stop_delay"
                assert old.wait_exit() == 0
                surge.wait_answered(surge.counters.answered + 100)
    assert surge.counters.lost == 0, surge.counters.details
    counters.sent += surge.counters.sent
    note(record_property, counters)


def test_compose_names_what_is_there():
    folder = DEPLOY / "compose"
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    assert set(services) == {"app-a", "app-b", "nginx", "prometheus", "grafana"}
    build = services["app-a"]["build"]
    assert (folder / build["context"] / build["dockerfile"]).is_file()
    for service in services.values():
        for mount in service.get("volumes", ()):
            assert (folder / mount.split(":")[0]).is_file(), mount
        assert set(service.get("depends_on", ())) <= set(services)
    nginx = (DEPLOY / "nginx/nginx.conf").read_text().split("\n", 1)[1]
    servers = "server app-a:8000 fail_timeout=1s;\n        server app-b:8000 fail_timeout=1s"
    changed = nginx.replace("server unix:/run/app/app.sock", servers).replace("127.0.0.1:8080", "8080")
    of_two = re.sub(
        r" +# One that was away (.|\n)+?(?= +server )| +# A container .+\n +proxy_connect_timeout 2s;\n",
        "",
        (folder / "nginx.conf").read_text(),
    )
    assert of_two.split("\n", 1)[1] == changed, "the file that the tests of nginx run"
    targets = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0]
    for target in targets["targets"]:
        service, _, port = target.partition(":")
        assert f"--admin-bind 0.0.0.0:{port}" in services[service]["command"]


def test_docker_accepts_the_compose_file():
    compose = [program("docker"), "compose"]
    if subprocess.run([*compose, "version"], capture_output=True, timeout=PATIENCE_S, check=False).returncode != 0:
        pytest.skip("Docker's compose plugin is not installed")
    line = [*compose, "-f", str(DEPLOY / "compose/compose.yaml"), "config", "--format", "json"]
    checked = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert checked.returncode == 0, checked.stderr
    assert set(json.loads(checked.stdout)["services"]) == {"app-a", "app-b", "nginx", "prometheus", "grafana"}


def test_a_platform_that_gives_a_port_and_ten_seconds(server, record_property):
    """PORT, all addresses, logs on standard output and error, SIGTERM under load, and gone before SIGKILL."""
    [(kind, line)] = re.findall(r"^(\w+): (.+)$", (DEPLOY / "platform/Procfile").read_text(), re.MULTILINE)
    name, _, *arguments = shlex.split(line)
    assert (kind, name) == ("web", "ferricorn")
    port = free_port()
    env = {**SITE["env"], "PORT": str(port), "WEB_CONCURRENCY": "2", "FERRICORN_THREADS": "4"}
    one = server("served:app", *arguments, bind=(), cwd=SITE["cwd"], env=env, ready=False).wait_ready(2)
    one.log.wait(rf"Listening at: http://0\.0\.0\.0:{port} ")
    with Client(one.address, PATIENCE_S) as hanging, Load(one.address, pause=0.002, until_refused=True) as load:
        load.wait_answered(2000)
        # A request that does not end keeps the server until graceful_timeout.
        hanging.send_request("GET", "/pieces")
        wait_until(lambda: "GET /echo" in one.output.text, "the access log is on standard output")
        begun = time.monotonic()
        one.send_signal(signal.SIGTERM)
        counters = load.join()
        assert one.wait_exit() == 0
        assert time.monotonic() - begun < 10, "the platform would have sent SIGKILL"
    one.wait_gone()
    assert not is_open(port)
    note(record_property, counters)
