//! Health on the main port (`health_path`): answered by the event loop, so that it is answered at once when all
//! threads are busy, and kept out of the access log and the counters.
//!
//! `<path>/live` says that the event loop runs. `<path>` and `<path>/ready` say that the server can serve: at least one
//! worker has booted and is not stopping, and not all queues are at their bound. Off by default; then a request passes
//! one branch.

use crate::config::Config;
use crate::http::{RequestHead, Status};
use crate::pool::Job;

use super::worker_slot::WorkerSlot;

/// The path, and when the server counts as ready.
#[derive(Debug)]
pub(super) struct Health {
    path: Vec<u8>,
    max_queue: usize,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Live,
    Ready,
}

impl Health {
    pub(super) fn new(config: &Config) -> Option<Self> {
        let path = config.control.health_path.as_ref()?;
        Some(Self {
            path: path.trim_end_matches('/').as_bytes().to_vec(),
            max_queue: config.workers.max_queue,
        })
    }

    /// Anything but GET and HEAD is the application's.
    pub(super) fn asked(&self, head: &RequestHead) -> Option<Question> {
        let rest = head.path().strip_prefix(self.path.as_slice())?;
        if !matches!(head.method(), b"GET" | b"HEAD") {
            return None;
        }
        match rest {
            b"" | b"/" | b"/ready" => Some(Question::Ready),
            b"/live" => Some(Question::Live),
            _ => None,
        }
    }

    /// Fill `job` with the answer.
    pub(super) fn answer(&self, job: &mut Job, question: Question, slot: &WorkerSlot) {
        let (status, text) = match question {
            Question::Live => (Status::OK, "alive\n".to_owned()),
            Question::Ready => match slot.scoreboard().readiness(self.max_queue) {
                Ok(()) => (Status::OK, "ready\n".to_owned()),
                Err(why) => (
                    Status::SERVICE_UNAVAILABLE,
                    format!("not ready: {}\n", why.reason()),
                ),
            },
        };
        job.socket = None;
        job.omit_access_line();
        let line = format!("{} {}", status.code, status.reason);
        // These are constants of this program, and valid.
        let _ = job.response.set_status(line.as_bytes());
        let _ = job.response.push(b"Content-Type", b"text/plain");
        let _ = job.response.push(b"Cache-Control", b"no-store");
        job.response_body.bytes.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadScan, Limits, parse_head};

    fn asked(path: &str, line: &str) -> Option<Question> {
        let mut config = Config::default();
        config.control.health_path = Some(path.to_owned());
        let mut head = RequestHead::default();
        let text = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
        let limits = Limits::new(4094, 100, 8190, 0);
        let mut scan = HeadScan::default();
        parse_head(text.as_bytes(), &mut scan, &limits, &mut head).unwrap();
        Health::new(&config).unwrap().asked(&head)
    }

    #[test]
    fn the_path_and_the_two_beneath_it_are_questions() {
        for (line, question) in [
            ("GET /-/health", Some(Question::Ready)),
            ("GET /-/health/", Some(Question::Ready)),
            ("HEAD /-/health?from=lb", Some(Question::Ready)),
            ("GET /-/health/ready", Some(Question::Ready)),
            ("GET /-/health/live", Some(Question::Live)),
            ("POST /-/health", None),
            ("GET /-/healthy", None),
            ("GET /-/health/other", None),
            ("GET /", None),
        ] {
            assert_eq!(asked("/-/health", line), question, "{line}");
        }
        assert_eq!(asked("/", "GET /"), Some(Question::Ready));
        assert_eq!(asked("/", "GET /live"), Some(Question::Live));
        assert_eq!(asked("/", "GET /other"), None);
    }
}
