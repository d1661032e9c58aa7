//! Rows: Config File, Server Socket.

use super::row::{Default, Kind, Section, Setting, row};
use crate::config::value::Value;

pub(super) const ROWS: &[Setting] = &[
    row(
        "config",
        Section::ConfigFile,
        Kind::Text,
        Default::Text("./gunicorn.conf.py"),
        "Config file: PATH, file:PATH or python:MODULE. Default: \
         ./ferricorn.conf.py or ./gunicorn.conf.py, if one exists.",
    )
    .flags(&["-c", "--config"]),
    row(
        "wsgi_app",
        Section::ConfigFile,
        Kind::Text,
        Default::None,
        "The application, if the command line names none: MODULE[:VARIABLE] or MODULE:FACTORY(..).",
    ),
    row(
        "bind",
        Section::ServerSocket,
        Kind::Texts,
        Default::Texts(&["127.0.0.1:8000"]),
        "HOST[:PORT], unix:PATH or fd://N to listen on. Repeatable.",
    )
    .flags(&["-b", "--bind"])
    .env("PORT", |port| {
        Value::List(vec![Value::Str(format!("0.0.0.0:{port}"))])
    }),
    row(
        "backlog",
        Section::ServerSocket,
        Kind::Int,
        Default::Int(2048),
        "Connections that may wait in the kernel until a worker accepts them.",
    )
    .flags(&["--backlog"]),
];
