//! A worker on a free port with a closure as its application, and a client that speaks raw bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ferricorn::config::Config;
use ferricorn::net::{self, BindAddress, BindOptions, Listener};
use ferricorn::pool::{Application, Job, Pool, PoolThread, Reply, ThreadStartError};
use ferricorn::scoreboard::Scoreboard;
use ferricorn::tls::Certificates;
use ferricorn::worker::{self, AccessLog, Exit, Setup};

/// Nothing in these tests waits longer than this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A closure as application. It gets each job with the thread that runs it, and must answer it.
pub(crate) struct Closure<F>(pub(crate) Arc<F>);

impl<F: Fn(&PoolThread, Box<Job>) + Send + Sync + 'static> Application for Closure<F> {
    fn start_threads(&self, pool: &Arc<Pool>) -> Result<(), ThreadStartError> {
        for _ in 0..pool.thread_count() {
            let (thread, run) = (PoolThread::register(pool), self.0.clone());
            std::thread::spawn(move || {
                while let Some(job) = thread.next_job(|sleep| sleep()) {
                    run(&thread, job);
                }
            });
        }
        Ok(())
    }
}

/// Answer `job` whole.
pub(crate) fn answer(thread: &PoolThread, mut job: Box<Job>, body: &[u8]) {
    job.response.set_status(b"200 OK").expect("a plain status");
    job.response
        .push(b"Content-Type", b"text/plain")
        .expect("a plain header");
    job.response_body.bytes.extend_from_slice(body);
    thread.pool().send(Reply::Whole(job));
}

/// Answer with the method, the target and the body of the request.
pub(crate) fn echo(thread: &PoolThread, mut job: Box<Job>) {
    let mut body = [job.head.method(), b" ", job.head.target(), b" "].concat();
    match std::mem::take(&mut job.body) {
        ferricorn::pool::RequestBody::Empty => {}
        ferricorn::pool::RequestBody::Memory(bytes) => body.extend_from_slice(&bytes),
        ferricorn::pool::RequestBody::Streaming(stream) => {
            while stream.take(&mut body, None).expect("a whole body") {}
        }
        ferricorn::pool::RequestBody::File { file, .. } => {
            let mut file = file.file();
            file.read_to_end(&mut body).expect("the spool can be read");
        }
    }
    answer(thread, job, &body);
}

/// A running worker.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    signals: UnixStream,
    thread: Option<JoinHandle<Exit>>,
    pub(crate) log: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    /// Start with changed settings.
    pub(crate) fn start<F>(change: impl FnOnce(&mut Config), run: F) -> Self
    where
        F: Fn(&PoolThread, Box<Job>) + Send + Sync + 'static,
    {
        Self::start_logging("%(m)s %(U)s %(s)s %(B)s", change, run)
    }

    /// Start with changed settings and another access log.
    pub(crate) fn start_logging<F>(
        access_log_format: &str,
        change: impl FnOnce(&mut Config),
        run: F,
    ) -> Self
    where
        F: Fn(&PoolThread, Box<Job>) + Send + Sync + 'static,
    {
        Self::start_speaking(None, access_log_format, change, run)
    }

    /// Start a worker that speaks TLS.
    pub(crate) fn start_tls<F>(
        certificates: Arc<Certificates>,
        change: impl FnOnce(&mut Config),
        run: F,
    ) -> Self
    where
        F: Fn(&PoolThread, Box<Job>) + Send + Sync + 'static,
    {
        Self::start_speaking(Some(certificates), "%(m)s %(U)s %(s)s %(B)s", change, run)
    }

    fn start_speaking<F>(
        certificates: Option<Arc<Certificates>>,
        access_log_format: &str,
        change: impl FnOnce(&mut Config),
        run: F,
    ) -> Self
    where
        F: Fn(&PoolThread, Box<Job>) + Send + Sync + 'static,
    {
        let mut config = Config::default();
        config.workers.threads = 2;
        change(&mut config);
        // As the arbiter binds: the options of the listener are those of its connections.
        let any_port = BindAddress::parse("127.0.0.1:0").expect("an address");
        let bound = net::bind_all(&[any_port], &BindOptions::default(), |_| false);
        let listener = bound.expect("a free port").remove(0).listener;
        let Listener::Tcp(tcp) = &listener else {
            unreachable!("a TCP address gives a TCP listener")
        };
        let address = tcp.local_addr().expect("a bound listener has an address");
        let (signals, signals_in) = UnixStream::pair().expect("a socket pair");
        signals_in
            .set_nonblocking(true)
            .expect("a socket can be non-blocking");
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        let format =
            ferricorn::logging::access::AccessFormat::compile(access_log_format).expect("a format");
        let scoreboard = Arc::new(Scoreboard::new(1, config.workers.threads).expect("memory"));
        let setup = Setup {
            listeners: vec![listener],
            config: Arc::new(config),
            scoreboard,
            slot: 0,
            signals: Some(OwnedFd::from(signals_in)),
            interrupts: None,
            booted: None,
            parent: None,
            max_requests: None,
            certificates,
            channels: None,
            server: b"ferricorn-test".to_vec(),
            script_name: Vec::new(),
            metrics: None,
            log: None,
            access_log: Some(AccessLog::new(
                format,
                Box::new(move |lines| {
                    sink.lock()
                        .expect("no test panics with it")
                        .extend_from_slice(lines)
                }),
            )),
        };
        let application = Closure(Arc::new(run));
        let thread = std::thread::spawn(move || {
            worker::run(setup, Arc::new(application)).expect("the worker runs")
        });
        Self {
            address,
            signals,
            thread: Some(thread),
            log,
        }
    }

    /// Send the worker a signal by its number.
    pub(crate) fn signal(&self, number: i32) {
        (&self.signals)
            .write_all(&[u8::try_from(number).expect("signals are small")])
            .expect("the worker listens");
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the worker accepts");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a timeout can be set");
        Client {
            stream,
            read: Vec::new(),
        }
    }

    /// Wait for the end.
    pub(crate) fn join(mut self) -> Exit {
        self.thread
            .take()
            .expect("a server is joined once")
            .join()
            .expect("the worker does not panic")
    }

    /// The access log so far, when it has at least `count` lines.
    pub(crate) fn log_lines(&self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        eventually(|| {
            let log = self.log.lock().expect("no test panics with it");
            lines = String::from_utf8_lossy(&log)
                .lines()
                .map(str::to_owned)
                .collect();
            lines.len() >= count
        });
        lines
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.signal(3);
            // A worker that panicked has said so; the test fails for its own reason.
            let _ = thread.join();
        }
    }
}

/// Wait until `fact` holds; fail when it does not in time.
pub(crate) fn eventually(mut fact: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !fact() {
        assert!(Instant::now() < end, "it never became true");
        std::thread::yield_now();
    }
}

/// A client that sends exactly the bytes that a test names.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head[9..12]
            .parse()
            .expect("a status line has a number")
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.head
            .lines()
            .any(|line| line.eq_ignore_ascii_case(field))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the worker reads");
        self
    }

    /// Read one response with a Content-Length or chunks.
    pub(crate) fn response(&mut self) -> Response {
        let end = loop {
            if let Some(at) = self
                .read
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break at + 4;
            }
            assert!(
                self.fill(),
                "the connection closed in a head: {:?}",
                String::from_utf8_lossy(&self.read)
            );
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).expect("heads are text");
        let lower = head.to_ascii_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
        let body = if lower.contains("transfer-encoding: chunked") {
            self.chunks()
        } else {
            self.take(length.map_or(0, |length| length.parse().expect("a length is a number")))
        };
        Response { head, body }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).expect("a chunk size");
            body.extend(self.take(size));
            assert_eq!(self.line(), "");
            if size == 0 {
                return body;
            }
        }
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.read.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..at + 2).collect();
                return String::from_utf8_lossy(&line[..at]).into_owned();
            }
            assert!(self.fill(), "the connection closed in a line");
        }
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        while self.read.len() < len {
            assert!(
                self.fill(),
                "the connection closed in a body: {} of {len}",
                self.read.len()
            );
        }
        self.read.drain(..len).collect()
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 65536];
        let len = self
            .stream
            .read(&mut buffer)
            .expect("bytes or an end within the deadline");
        self.read.extend_from_slice(&buffer[..len]);
        len > 0
    }

    /// Everything until the server closes.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        while self.fill() {}
        self.read
    }

    /// Whether the server resets the connection, after whatever bytes.
    pub(crate) fn ends_in_reset(mut self) -> bool {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Whether the server closes without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.read.is_empty() && matches!(self.stream.read(&mut [0; 1]), Ok(0))
    }
}
