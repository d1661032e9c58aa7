//! Rows: Logging, Process Naming.

use super::row::{Default, Kind, Section, Setting, row};

const SECTION: Section = Section::Logging;
const SWITCH: Kind = Kind::Bool { cli: true };
const OFF: Default = Default::Bool(false);

const OF_FILES: &str = "Lines that the log does not take wait, and then are dropped and counted. \
     A file that exists keeps its owner; user and group get only a file that the server creates.";

pub(super) const ROWS: &[Setting] = &[
    row(
        "accesslog",
        SECTION,
        Kind::Text,
        Default::None,
        "Access log file; - is standard output.",
    )
    .flags(&["--access-logfile"])
    .differs(OF_FILES),
    row(
        "disable_redirect_access_to_syslog",
        SECTION,
        SWITCH,
        OFF,
        "Keep the access log out of syslog.",
    )
    .flags(&["--disable-redirect-access-to-syslog"]),
    row(
        "access_log_format",
        SECTION,
        Kind::Text,
        Default::Text(r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#),
        "Format of an access log line; json writes an object per line.",
    )
    .flags(&["--access-logformat"]),
    row(
        "access_log_fields",
        SECTION,
        Kind::TextsOrCommas,
        Default::None,
        "Fields of JSON access log lines; name=field renames a field.",
    )
    .flags(&["--access-log-fields"])
    .ours(),
    row(
        "access_log_exclude",
        SECTION,
        Kind::TextsOrCommas,
        Default::None,
        "Paths that are not logged in the access log; a * at the end matches any ending.",
    )
    .flags(&["--access-log-exclude"])
    .ours(),
    row(
        "access_log_min_status",
        SECTION,
        Kind::Int,
        Default::Int(0),
        "Log only requests with at least this status (or slow ones). 0: all.",
    )
    .flags(&["--access-log-min-status"])
    .ours(),
    row(
        "access_log_slow",
        SECTION,
        Kind::Seconds,
        Default::Int(0),
        "Log only requests that take at least this long, in seconds (or reach the status). 0: all.",
    )
    .flags(&["--access-log-slow"])
    .ours(),
    row(
        "errorlog",
        SECTION,
        Kind::Text,
        Default::Text("-"),
        "Error log file; - is standard error.",
    )
    .flags(&["--error-logfile", "--log-file"])
    .differs(OF_FILES),
    row(
        "loglevel",
        SECTION,
        Kind::Text,
        Default::Text("info"),
        "debug, info, warning, error or critical.",
    )
    .flags(&["--log-level"]),
    row(
        "capture_output",
        SECTION,
        SWITCH,
        OFF,
        "Send standard output and error to the error log.",
    )
    .flags(&["--capture-output"]),
    row(
        "logger_class",
        SECTION,
        Kind::Class,
        Default::Text("gunicorn.glogging.Logger"),
        "Python class that writes the logs.",
    )
    .flags(&["--logger-class"]),
    row(
        "logconfig",
        SECTION,
        Kind::Text,
        Default::None,
        "Logging config file of Python.",
    )
    .flags(&["--log-config"]),
    row(
        "logconfig_dict",
        SECTION,
        Kind::Mapping,
        Default::Pairs(&[]),
        "Logging config of Python, as a dict.",
    ),
    row(
        "logconfig_json",
        SECTION,
        Kind::Text,
        Default::None,
        "Logging config of Python, as a JSON file.",
    )
    .flags(&["--log-config-json"]),
    row(
        "syslog_addr",
        SECTION,
        Kind::Text,
        Default::Text("udp://localhost:514"),
        "Address of syslog.",
    )
    .flags(&["--log-syslog-to"]),
    row("syslog", SECTION, SWITCH, OFF, "Send the logs to syslog.").flags(&["--log-syslog"]),
    row(
        "syslog_prefix",
        SECTION,
        Kind::Text,
        Default::None,
        "Program name in syslog.",
    )
    .flags(&["--log-syslog-prefix"]),
    row(
        "syslog_facility",
        SECTION,
        Kind::Text,
        Default::Text("user"),
        "Facility in syslog.",
    )
    .flags(&["--log-syslog-facility"]),
    row(
        "enable_stdio_inheritance",
        SECTION,
        SWITCH,
        OFF,
        "Keep standard output and error with --daemon.",
    )
    .flags(&["-R", "--enable-stdio-inheritance"]),
    row(
        "statsd_host",
        SECTION,
        Kind::StatsdAddress,
        Default::None,
        "HOST:PORT or unix://PATH of statsd.",
    )
    .flags(&["--statsd-host"]),
    row(
        "dogstatsd_tags",
        SECTION,
        Kind::Text,
        Default::Text(""),
        "Tags for statsd.",
    )
    .flags(&["--dogstatsd-tags"]),
    row(
        "statsd_prefix",
        SECTION,
        Kind::Text,
        Default::Text(""),
        "Prefix for statsd.",
    )
    .flags(&["--statsd-prefix"]),
    row(
        "enable_backlog_metric",
        SECTION,
        SWITCH,
        OFF,
        "Send the number of connections waiting in the kernel.",
    )
    .flags(&["--enable-backlog-metric"]),
    row(
        "proc_name",
        Section::ProcessNaming,
        Kind::Text,
        Default::None,
        "Name of the processes; by default the application's.",
    )
    .flags(&["-n", "--name"]),
    row(
        "default_proc_name",
        Section::ProcessNaming,
        Kind::Text,
        Default::Text("ferricorn"),
        "Process name while there is neither proc_name nor an application.",
    ),
];
