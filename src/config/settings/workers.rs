//! Rows: Worker Processes.

use super::row::{Default, Kind, Section, Setting, row};
use crate::config::choices::WorkerClass;
use crate::config::value::{Value, repr_str};

const SECTION: Section = Section::WorkerProcesses;
const ASGI: &str = "only ASGI workers use it";

pub(super) const ROWS: &[Setting] = &[
    row(
        "workers",
        SECTION,
        Kind::Workers,
        Default::Int(1),
        "Number of worker processes; auto: one per core it may use.",
    )
    .flags(&["-w", "--workers"])
    .env("WEB_CONCURRENCY", |text| Value::str(text)),
    row(
        "worker_class",
        SECTION,
        Kind::Class,
        Default::Text("sync"),
        "sync (one thread unless --threads is given), gthread, or gevent (a greenlet per request); eventlet is like gevent.",
    )
    .flags(&["-k", "--worker-class"])
    .differs("There is one kind of worker, an event loop with a pool of threads or greenlets. sync means one thread."),
    row(
        "threads",
        SECTION,
        Kind::Int,
        Default::Int(1),
        "Python threads in each worker.",
    )
    .flags(&["--threads"]),
    row(
        "worker_connections",
        SECTION,
        Kind::Int,
        Default::Int(1000),
        "Client connections a worker may hold at once; with gevent also its greenlets.",
    )
    .flags(&["--worker-connections"]),
    row(
        "max_requests",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Restart a worker after this many requests. 0: never.",
    )
    .flags(&["--max-requests"]),
    row(
        "max_requests_jitter",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Random number up to this added to --max-requests.",
    )
    .flags(&["--max-requests-jitter"]),
    row(
        "timeout",
        SECTION,
        Kind::Int,
        Default::Int(30),
        "Seconds without a heartbeat after which a worker is killed. 0: never.",
    )
    .flags(&["-t", "--timeout"])
    .differs("With one thread it bounds each request, as gunicorn's sync worker does. With more, the event loop and the interpreter have a heartbeat each, and a long request stops neither: see request_timeout."),
    row(
        "graceful_timeout",
        SECTION,
        Kind::Int,
        Default::Int(30),
        "Seconds a stopping worker has to finish its requests.",
    )
    .flags(&["--graceful-timeout"]),
    row(
        "keepalive",
        SECTION,
        Kind::Int,
        Default::Int(65),
        "Seconds an idle connection stays open. 0: close after each response.",
    )
    .flags(&["--keep-alive"])
    .differs("The default is 65, not 2, because load balancers keep connections for 60 s. Idle ones occupy no thread."),
    row(
        "boot_timeout",
        SECTION,
        Kind::Int,
        Default::Int(60),
        "Seconds a worker has to import the application. 0: no limit.",
    )
    .flags(&["--boot-timeout"])
    .ours(),
    row(
        "handover",
        SECTION,
        Kind::Bool { cli: false },
        Default::Bool(true),
        "Do not move waiting requests from busy workers to workers with free threads.",
    )
    .flags(&["--no-handover"])
    .ours(),
    row(
        "queue_timeout",
        SECTION,
        Kind::Seconds,
        Default::Int(0),
        "Seconds a request may wait for a thread before it is answered with 503. 0: no limit.",
    )
    .flags(&["--queue-timeout"])
    .ours(),
    row(
        "max_queue",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Requests that may wait for a thread of a worker; further ones get 503. 0: no limit.",
    )
    .flags(&["--max-queue"])
    .ours(),
    row(
        "request_timeout",
        SECTION,
        Kind::Seconds,
        Default::Int(0),
        "Seconds a request may run in the application before it is answered with 504. 0: no limit.",
    )
    .flags(&["--request-timeout"])
    .ours(),
    row(
        "health_path",
        SECTION,
        Kind::UrlPath,
        Default::None,
        "Path on which the server reports its health: PATH and PATH/ready, PATH/live.",
    )
    .flags(&["--health-path"])
    .ours(),
    row(
        "admin_bind",
        SECTION,
        Kind::Text,
        Default::None,
        "Second address, served by the master process: / (dashboard), /live, /ready and /metrics (Prometheus).",
    )
    .flags(&["--admin-bind"])
    .ours(),
    row(
        "admin_token",
        SECTION,
        Kind::Secret,
        Default::None,
        "Token with which requests to admin_bind may act: env:NAME, file:PATH, or the token itself. Never shown.",
    )
    .flags(&["--admin-token"])
    .ours(),
    row(
        "client_header_timeout",
        SECTION,
        Kind::Int,
        Default::Int(60),
        "Seconds in which a request head must arrive. 0: no limit.",
    )
    .flags(&["--client-header-timeout"])
    .ours(),
    row(
        "client_body_timeout",
        SECTION,
        Kind::Int,
        Default::Int(60),
        "Seconds between two pieces of a request body. 0: no limit.",
    )
    .flags(&["--client-body-timeout"])
    .ours(),
    row(
        "client_body_min_rate",
        SECTION,
        Kind::Int,
        Default::Int(500),
        "Bytes per second of a request body, on average: a slower client uses client_body_timeout up. 0: no minimum.",
    )
    .flags(&["--client-body-min-rate"])
    .ours(),
    row(
        "send_timeout",
        SECTION,
        Kind::Int,
        Default::Int(60),
        "Seconds a client may read nothing of its response. 0: no limit.",
    )
    .flags(&["--send-timeout"])
    .ours(),
    row(
        "send_min_rate",
        SECTION,
        Kind::Int,
        Default::Int(240),
        "Bytes per second a client reads of a waiting response, on average: a slower one uses send_timeout up. 0: no minimum.",
    )
    .flags(&["--send-min-rate"])
    .ours(),
    row(
        "asgi_loop",
        SECTION,
        Kind::Word {
            words: &["auto", "asyncio", "uvloop"],
            complaint: |value| format!("Invalid ASGI loop: {value}"),
        },
        Default::Text("auto"),
        "Event loop of ASGI workers.",
    )
    .flags(&["--asgi-loop"])
    .no_effect(ASGI),
    row(
        "asgi_lifespan",
        SECTION,
        Kind::Word {
            words: &["auto", "on", "off"],
            complaint: |value| format!("Invalid ASGI lifespan: {value}"),
        },
        Default::Text("auto"),
        "Lifespan protocol of ASGI workers.",
    )
    .flags(&["--asgi-lifespan"])
    .no_effect(ASGI),
    row(
        "asgi_disconnect_grace_period",
        SECTION,
        Kind::Int,
        Default::Int(3),
        "Seconds an ASGI task may run after its client has disconnected.",
    )
    .flags(&["--asgi-disconnect-grace-period"])
    .no_effect(ASGI),
    row(
        "websocket_max_message_size",
        SECTION,
        Kind::Int,
        Default::Int(16_777_216),
        "Largest WebSocket message of ASGI workers.",
    )
    .flags(&["--websocket-max-message-size"])
    .no_effect(ASGI),
    row(
        "http_parser",
        SECTION,
        Kind::Word {
            words: &["auto", "fast", "python"],
            complaint: |_| "http_parser must be one of: auto, fast, python".to_owned(),
        },
        Default::Text("auto"),
        "gunicorn's choice of HTTP parser.",
    )
    .flags(&["--http-parser"])
    .no_effect("there is one HTTP parser"),
];

/// Why a worker class cannot be had here and what to ask for instead; `None` for the ones that can.
pub(in crate::config) fn refusal(class: &str) -> Option<String> {
    let (path, name) = path_and_name(class);
    if ["sync", "gthread", SYNC_PATH, GTHREAD_PATH].contains(&name) || green(name).is_some() {
        return None;
    }
    let has = |words: &[&str]| {
        words
            .iter()
            .any(|word| path.to_ascii_lowercase().contains(word))
    };
    let advice = if has(&["gevent"]) {
        "use -k gevent, or the class of gevent-websocket by its full name"
    } else if has(&["eventlet"]) {
        "use -k gevent, or -k eventlet"
    } else if has(&["asgi", "uvicorn", "hypercorn"]) {
        "it serves WSGI: run an ASGI application with an ASGI server"
    } else if has(&["tornado"]) {
        "it serves WSGI: run a Tornado application with Tornado's own server"
    } else {
        "custom worker classes cannot be loaded: use sync or gthread with --threads N, \
         request_timeout instead of a class that ends long requests, and hooks for the rest"
    };
    Some(format!(
        "ferricorn has no worker class {}; {advice}",
        repr_str(path)
    ))
}

/// A class object arrives as Python's repr of it: <class 'gunicorn.workers.sync.SyncWorker'>.
fn path_and_name(class: &str) -> (&str, &str) {
    let path = class
        .strip_prefix("<class '")
        .and_then(|rest| rest.strip_suffix("'>"));
    let path = path.unwrap_or(class);
    (path, path.strip_prefix("egg:gunicorn#").unwrap_or(path))
}

/// What a worker of this class runs its requests on.
pub(in crate::config) fn class(value: Option<&Value>) -> WorkerClass {
    let class = value.map(Value::to_string).unwrap_or_default();
    green(path_and_name(&class).1).unwrap_or(WorkerClass::Threads)
}

fn green(name: &str) -> Option<WorkerClass> {
    match name {
        name if GEVENT.contains(&name) => Some(WorkerClass::Gevent),
        GEVENT_WEBSOCKET => Some(WorkerClass::GeventWebSocket),
        "eventlet" | EVENTLET_PATH => Some(WorkerClass::Eventlet),
        _ => None,
    }
}

/// gunicorn's names of its workers of gevent.
const GEVENT: [&str; 5] = [
    "gevent",
    "gevent_wsgi",
    "gevent_pywsgi",
    "gunicorn.workers.ggevent.GeventWorker",
    "gunicorn.workers.ggevent.GeventPyWSGIWorker",
];
const GEVENT_WEBSOCKET: &str = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker";
const EVENTLET_PATH: &str = "gunicorn.workers.geventlet.EventletWorker";
const SYNC_PATH: &str = "gunicorn.workers.sync.SyncWorker";
const GTHREAD_PATH: &str = "gunicorn.workers.gthread.ThreadWorker";
