"""The server hooks: their order in each process, against gunicorn's own; their arguments; what an exception does."""

import json
import os
import signal

import pytest

from harness import APPS, GUNICORN, IS_OURS, Gates, stop_process, wait_until

CONF = str(APPS / "lifecycle_conf.py")


class Recorded:
    """A server with every hook set, and what they noted."""

    def __init__(self, one, gates) -> None:
        self.one = one
        self.gates = gates

    def notes(self):
        return [json.loads(line) for line in self.gates.notes("hooks")]

    def names(self, process):
        return [hook for where, _, hook, _ in self.notes() if where == process]

    def wait(self, process, hook, count=1):
        wait_until(lambda: self.names(process).count(hook) >= count, f"{count} of {hook} in {process}: {self.notes()}")

    def facts(self, process, hook, index=0):
        return [facts for where, _, name, facts in self.notes() if (where, name) == (process, hook)][index]

    def pids(self):
        """Of workers that serve: before that a signal ends them without any hook."""
        self.one.get()
        return self.one.workers()


@pytest.fixture
def recorded(server, gates):
    def start(*arguments, **options):
        return Recorded(server("hello:app", "-c", CONF, *arguments, **options), gates)

    return start


def live_a_life(one, recorded):
    """Boot, a request, TTIN, TTOU, INT to a worker, HUP, TERM; each waited for by its last hook."""
    recorded.wait("worker 1", "post_worker_init")
    one.get("/first")
    recorded.wait("worker 1", "post_request")
    one.send_signal(signal.SIGTTIN)
    recorded.wait("worker 2", "post_worker_init")
    one.send_signal(signal.SIGTTOU)
    recorded.wait("arbiter", "child_exit", 1)
    with one.connect() as client:
        client.request("GET", "/second", [("Connection", "close")])
        # gunicorn's main thread closes the connection. Before that it may still be in `ThreadPoolExecutor.submit`,
        # whose lock its handler of INT takes too: it would wait for itself for ever.
        assert client.read_to_end() == b""
    recorded.wait("worker 2", "post_request")
    (pid,) = one.workers()
    os.kill(pid, signal.SIGINT)
    recorded.wait("worker 3", "post_worker_init")
    one.send_signal(signal.SIGHUP)
    recorded.wait("worker 4", "post_worker_init")
    recorded.wait("arbiter", "child_exit", 3)
    assert one.stop() == 0
    return recorded


@pytest.mark.ours
def test_the_order_is_gunicorns_in_every_process(server, gates, tmp_path):
    arguments = ("hello:app", "-c", CONF, "--threads", "2")
    ours = live_a_life(server(*arguments), recorded := Recorded(None, gates))
    (tmp_path / "reference").mkdir()
    reference_gates = Gates(tmp_path / "reference")
    reference = server(*arguments, command=GUNICORN, env=reference_gates.env)
    theirs = live_a_life(reference, Recorded(reference, reference_gates))
    assert recorded is ours
    for process in ("arbiter", "worker 1", "worker 2", "worker 3", "worker 4"):
        assert ours.names(process) == theirs.names(process), process
    threads = {(where, hook, thread) for where, thread, hook, _ in ours.notes()}
    assert threads == {(where, hook, thread) for where, thread, hook, _ in theirs.notes()}
    for (where, _, hook, facts), (_, _, _, expected) in zip(
        sorted(ours.notes(), key=str), sorted(theirs.notes(), key=str), strict=True
    ):
        # The number of living workers while others come and go is a matter of moments.
        for moment in ("WORKERS", "keyed"):
            facts.pop(moment, None), expected.pop(moment, None)
        assert facts == expected, (where, hook)


def test_arbiter_and_worker_are_described(recorded):
    one = recorded("--threads", "2", "-t", "42")
    one.wait("worker 1", "post_worker_init")
    forked = one.facts("arbiter", "pre_fork")
    assert forked == {
        "num_workers": 1,
        "WORKERS": [],
        "keyed": True,
        "timeout": 42,
        "worker_age": 1,
        "worker": 1,
        "pid": "booting",
    }
    assert one.facts("arbiter", "on_starting") == {"num": 1, "listeners": 0, "pid_known": True}
    assert one.facts("arbiter", "when_ready") == {"listeners": 1, "name": "127.0.0.1", "shown": "http://127.0.0.1:"}
    one.one.send_signal(signal.SIGTTIN)
    one.wait("worker 2", "post_worker_init")
    assert one.facts("arbiter", "pre_fork", 1)["WORKERS"] == [1]
    assert one.facts("worker 2", "post_fork")["kept"] == 2


def test_child_exit_is_called_for_killed_workers(recorded):
    one = recorded()
    one.wait("worker 1", "post_worker_init")
    (pid,) = one.pids()
    one.wait("worker 1", "post_request")
    os.kill(pid, signal.SIGKILL)
    one.wait("worker 2", "post_worker_init")
    facts = one.facts("arbiter", "child_exit")
    assert facts == {"worker": 1, "pid": "int", "aborted": False, "kept": 1, "listed": False}
    assert one.names("worker 1")[-1] == "post_request"


def test_a_silent_worker_is_aborted_with_its_hook(recorded):
    one = recorded("-t", "1")
    one.wait("worker 1", "post_worker_init")
    (pid,) = one.pids()
    # The end of the request that `pids` made would come between the hooks.
    one.wait("worker 1", "post_request")
    stop_process(pid)
    one.one.log.wait(r"WORKER TIMEOUT")
    os.kill(pid, signal.SIGCONT)
    one.wait("arbiter", "child_exit")
    assert one.facts("arbiter", "child_exit")["aborted"] is True
    # It is killed when it does not go within the second.
    told = one.names("worker 1")[4:]
    assert told == ["worker_abort", "worker_exit"][: len(told)]


ENDS = {
    # hook -> (exit code of the server, process in whose words)
    "on_starting": 1,
    "when_ready": 1,
    "nworkers_changed": 1,
    "pre_fork": 255,
    "post_fork": 3,
    "post_worker_init": 3,
}


@pytest.mark.parametrize("hook", ENDS)
def test_an_exception_at_the_start_ends_the_server(recorded, hook):
    one = recorded(ready=False, env={"RAISES": hook})
    assert one.one.wait_exit() == ENDS[hook]
    one.one.wait_gone()
    text = one.one.log.join()
    assert f"ValueError: {hook} is broken" in text
    assert f", in {hook}\n" in text


@pytest.mark.parametrize(
    ("hook", "number", "code"), [("worker_int", signal.SIGINT, 255), ("worker_exit", signal.SIGTERM, 0)]
)
def test_an_exception_in_a_workers_hook_is_logged(recorded, hook, number, code):
    one = recorded(env={"RAISES": hook})
    one.wait("worker 1", "post_worker_init")
    (pid,) = one.pids()
    os.kill(pid, number)
    one.wait("worker 2", "post_worker_init")
    one.one.log.wait(rf"^ValueError: {hook} is broken$")
    if code and not IS_OURS:
        one.one.log.wait(rf"exited with code {code}")


@pytest.mark.parametrize("hook", ["child_exit", "on_reload"])
def test_an_exception_in_the_arbiter_stops_it(recorded, hook):
    one = recorded(env={"RAISES": hook})
    one.wait("worker 1", "post_worker_init")
    if hook == "child_exit":
        os.kill(one.pids()[0], signal.SIGTERM)
    else:
        one.one.send_signal(signal.SIGHUP)
    assert one.one.wait_exit() == 255
    one.one.log.wait(rf"^ValueError: {hook} is broken$")
    assert "Unhandled exception in main loop" in one.one.log.text


def test_an_exception_in_on_exit_is_told(recorded):
    one = recorded(env={"RAISES": "on_exit"})
    one.wait("worker 1", "post_worker_init")
    one.one.send_signal(signal.SIGTERM)
    code = one.one.wait_exit()
    assert code != 0
    one.one.log.wait(r"^ValueError: on_exit is broken$")


def test_hooks_by_their_import_path(server, gates, tmp_path):
    (tmp_path / "own_hooks.py").write_text("import gate\ndef ready(server):\n    gate.note('ready', 'yes')\n")
    conf = tmp_path / "conf.py"
    conf.write_text(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nwhen_ready = 'own_hooks.ready'\n")
    server("hello:app", "-c", str(conf))
    assert gates.wait_notes("ready") == ["yes"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1", "Value is not callable: 1"),
        ("'plain'", "Value 'plain' is not import string. Format: module[.submodules...].object"),
        ("'os.no_such_thing'", "Can not load 'no_such_thing' from 'os'"),
        ("lambda one: None", "Value must have an arity of: 2"),
    ],
)
def test_what_is_no_hook_is_told_before_the_start(server, tmp_path, value, message):
    conf = tmp_path / "conf.py"
    conf.write_text(f"post_fork = {value}\n")
    one = server("hello:app", "-c", str(conf), "--check-config", ready=False)
    assert one.wait_exit() == 1
    text = one.log.join()
    assert message in text
    assert "post_fork" in text


def test_spew_prints_every_line_that_runs(server):
    one = server("hello:app", "--spew", env={"PYTHONUNBUFFERED": "1"})
    one.get()
    source = (APPS / "hello.py").read_text().splitlines()
    number = next(number for number, text in enumerate(source, 1) if text.startswith("import ") or "def " in text)
    one.output.wait(rf"^hello:{number}: ")
    if IS_OURS:
        # Also what the pool's threads run, which is where the application is.
        one.output.wait(r"^hello:\d+:     (    )*start_response\(")
