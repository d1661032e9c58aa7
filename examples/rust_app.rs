//! A worker that serves a closure in Rust: the event loop needs no Python, and neither does this program.
//!
//! `cargo run --release --no-default-features --example rust_app`, then `curl http://127.0.0.1:8000/`; Ctrl-C ends it.

use std::io;
use std::sync::Arc;

use ferricorn::config::Config;
use ferricorn::net::{self, BindAddress, BindOptions, Listener};
use ferricorn::pool::{Application, Job, Pool, PoolThread, Reply, ThreadStartError};
use ferricorn::scoreboard::Scoreboard;
use ferricorn::worker::{self, Setup};

/// The application: what it does with a request.
struct Hello;

impl Hello {
    /// Fill in the response of one request.
    fn answer(job: &mut Job) {
        let greeting = format!(
            "Hello from Rust: {} {}\n",
            job.head.method().escape_ascii(),
            job.head.path().escape_ascii()
        );
        let filled = job.response.set_status(b"200 OK").and_then(|()| {
            job.response
                .push(b"Content-Type", b"text/plain; charset=utf-8")
        });
        if let Err(error) = filled {
            // An unset status is a 500; these two are literals, so this cannot be seen.
            eprintln!("invalid response: {error}");
        }
        job.response_body
            .bytes
            .extend_from_slice(greeting.as_bytes());
    }
}

impl Application for Hello {
    fn start_threads(&self, pool: &Arc<Pool>) -> Result<(), ThreadStartError> {
        for number in 0..pool.thread_count() {
            let thread = PoolThread::register(pool);
            std::thread::Builder::new()
                .name(format!("pool-{number}"))
                .spawn(move || {
                    // There is no interpreter to give away while a thread sleeps.
                    while let Some(mut job) = thread.next_job(|sleep| sleep()) {
                        Self::answer(&mut job);
                        thread.pool().send(Reply::Whole(job));
                    }
                })
                .map_err(|error| ThreadStartError(error.into()))?;
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let mut config = Config::default();
    config.workers.threads = 4;
    let address = BindAddress::parse("127.0.0.1:8000").map_err(io::Error::other)?;
    let bound = net::bind_all(&[address], &BindOptions::default(), |_| false);
    let listeners: Vec<Listener> = bound
        .map_err(io::Error::other)?
        .into_iter()
        .map(|bound| bound.listener)
        .collect();
    eprintln!("Listening at: {}", net::describe(&listeners));
    let setup = Setup {
        listeners,
        scoreboard: Arc::new(Scoreboard::new(1, config.workers.threads)?),
        slot: 0,
        config: Arc::new(config),
        signals: None,
        interrupts: None,
        booted: None,
        parent: None,
        max_requests: None,
        certificates: None,
        metrics: None,
        log: None,
        channels: None,
        server: b"rust_app".to_vec(),
        script_name: Vec::new(),
        access_log: None,
    };
    let exit = worker::run(setup, Arc::new(Hello))?;
    std::process::exit(exit.code)
}
