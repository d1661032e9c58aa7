//! Rows: Server Mechanics.

use super::row::{Default, Kind, Section, Setting, row};
use crate::config::value::Value;

const SECTION: Section = Section::ServerMechanics;
const OFF: Default = Default::Bool(false);
const SWITCH: Kind = Kind::Bool { cli: true };
const PASTE: &str = "PasteDeploy files are not read: name a WSGI application, MODULE:VARIABLE";
const LOCAL: Default = Default::Text("127.0.0.1,::1");

pub(super) const ROWS: &[Setting] = &[
    row(
        "preload_app",
        SECTION,
        SWITCH,
        OFF,
        "Import the application once, before the workers are forked.",
    )
    .flags(&["--preload"]),
    row(
        "sendfile",
        SECTION,
        Kind::Bool { cli: false },
        Default::None,
        "Do not use sendfile for responses that are files.",
    )
    .flags(&["--no-sendfile"])
    .env("SENDFILE", |text| {
        let yes = ["y", "1", "yes", "true"];
        Value::Bool(yes.contains(&text.to_ascii_lowercase().as_str()))
    }),
    row(
        "reuse_port",
        SECTION,
        SWITCH,
        OFF,
        "Bind one SO_REUSEPORT socket per worker.",
    )
    .flags(&["--reuse-port"]),
    row(
        "chdir",
        SECTION,
        Kind::Directory,
        Default::StartDirectory,
        "Directory to change to before the application is imported.",
    )
    .flags(&["--chdir"]),
    row("daemon", SECTION, SWITCH, OFF, "Detach from the terminal.").flags(&["-D", "--daemon"]),
    row(
        "raw_env",
        SECTION,
        Kind::Texts,
        Default::Texts(&[]),
        "KEY=VALUE for the application's environment. Repeatable.",
    )
    .flags(&["-e", "--env"]),
    row(
        "pidfile",
        SECTION,
        Kind::Text,
        Default::None,
        "File for the process id.",
    )
    .flags(&["-p", "--pid"]),
    row(
        "worker_tmp_dir",
        SECTION,
        Kind::Text,
        Default::None,
        "Directory for large request bodies.",
    )
    .flags(&["--worker-tmp-dir"])
    .differs("It holds large request bodies. There is no heartbeat file."),
    row(
        "user",
        SECTION,
        Kind::User,
        Default::None,
        "User the workers run as.",
    )
    .flags(&["-u", "--user"]),
    row(
        "group",
        SECTION,
        Kind::Group,
        Default::None,
        "Group the workers run as.",
    )
    .flags(&["-g", "--group"]),
    row(
        "umask",
        SECTION,
        Kind::OctalInt,
        Default::Int(0),
        "Mode bits withheld from unix sockets and files.",
    )
    .flags(&["-m", "--umask"]),
    row(
        "initgroups",
        SECTION,
        SWITCH,
        OFF,
        "Give workers all groups of --user.",
    )
    .flags(&["--initgroups"]),
    row(
        "tmp_upload_dir",
        SECTION,
        Kind::Text,
        Default::None,
        "Not used, as in gunicorn.",
    )
    .no_effect("gunicorn does not use it either; see worker_tmp_dir"),
    row(
        "secure_scheme_headers",
        SECTION,
        Kind::Mapping,
        Default::Pairs(&[
            ("X-FORWARDED-PROTOCOL", "ssl"),
            ("X-FORWARDED-PROTO", "https"),
            ("X-FORWARDED-SSL", "on"),
        ]),
        "Headers and values with which a trusted proxy reports https.",
    ),
    row(
        "forwarded_allow_ips",
        SECTION,
        Kind::Addresses,
        LOCAL,
        "Proxies whose scheme headers are trusted: IPs, networks or *.",
    )
    .flags(&["--forwarded-allow-ips"])
    .env("FORWARDED_ALLOW_IPS", |text| Value::str(text)),
    row(
        "pythonpath",
        SECTION,
        Kind::Text,
        Default::None,
        "Directories for Python's path, separated by commas.",
    )
    .flags(&["--pythonpath"]),
    row(
        "paste",
        SECTION,
        Kind::Text,
        Default::None,
        "PasteDeploy file.",
    )
    .flags(&["--paste", "--paster"])
    .refused(&["None"], PASTE),
    row(
        "proxy_protocol",
        SECTION,
        Kind::ProxyProtocol,
        Default::Text("off"),
        "Read a PROXY header: off, v1, v2 or auto.",
    )
    .flags(&["--proxy-protocol"]),
    row(
        "proxy_allow_ips",
        SECTION,
        Kind::Addresses,
        LOCAL,
        "Proxies that may send a PROXY header.",
    )
    .flags(&["--proxy-allow-from"]),
    row(
        "proxy_headers",
        SECTION,
        Kind::Word {
            words: &["off", "x-forwarded-for", "forwarded"],
            complaint: |value| {
                format!("proxy_headers must be: off, x-forwarded-for or forwarded, not {value}")
            },
        },
        Default::Text("off"),
        "Header whose client address is taken from a trusted proxy: off, x-forwarded-for or forwarded.",
    )
    .flags(&["--proxy-headers"])
    .ours(),
    row(
        "proxy_headers_hops",
        SECTION,
        Kind::IntWithin {
            min: 1,
            max: 100,
            complaint: |value| format!("proxy_headers_hops must be between 1 and 100: {value}"),
        },
        Default::Int(1),
        "Number of proxies in a row, each of which appends to the header of --proxy-headers.",
    )
    .flags(&["--proxy-headers-hops"])
    .ours(),
    row(
        "protocol",
        SECTION,
        Kind::Word {
            words: &["http", "uwsgi"],
            complaint: |value| format!("protocol must be http or uwsgi, not {value}"),
        },
        Default::Text("http"),
        "What connections carry: http, or uwsgi for nginx's uwsgi_pass.",
    )
    .flags(&["--protocol"])
    .differs("Each uwsgi connection carries one request, and other words are refused."),
    row(
        "uwsgi_allow_ips",
        SECTION,
        Kind::Addresses,
        LOCAL,
        "Peers that may use the uwsgi protocol.",
    )
    .flags(&["--uwsgi-allow-from"]),
    row(
        "raw_paste_global_conf",
        SECTION,
        Kind::Texts,
        Default::Texts(&[]),
        "PasteDeploy variables.",
    )
    .flags(&["--paste-global"])
    .no_effect("PasteDeploy files are not read"),
    row(
        "permit_obsolete_folding",
        SECTION,
        SWITCH,
        OFF,
        "Accept folded header lines.",
    )
    .flags(&["--permit-obsolete-folding"]),
    row(
        "strip_header_spaces",
        SECTION,
        SWITCH,
        OFF,
        "Accept spaces before a header's colon.",
    )
    .flags(&["--strip-header-spaces"]),
    row(
        "permit_unconventional_http_method",
        SECTION,
        SWITCH,
        OFF,
        "Accept methods with lower-case letters or #, or of unusual length.",
    )
    .flags(&["--permit-unconventional-http-method"]),
    row(
        "permit_unconventional_http_version",
        SECTION,
        SWITCH,
        OFF,
        "Accept HTTP versions other than 1.0 and 1.1.",
    )
    .flags(&["--permit-unconventional-http-version"]),
    row(
        "casefold_http_method",
        SECTION,
        SWITCH,
        OFF,
        "Turn methods into upper case.",
    )
    .flags(&["--casefold-http-method"]),
    row(
        "forwarder_headers",
        SECTION,
        Kind::CommaTexts,
        Default::Text("SCRIPT_NAME,PATH_INFO"),
        "Headers with underscores that a trusted proxy may send.",
    )
    .flags(&["--forwarder-headers"]),
    row(
        "header_map",
        SECTION,
        Kind::Word {
            words: &["drop", "refuse", "dangerous"],
            complaint: |value| format!("Invalid header map behaviour: {value}"),
        },
        Default::Text("drop"),
        "Other headers with underscores: drop, refuse or dangerous.",
    )
    .flags(&["--header-map"]),
    row(
        "server_header",
        SECTION,
        Kind::FieldValue,
        Default::None,
        "Server header of responses. Empty: none. Not set: ferricorn.",
    )
    .flags(&["--server-header"])
    .ours(),
    row(
        "root_path",
        SECTION,
        Kind::Text,
        Default::Text(""),
        "Root path of ASGI applications.",
    )
    .flags(&["--root-path"])
    .no_effect("only ASGI workers use it; for WSGI set SCRIPT_NAME"),
];
