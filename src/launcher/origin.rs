//! Where the settings and the application come from: a command line, or a program that brings its own server along.
//!
//! Kept for the life of the arbiter, because a reload reads everything again and must see what the start saw.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;

use super::config_check;
use super::ending::{Ending, print};
use super::greenlets;
use crate::config::{self, CliOutcome, Config, Environment, RawSettings};
use crate::python::config_file;
use crate::python::hooks::Hooks;
use crate::python::loader::{self, AppLoadError};
use crate::python::ssl_context;
use crate::python::worker_class;

/// What the operator asked for, read and checked.
pub(super) struct Settings {
    pub(super) config: Arc<Config>,
    pub(super) hooks: Hooks,
    /// Hints at what looks like mistyped names in the config file.
    pub(super) hints: Vec<String>,
}

pub(super) struct Sources {
    pub(super) origin: Origin,
    pub(super) environment: Environment,
    pub(super) start_directory: PathBuf,
}

pub(super) enum Origin {
    CommandLine(Vec<OsString>),
    /// A `BaseApplication`: it has a `cfg`, loads the application by `wsgi()` and its settings anew by `reload()`.
    Application(Py<PyAny>),
}

impl Sources {
    /// Reads all sources. Must be called in the start directory.
    pub(super) fn read(&self, py: Python<'_>) -> Result<Settings, Ending> {
        let (mut raw, mut hooks) = match &self.origin {
            Origin::CommandLine(argv) => self.of_command_line(py, argv)?,
            Origin::Application(application) => self.of_application(application.bind(py))?,
        };
        worker_class::resolve(py, &mut raw, &mut hooks)
            .map_err(|error| Ending::raised(py, &error))?;
        let hints = raw.warnings().to_vec();
        let load_app = |config: &Config| self.load_app(py, config);
        let refused = |mistakes| config_check::refused(py, &mistakes, load_app);
        let mut config = config_check::validated(raw).map_err(refused)?;
        ssl_context::apply(py, &mut config, &hooks).map_err(|error| Ending::raised(py, &error))?;
        let config = config_check::with_tls(config).map_err(refused)?;
        greenlets::check(py, &config)?;
        Ok(Settings {
            config: Arc::new(config),
            hooks,
            hints,
        })
    }

    /// As [`Self::read`], some time after the start.
    pub(super) fn read_again(&self, py: Python<'_>) -> Result<Settings, Ending> {
        if let Origin::Application(application) = &self.origin {
            // It writes to the standard error what is wrong, and wants to exit.
            application
                .call_method0(py, "reload")
                .map_err(|error| Ending::raised(py, &error))?;
        }
        self.read(py)
    }

    fn of_command_line(
        &self,
        py: Python<'_>,
        argv: &[OsString],
    ) -> Result<(RawSettings, Hooks), Ending> {
        let given = match config::cli::parse_all(argv, &self.environment) {
            CliOutcome::Run(given) => given,
            CliOutcome::Exit {
                code,
                stdout,
                stderr,
            } => {
                print(&stdout);
                let message = (!stderr.is_empty()).then_some(stderr);
                return Err(Ending { code, message });
            }
        };
        let location = given
            .config_location()
            .map(str::to_owned)
            .or_else(|| config_file::default_location().map(|path| path.display().to_string()));
        let (file, hooks) = match location {
            Some(location) => config_file::load(py, &location).map_err(Ending::refused)?,
            None => (RawSettings::default(), Hooks::default()),
        };
        Ok((config::combine([given, file]), hooks))
    }

    fn of_application(
        &self,
        application: &Bound<'_, PyAny>,
    ) -> Result<(RawSettings, Hooks), Ending> {
        let py = application.py();
        let cfg = application.getattr("cfg");
        let cfg = cfg.map_err(|error| Ending::raised(py, &error))?;
        let (given, hooks) = config_file::of_application(&cfg).map_err(Ending::refused)?;
        let mut raw = config::combine([self.environment.settings(), given]);
        let name = application.get_type().name();
        raw.set_app(name.map_or_else(|_| "application".to_owned(), |name| name.to_string()));
        Ok((raw, hooks))
    }

    pub(super) fn load_app(
        &self,
        py: Python<'_>,
        config: &Config,
    ) -> Result<Py<PyAny>, AppLoadError> {
        match &self.origin {
            Origin::CommandLine(_) => {
                loader::load_app(py, config.app.wsgi_app.as_deref().unwrap_or_default())
            }
            Origin::Application(application) => loader::load_embedded(application.bind(py)),
        }
    }

    /// The object of the program's own, if there is one.
    pub(super) fn application(&self) -> Option<&Py<PyAny>> {
        match &self.origin {
            Origin::CommandLine(_) => None,
            Origin::Application(application) => Some(application),
        }
    }
}
