//! One pool thread's work: take a job, call the application, send its response, close its result.
//!
//! Runs on the pool threads, attached to the interpreter. The job's reply is sent exactly once, whatever the application
//! does. Its result's `close()` is called exactly once, on this thread.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::http::{Version, client_request_id, made_request_id};
use crate::pool::{AccessLine, Job, PoolThread, Reply};
use crate::python::fork_guard::end_child;
use crate::python::gil::{Reason, release};
use crate::python::hooks::HookError;
use crate::python::interrupts::{Interrupts, RequestTimeout};
use crate::python::text::latin1;
use crate::scoreboard::{Scoreboard, Slot, monotonic_ms};

use super::body::{self, Sent};
use super::environ::EnvironMaker;
use super::hijack::HijackableSocket;
use super::http2_environ;
use super::late_logging::LateLogging;
use super::noted_keys::note;
use super::request_hooks::{HookedRequest, RequestHooks};
use super::scoreboard_clock::ScoreboardClock;
use super::start_response::StartResponse;
use super::wsgi_settings::WsgiSettings;

mod failure;

use failure::{end_hijacked, end_sent, fail, has_failed_on_its_socket, log_failure, named};

/// The application and what its threads share.
#[derive(Debug)]
pub struct WsgiApp {
    /// The WSGI callable.
    callable: Py<PyAny>,
    settings: Arc<WsgiSettings>,
    /// Where threads record what they run, and the worker's slot there.
    scoreboard: Arc<Scoreboard>,
    slot: usize,
    request_hooks: Option<RequestHooks>,
    late: LateLogging,
    logger: Option<Py<PyAny>>,
    interrupts: Option<Arc<Interrupts>>,
}

/// A request whose application is about to be called.
struct Begun<'a, 'py> {
    environ: Bound<'py, PyDict>,
    start: Bound<'py, StartResponse>,
    job: Box<Job>,
    hijackable: Option<HijackableSocket<'py>>,
    hooked: Option<HookedRequest<'a, 'py>>,
}

impl WsgiApp {
    /// `slot` is the worker's on the scoreboard.
    pub fn new(
        callable: Py<PyAny>,
        settings: Arc<WsgiSettings>,
        scoreboard: Arc<Scoreboard>,
        slot: usize,
    ) -> Self {
        Self {
            callable,
            settings,
            scoreboard,
            slot,
            request_hooks: None,
            late: LateLogging::default(),
            logger: None,
            interrupts: None,
        }
    }

    /// The operator's code that sees each request.
    #[must_use]
    pub fn with_request_hooks(mut self, hooks: Option<RequestHooks>) -> Self {
        self.request_hooks = hooks;
        self
    }

    /// What may come while requests run.
    pub fn late_logging(&self) -> &LateLogging {
        &self.late
    }

    /// The custom logger, which is given exceptions as such.
    #[must_use]
    pub fn with_logger(mut self, logger: Option<Py<PyAny>>) -> Self {
        self.logger = logger;
        self
    }

    /// What ends requests that run too long (`request_timeout`).
    #[must_use]
    pub fn with_interrupts(mut self, interrupts: Option<Arc<Interrupts>>) -> Self {
        self.interrupts = interrupts;
        self
    }

    /// `SCRIPT_NAME` of every request, from the environment.
    #[must_use]
    pub fn script_name(&self) -> &str {
        &self.settings.script_name
    }

    fn logger(&self) -> Option<&Py<PyAny>> {
        self.late.logger().or(self.logger.as_ref())
    }

    fn slot(&self) -> Slot<'_> {
        self.scoreboard.slot(self.slot)
    }

    /// The life of a pool thread: run jobs until there are no more. `rest` is called each time that there is none.
    ///
    /// # Errors
    /// The interpreter had no memory for what a thread needs.
    pub fn run_thread(&self, py: Python<'_>, thread: &PoolThread, rest: impl Fn()) -> PyResult<()> {
        let mut environs = self.environs(py)?;
        let clock = ScoreboardClock::new();
        if let Some(interrupts) = &self.interrupts {
            interrupts.enter(py, thread.index())?;
        }
        let idle = |park: &(dyn Fn() + Sync)| {
            if !self.settings.multithread {
                // No other heartbeat comes while the only thread runs requests; each begins with one.
                self.slot().python_heartbeat(monotonic_ms());
            }
            rest();
            release(py, Reason::NextJob, park);
        };
        while let Some(mut job) = thread.next_job(idle) {
            self.begin(thread, &job, clock);
            let environ = environs.make(py, &mut job);
            self.run_job(py, environ, thread, job);
            self.end(py, thread);
        }
        Ok(())
    }

    pub(super) fn environs(&self, py: Python<'_>) -> PyResult<Box<EnvironMaker>> {
        EnvironMaker::new(py, self.settings.clone()).map(Box::new)
    }

    pub(super) fn begin(&self, thread: &PoolThread, job: &Job, clock: ScoreboardClock) {
        if let Some(interrupts) = &self.interrupts {
            interrupts.begin(thread.index(), thread.token());
        }
        let now_ms = clock.at(job.started);
        let slot = self.slot();
        slot.python_heartbeat(now_ms);
        slot.thread_busy();
        slot.queue_time()
            .record(job.started.saturating_duration_since(job.arrived));
        slot.thread(thread.index()).begin(
            now_ms,
            job.peer.ip(),
            job.head.method(),
            job.head.path(),
        );
    }

    pub(super) fn end(&self, py: Python<'_>, thread: &PoolThread) {
        if let Some(interrupts) = &self.interrupts {
            interrupts.end(py, thread.index());
        }
        let slot = self.slot();
        slot.thread(thread.index()).end();
        slot.thread_idle();
    }

    /// Run a job to its end. Of a greenlet that waits in the application this frame is kept as a part of its C stack, so
    /// what comes before and after the call has frames of its own.
    pub(super) fn run_job(
        &self,
        py: Python<'_>,
        environ: PyResult<Bound<'_, PyDict>>,
        thread: &PoolThread,
        job: Box<Job>,
    ) {
        if let Some(begun) = self.prepare(py, environ, thread, job) {
            let called = self.callable.bind(py).call1((&begun.environ, &begun.start));
            self.conclude(called, begun, thread);
        }
    }

    /// What comes before the application is called. `None`: it is not called, and the reply is sent.
    #[inline(never)]
    fn prepare<'py>(
        &self,
        py: Python<'py>,
        environ: PyResult<Bound<'py, PyDict>>,
        thread: &PoolThread,
        mut job: Box<Job>,
    ) -> Option<Begun<'_, 'py>> {
        let failed = |job, error: &PyErr| {
            fail(py, self.logger(), thread, Some(job), error);
            None
        };
        let environ = match environ {
            Ok(environ) => environ,
            Err(error) => return failed(job, &error),
        };
        let hooks = self.late.hooks().or(self.request_hooks.as_ref());
        let hooked = match hooks.map(|hooks| hooks.begin(&environ, &job)).transpose() {
            Ok(None) => None,
            Ok(Some(mut hooked)) => match hooked.pre_request() {
                Ok(()) => {
                    if hooks.is_some_and(RequestHooks::logs_access) {
                        job.access_line = AccessLine::FromThread;
                    }
                    Some(hooked)
                }
                Err(error) => {
                    refuse(thread, job, &hooked, &error);
                    return None;
                }
            },
            Err(error) => return failed(job, &error),
        };
        let response = std::mem::take(&mut job.response);
        let start = StartResponse::new(job.conn, thread.pool().clone(), response, hooked.is_some());
        let start = match Bound::new(py, start) {
            Ok(start) => start,
            Err(error) => return failed(job, &error),
        };
        let named = self.name_request(&environ, &job);
        match named.and_then(|()| complete(&environ, &start, thread, &mut job)) {
            Ok(hijackable) => Some(Begun {
                environ,
                start,
                job,
                hijackable,
                hooked,
            }),
            Err(error) => failed(job, &error),
        }
    }

    /// What comes after the application's call.
    #[inline(never)]
    fn conclude<'py>(
        &self,
        called: PyResult<Bound<'py, PyAny>>,
        begun: Begun<'_, 'py>,
        thread: &PoolThread,
    ) {
        let Begun {
            environ,
            start,
            mut job,
            hijackable,
            hooked,
        } = begun;
        let py = environ.py();
        end_child(py, called.as_ref().err());
        if !self.settings.noted_keys.is_empty() {
            job.noted = note(&environ, &self.settings.noted_keys);
        }
        let has_failed = hijackable.is_some() && has_failed_on_its_socket(&called, &start);
        match called {
            Ok(result) => self.answer(&result, &start, &environ, thread, job, hooked.as_ref()),
            Err(error) => {
                start.get().flush_spool(py);
                if start.get().is_hijacked() {
                    end_hijacked(py, self.logger(), thread, job, &error);
                } else {
                    fail(py, self.logger(), thread, Some(job), &error);
                }
                // A request that timed out was answered, and its line written, long ago.
                if let Some(hooked) = &hooked
                    && !error.is_instance_of::<RequestTimeout>(py)
                {
                    hooked.log_access(start.get());
                }
                start.get().finish(py);
            }
        }
        if let Some(socket) = hijackable {
            socket.withdraw(has_failed);
        }
        if let Some(hooked) = &hooked {
            hooked.post_request(Some(start.get()));
        }
    }

    /// Sets the id that the access log will show.
    fn name_request(&self, environ: &Bound<'_, PyDict>, job: &Job) -> PyResult<()> {
        let Some(seed) = self.settings.request_id_seed else {
            return Ok(());
        };
        let py = environ.py();
        let made = made_request_id(seed, job.serial);
        let id = client_request_id(&job.head).unwrap_or(&made);
        environ.set_item(intern!(py, "ferricorn.request_id"), latin1(py, id)?)
    }

    /// Send the application's result and close it.
    fn answer(
        &self,
        result: &Bound<'_, PyAny>,
        start: &Bound<'_, StartResponse>,
        environ: &Bound<'_, PyDict>,
        thread: &PoolThread,
        job: Box<Job>,
        hooked: Option<&HookedRequest<'_, '_>>,
    ) {
        let py = result.py();
        let sent = body::send(
            result,
            start,
            environ,
            job,
            thread.pool(),
            self.settings.sendfile,
        );
        if let Some(hooked) = hooked {
            hooked.log_access(start.get());
        }
        end_child(py, None);
        let closed = close(result);
        end_child(py, closed.as_ref().err());
        // A response that was sent whole is over since then.
        if !matches!(sent, Sent::Whole) {
            start.get().finish(py);
        }
        match (sent, closed) {
            // The application has answered on the client's socket itself.
            (Sent::Streamed(job) | Sent::Gone(job), Ok(())) if start.get().is_hijacked() => {
                thread.pool().send(Reply::End(job));
            }
            (Sent::Failed(Some(job), error), _) if start.get().is_hijacked() => {
                end_hijacked(py, self.logger(), thread, job, &error);
            }
            (Sent::Whole, Ok(())) => {}
            (Sent::Whole, Err(error)) => log_failure(py, self.logger(), None, &error),
            (Sent::Streamed(job), Ok(())) => thread.pool().send(Reply::End(job)),
            (Sent::Streamed(job), Err(error)) => end_sent(py, self.logger(), thread, job, &error),
            // The connection is gone, so the loop only takes note.
            (Sent::Gone(job), closed) => {
                if let Err(error) = closed {
                    log_failure(py, self.logger(), Some(&job), &error);
                }
                thread.pool().send(Reply::Abort(job));
            }
            (Sent::Failed(job, error), closed) => {
                fail(py, self.logger(), thread, job, &error);
                if let Err(error) = closed {
                    log_failure(py, self.logger(), None, &error);
                }
            }
        }
    }
}

/// What the environ has beside the request: the callables that belong to its response, and the socket that it may take.
fn complete<'py>(
    environ: &Bound<'py, PyDict>,
    start: &Bound<'py, StartResponse>,
    thread: &PoolThread,
    job: &mut Job,
) -> PyResult<Option<HijackableSocket<'py>>> {
    let py = environ.py();
    if job.head.version() == Version::HTTP_2 {
        http2_environ::add(environ, job, thread.pool())?;
    }
    environ.set_item(intern!(py, "wsgi.early_hints"), start)?;
    environ.set_item(intern!(py, "ferricorn.client_disconnected"), start)?;
    match job.socket.take() {
        Some(socket) => HijackableSocket::offer(environ, start, socket).map(Some),
        None => Ok(None),
    }
}

/// PEP 3333: "If the iterable returned by the application has a close() method, the server or gateway must call
/// that method upon completion of the current request".
fn close(result: &Bound<'_, PyAny>) -> PyResult<()> {
    if result.is_exact_instance_of::<pyo3::types::PyList>()
        || result.is_exact_instance_of::<pyo3::types::PyTuple>()
    {
        return Ok(());
    }
    if let Some(close) = result.getattr_opt(pyo3::intern!(result.py(), "close"))? {
        close.call0()?;
    }
    Ok(())
}

/// `pre_request` raised: the request fails before the application has seen it.
fn refuse(thread: &PoolThread, job: Box<Job>, hooked: &HookedRequest<'_, '_>, error: &HookError) {
    log::error!("Error handling request {}\n{error}", named(&job));
    thread.pool().send(Reply::Abort(job));
    hooked.post_request(None);
}
