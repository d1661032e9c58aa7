//! What hooks are handed: `arbiter`, `worker`, their `.cfg` and their `.log`.
//!
//! They are plain records with gunicorn's attribute names. Rust fills them in before a call; hooks
//! may hang attributes of their own on them, which last as long as the process.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::Hooks;
use crate::config::{Config, LogLevel, Value, WorkerClass};

/// The `arbiter` (or `server`) argument.
#[pyclass(
    dict,
    weakref,
    name = "Arbiter",
    module = "ferricorn",
    get_all,
    set_all
)]
#[derive(Debug)]
pub struct Arbiter {
    pub pid: u32,
    /// The pid of the arbiter that executed this one, else 0.
    pub master_pid: u32,
    pub proc_name: String,
    pub num_workers: usize,
    pub worker_age: u64,
    pub timeout: u64,
    pub address: Py<PyAny>,
    pub cfg: Py<PyAny>,
    pub log: Py<PyAny>,
    /// pid -> `Worker`
    #[pyo3(name = "WORKERS")]
    pub workers: Py<PyDict>,
    #[pyo3(name = "LISTENERS")]
    pub listeners: Py<PyList>,
}

impl Arbiter {
    /// An arbiter without workers or listeners; `cfg` is the object that [`cfg()`] makes.
    pub fn new(py: Python<'_>, config: &Config, cfg: Py<PyAny>) -> PyResult<Self> {
        Ok(Self {
            pid: std::process::id(),
            master_pid: 0,
            proc_name: config.proc_name.clone(),
            num_workers: config.workers,
            worker_age: 0,
            timeout: config.timeout.map_or(0, |timeout| timeout.as_secs()),
            address: cfg.getattr(py, "address")?,
            cfg,
            log: error_logger(py, config.loglevel)?,
            workers: PyDict::new(py).unbind(),
            listeners: PyList::empty(py).unbind(),
        })
    }
}

#[pymethods]
impl Arbiter {
    fn __repr__(&self) -> String {
        format!("<Arbiter {}>", self.pid)
    }
}

/// The `worker` argument.
#[pyclass(dict, weakref, name = "Worker", module = "ferricorn", get_all, set_all)]
#[derive(Debug)]
pub struct Worker {
    /// `"[booting]"` until the worker was forked, then its pid.
    pub pid: Py<PyAny>,
    pub age: u64,
    pub ppid: u32,
    pub timeout: u64,
    pub booted: bool,
    pub aborted: bool,
    pub alive: bool,
    /// Requests handled.
    pub nr: u64,
    pub max_requests: u64,
    pub sockets: Py<PyAny>,
    pub app: Py<PyAny>,
    /// The application, once loaded.
    pub wsgi: Py<PyAny>,
    pub tmp: Py<PyAny>,
    pub reloader: Py<PyAny>,
    pub cfg: Py<PyAny>,
    pub log: Py<PyAny>,
}

impl Worker {
    /// The worker numbered `age`, not forked yet.
    pub fn new(py: Python<'_>, config: &Config, cfg: Py<PyAny>, age: u64) -> PyResult<Self> {
        Ok(Self {
            pid: "[booting]".into_pyobject(py)?.into_any().unbind(),
            age,
            ppid: std::process::id(),
            timeout: config.timeout.map_or(0, |timeout| timeout.as_secs()) / 2,
            booted: false,
            aborted: false,
            alive: true,
            nr: 0,
            max_requests: if config.max_requests == 0 {
                u64::MAX
            } else {
                config.max_requests
            },
            sockets: PyList::empty(py).into_any().unbind(),
            app: py.None(),
            wsgi: py.None(),
            tmp: py.None(),
            reloader: py.None(),
            cfg,
            log: error_logger(py, config.loglevel)?,
        })
    }

    /// After the fork, in both processes.
    pub fn set_pid(&mut self, py: Python<'_>, pid: u32) -> PyResult<()> {
        self.pid = pid.into_pyobject(py)?.into_any().unbind();
        Ok(())
    }
}

#[pymethods]
impl Worker {
    fn __str__(&self, py: Python<'_>) -> String {
        format!("<Worker {}>", self.pid.bind(py))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        self.__str__(py)
    }
}

/// The `.cfg` of arbiter and worker: every setting of the table, plus what gunicorn derives.
#[pyclass(dict, name = "Config", module = "ferricorn")]
#[derive(Debug)]
struct Cfg;

/// Makes the `.cfg` object of a configuration.
pub fn cfg(py: Python<'_>, config: &Config, hooks: &Hooks) -> PyResult<Py<PyAny>> {
    let cfg = Bound::new(py, Cfg)?.into_any();
    for (setting, value, _) in config.resolved.iter() {
        let object = match (hooks.object(setting.name), setting.kind.is_hook()) {
            (Some(object), _) => object.clone_ref(py).into_bound(py),
            // gunicorn's own hooks do nothing, but they can be called.
            (None, true) => wrap_pyfunction!(nothing, py)?.into_any(),
            (None, false) => to_python(py, value)?,
        };
        cfg.setattr(setting.name, object)?;
    }
    let class = match config.worker_class {
        WorkerClass::Sync => "sync",
        WorkerClass::Gthread => "gthread",
    };
    cfg.setattr("worker_class_str", class)?;
    cfg.setattr("threads", config.threads)?;
    cfg.setattr("bind", &config.bind)?;
    cfg.setattr("address", addresses(py, &config.bind)?)?;
    cfg.setattr("uid", config.user)?;
    cfg.setattr("gid", config.group)?;
    cfg.setattr("proc_name", &config.proc_name)?;
    cfg.setattr("sendfile", config.sendfile)?;
    cfg.setattr("is_ssl", false)?;
    let env = PyDict::new(py);
    for (name, value) in &config.raw_env {
        env.set_item(name, value)?;
    }
    cfg.setattr("env", env)?;
    Ok(cfg.unbind())
}

#[pyfunction]
#[pyo3(signature = (*_arguments))]
fn nothing(_arguments: &Bound<'_, PyTuple>) {}

fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::None => py.None().into_bound(py),
        Value::Bool(on) => on.into_pyobject(py)?.to_owned().into_any(),
        Value::Int(number) => number.into_pyobject(py)?.into_any(),
        Value::Str(text) | Value::Opaque(text) => text.into_pyobject(py)?.into_any(),
        Value::List(items) => {
            let items = items.iter().map(|item| to_python(py, item));
            PyList::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any()
        }
        Value::Dict(pairs) => {
            let dict = PyDict::new(py);
            for (key, value) in pairs {
                dict.set_item(to_python(py, key)?, to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

/// `bind` as gunicorn parses it: `(host, port)`, a path, or a descriptor's number.
fn addresses<'py>(py: Python<'py>, bind: &[String]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for address in bind {
        if let Some(path) = address.strip_prefix("unix:") {
            list.append(path.strip_prefix("//").unwrap_or(path))?;
            continue;
        }
        if let Some(number) = address.strip_prefix("fd://") {
            list.append(number.parse::<i32>().unwrap_or(-1))?;
            continue;
        }
        let address = address.strip_prefix("tcp://").unwrap_or(address);
        let bracketed = address
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        let port: u16 = port.and_then(|port| port.parse().ok()).unwrap_or(8000);
        list.append((host.to_ascii_lowercase(), port))?;
    }
    Ok(list)
}

/// `logging.getLogger("gunicorn.error")`, whose lines go to the error log. It is what hooks get as
/// `.log`, and what applications borrow handlers and level from.
pub fn error_logger(py: Python<'_>, level: LogLevel) -> PyResult<Py<PyAny>> {
    let logging = py.import("logging")?;
    let logger = logging.call_method1("getLogger", ("gunicorn.error",))?;
    let level = match level {
        LogLevel::Debug => 10,
        LogLevel::Info => 20,
        LogLevel::Warning => 30,
        LogLevel::Error => 40,
        LogLevel::Critical => 50,
    };
    logger.call_method1("setLevel", (level,))?;
    let is_ours = HANDLER.get(py).is_some();
    if !is_ours {
        let handler = logging.call_method0("Handler")?;
        // An attribute of the instance hides the method, which saves a class made at run time.
        let emit = ErrorLog {
            handler: handler.clone().unbind(),
        };
        handler.setattr("emit", Bound::new(py, emit)?)?;
        logger.setattr("propagate", false)?;
        logger.call_method1(
            "addHandler",
            (HANDLER.get_or_init(py, || handler.unbind()),),
        )?;
    }
    Ok(logger.unbind())
}

static HANDLER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The `emit` of our logging handler: formats a record in Python, writes it through `log`.
#[pyclass(frozen)]
#[derive(Debug)]
struct ErrorLog {
    handler: Py<PyAny>,
}

#[pymethods]
impl ErrorLog {
    fn __call__(&self, record: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = record.py();
        let text: String = self
            .handler
            .call_method1(py, "format", (record,))?
            .extract(py)?;
        match record.getattr("levelno")?.extract::<i64>()? {
            50.. => log::error!(target: "critical", "{text}"),
            40.. => log::error!("{text}"),
            30.. => log::warn!("{text}"),
            20.. => log::info!("{text}"),
            _ => log::debug!("{text}"),
        }
        Ok(())
    }
}
