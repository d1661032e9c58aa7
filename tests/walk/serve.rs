//! Builds the copy, serves requests with it, and reads what they left in the trace.
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Call, root};

const APPLICATION: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '2')])
    return [b'ok']
";

/// The shortest trace counts: a heartbeat of the loop may fall into another. These and the first request are too few for the
/// loop to be delegated (`pool/delegation.rs`).
const ROUNDS: usize = 3;
/// A trace is complete when it has not grown for this long.
const QUIET: Duration = Duration::from_millis(60);
/// Longer than the event loop sleeps between two heartbeats.
const IDLE: Duration = Duration::from_millis(1600);

/// What the server did.
pub(super) struct Trace {
    /// For a request on a new connection.
    pub(super) new: Vec<Call>,
    /// For the next one on the same connection.
    pub(super) kept: Vec<Call>,
    /// While nothing happened: the event loop's iteration for its heartbeat.
    pub(super) upkeep: Vec<Call>,
}

/// Requests are traced [`ROUNDS`] times. Their calls are in this order: the loop's up to the queue, the pool thread's, the
/// loop's rest.
pub(super) fn trace(copy: &Path) -> Trace {
    let library = build(copy);
    fs::copy(library, copy.join("src/ferricorn/_core.so")).unwrap();
    fs::write(copy.join("application.py"), APPLICATION).unwrap();
    let trace = copy.join("trace");
    File::create(&trace).unwrap();
    let server = Server::start(copy, &trace);
    let (mut new, mut kept) = (Vec::new(), Vec::new());
    // The first request fills caches and makes lazy objects.
    for _ in 0..=ROUNDS {
        let start = final_length(&trace);
        let mut connection = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        request(&mut connection);
        let middle = final_length(&trace);
        request(&mut connection);
        let end = final_length(&trace);
        let text = fs::read_to_string(&trace).unwrap();
        new.push(in_order(&text[start..middle]));
        kept.push(in_order(&text[middle..end]));
        // Its end is no part of the trace.
        drop(connection);
    }
    let start = final_length(&trace);
    thread::sleep(IDLE);
    let text = fs::read_to_string(&trace).unwrap();
    let shortest =
        |traces: Vec<Vec<Call>>| traces.into_iter().skip(1).min_by_key(Vec::len).unwrap();
    Trace {
        new: shortest(new),
        kept: shortest(kept),
        upkeep: text[start..]
            .lines()
            .map(|line| Line::read(line).call())
            .collect(),
    }
}

fn python() -> PathBuf {
    env::var_os("PYO3_PYTHON").map_or_else(|| root().join(".venv/bin/python"), PathBuf::from)
}

fn build(copy: &Path) -> PathBuf {
    // The dependencies are those of the other tests, in their profile: one of them takes a minute to build.
    let target = root().join("target");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--lib"])
        .current_dir(copy)
        .env("PYO3_PYTHON", python())
        .env("PYO3_BUILD_EXTENSION_MODULE", "1")
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .unwrap();
    assert!(status.success(), "the instrumented copy does not build");
    target.join("debug/libferricorn.so")
}

struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(copy: &Path, trace: &Path) -> Self {
        let mut process = Command::new(python())
            .args(["-m", "ferricorn", "application", "--bind", "127.0.0.1:0"])
            .args(["--threads", "2", "--no-control-socket"])
            .current_dir(copy)
            .env("PYTHONPATH", copy.join("src"))
            .env("WALK_TRACE", trace)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut port = None;
        let mut shown = String::new();
        // The worker's line comes after the address.
        while !shown.contains("Booting worker") {
            let start = shown.len();
            assert!(
                log.read_line(&mut shown).unwrap() > 0,
                "the server did not start:\n{shown}"
            );
            let address = shown[start..].split("http://127.0.0.1:").nth(1);
            port = port.or(address.and_then(|rest| rest.split_whitespace().next()?.parse().ok()));
        }
        // Whatever it logs later must not block it.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self {
            process,
            port: port.unwrap(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = i32::try_from(self.process.id()).unwrap();
        let _ = nix::sys::signal::kill(Pid::from_raw(id), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

fn request(stream: &mut TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"\r\n\r\nok") {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "no answer: {}", answer.escape_ascii());
        answer.extend_from_slice(&piece[..count]);
    }
}

/// The length of the trace once it has stopped growing.
fn final_length(trace: &Path) -> usize {
    let length = || usize::try_from(fs::metadata(trace).unwrap().len()).unwrap();
    let mut seen = length();
    loop {
        thread::sleep(QUIET);
        if length() == seen {
            return seen;
        }
        seen = length();
    }
}

/// The loop is the worker's main thread; the pool thread is the one that runs the application. They run side by side for
/// a moment after the request is queued and after its reply is sent, so each thread keeps its own order, and the loop's
/// calls are cut at the middle of the pool thread's: the loop sleeps while the application is called.
fn in_order(trace: &str) -> Vec<Call> {
    let lines: Vec<Line<'_>> = trace.lines().map(Line::read).collect();
    let application = lines.iter().find(|line| line.callee == APPLICATION_FILE);
    let thread = application.expect("the application ran").thread;
    let of_pool: Vec<usize> = (0..lines.len())
        .filter(|at| lines[*at].thread == thread)
        .collect();
    let cut = of_pool[of_pool.len() / 2];
    let of_loop = |range: Range<usize>| {
        let lines = lines[range].iter();
        lines.filter(|line| line.thread == line.process)
    };
    let pool = of_pool.iter().map(|at| &lines[*at]);
    let calls = of_loop(0..cut).chain(pool).chain(of_loop(cut..lines.len()));
    calls.map(Line::call).collect()
}

const APPLICATION_FILE: &str = "src/python/wsgi/app.rs";

/// A line of the trace.
struct Line<'a> {
    process: &'a str,
    thread: &'a str,
    caller: &'a str,
    callee: &'a str,
    function: &'a str,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let [process, thread, caller, callee, function] = words.try_into().unwrap();
        Self {
            process,
            thread,
            caller,
            callee,
            function,
        }
    }

    fn call(&self) -> Call {
        let below_src = |path: &str| path.trim_start_matches("src/").to_owned();
        Call {
            caller: below_src(self.caller),
            callee: below_src(self.callee),
            function: self.function.to_owned(),
        }
    }
}

#[test]
fn each_thread_keeps_its_order() {
    let trace = "1 1 - src/a 1\n1 1 src/a src/b 2\n1 2 - src/python/wsgi/app.rs 3\n1 1 src/a src/c 4\n1 2 - src/d 5\n\
                 1 2 - src/e 6\n1 1 src/a src/f 7\n1 3 - src/g 8\n1 2 - src/h 9\n";
    let order: Vec<String> = in_order(trace)
        .into_iter()
        .map(|call| call.callee)
        .collect();
    assert_eq!(
        order,
        ["a", "b", "c", "python/wsgi/app.rs", "d", "e", "h", "f"]
    );
}
