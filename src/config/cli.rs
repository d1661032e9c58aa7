//! The command line, made from the table: gunicorn's spellings, and argparse's ways of reading them.
//!
//! clap reads the words. Messages are argparse's, in one line. Numbers are read here, because argparse
//! exits with 2 when that fails; `validate` checks everything else.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::check::{parse_int, parse_octal_int};
use super::settings::{self, Kind, Setting};
use super::sources::{Environment, RawSettings, Source, combine};
use super::value::{Value, repr_str};
use super::{VERSION, help, suggest, words};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum CliOutcome {
    Run(RawSettings),
    /// `--help`, `-v` and mistakes: print and leave.
    Exit {
        code: i32,
        stdout: String,
        stderr: String,
    },
}

/// The command line alone; `argv[0]` is the program.
pub fn parse(argv: &[OsString]) -> CliOutcome {
    parse_all(argv, &Environment::default())
}

/// The command line, `*_CMD_ARGS` and the variables of the environment, combined.
pub fn parse_all(argv: &[OsString], environment: &Environment) -> CliOutcome {
    let program = program(argv);
    let given = argv.get(1..).unwrap_or_default().to_vec();
    match parse_sources(given, environment) {
        Ok(raw) => CliOutcome::Run(raw),
        Err(Stop::Help) => exit(0, help::text(&program), String::new()),
        Err(Stop::Version) => exit(0, format!("{program} (version {VERSION})\n"), String::new()),
        Err(Stop::Mistake(message)) => {
            exit(2, String::new(), format!("{program}: error: {message}\n"))
        }
    }
}

fn exit(code: i32, stdout: String, stderr: String) -> CliOutcome {
    CliOutcome::Exit {
        code,
        stdout,
        stderr,
    }
}

/// Why there is nothing to run.
enum Stop {
    Help,
    Version,
    Mistake(String),
}

fn parse_sources(given: Vec<OsString>, environment: &Environment) -> Result<RawSettings, Stop> {
    let mut sources = vec![environment.settings()];
    sources.push(parse_words(given, Source::CommandLine)?);
    for (variable, source) in [
        ("FERRICORN_CMD_ARGS", Source::FerricornCmdArgs),
        ("GUNICORN_CMD_ARGS", Source::GunicornCmdArgs),
    ] {
        let Some(text) = environment.get(variable) else {
            continue;
        };
        let named = |message: String| Stop::Mistake(format!("{variable}: {message}"));
        let words = words::split(text).map_err(|error| named(error.to_string()))?;
        let words = words.into_iter().map(OsString::from).collect();
        let raw = parse_words(words, source).map_err(|stop| match stop {
            Stop::Mistake(message) => named(message),
            other => other,
        })?;
        sources.push(raw);
    }
    Ok(combine(sources))
}

fn parse_words(words: Vec<OsString>, source: Source) -> Result<RawSettings, Stop> {
    let matches = command()
        .try_get_matches_from(words)
        .map_err(|error| Stop::Mistake(mistake(&error)))?;
    if matches.get_flag(HELP) {
        return Err(Stop::Help);
    }
    if matches.get_flag(VERSION_FLAG) {
        return Err(Stop::Version);
    }
    let mut raw = RawSettings::default();
    for setting in settings::all()
        .iter()
        .filter(|setting| !setting.flags.is_empty())
    {
        if let Some(value) = value_of(setting, &matches)? {
            raw.set(setting, value, source.clone());
        }
    }
    let mut positional = matches.get_many::<String>(APP).into_iter().flatten();
    // As in gunicorn, the variables cannot name the application.
    if source == Source::CommandLine {
        if let Some(app) = positional.next() {
            raw.set_app(app);
        }
        for extra in positional {
            raw.warn(format!("Ignored an extra argument: {}", repr_str(extra)));
        }
    }
    Ok(raw)
}

fn command() -> Command {
    let mut command = Command::new("ferricorn")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .infer_long_args(true)
        .args_override_self(true)
        .arg(
            Arg::new(HELP)
                .short('h')
                .long("help")
                .action(ArgAction::SetTrue),
        )
        .arg(
            Arg::new(VERSION_FLAG)
                .short('v')
                .long("version")
                .action(ArgAction::SetTrue),
        )
        .arg(
            Arg::new(APP)
                .num_args(0..)
                .value_parser(ValueParser::string()),
        );
    for setting in settings::all()
        .iter()
        .filter(|setting| !setting.flags.is_empty())
    {
        command = command.arg(argument(setting));
    }
    command
}

fn argument(setting: &'static Setting) -> Arg {
    let mut arg = Arg::new(setting.name);
    for flag in setting.flags {
        if let Some(long) = flag.strip_prefix("--") {
            arg = if arg.get_long().is_none() {
                arg.long(long)
            } else {
                arg.alias(long)
            };
        } else {
            arg = arg.short(
                flag.chars()
                    .nth(1)
                    .expect("a short flag is a dash and a letter"),
            );
        }
    }
    let action = match setting.kind {
        Kind::Bool { .. } => return arg.action(ArgAction::SetTrue),
        Kind::Texts | Kind::Files => ArgAction::Append,
        _ => ArgAction::Set,
    };
    arg = arg
        .action(action)
        .value_parser(ValueParser::string())
        .allow_negative_numbers(true);
    if matches!(setting.kind, Kind::ProxyProtocol) {
        arg = arg.num_args(0..=1).default_missing_value("auto");
    }
    arg
}

/// The value a setting was given, if it was.
fn value_of(setting: &Setting, matches: &ArgMatches) -> Result<Option<Value>, Stop> {
    if let Kind::Bool { cli } = setting.kind {
        return Ok(matches.get_flag(setting.name).then_some(Value::Bool(cli)));
    }
    let mut texts = matches
        .get_many::<String>(setting.name)
        .into_iter()
        .flatten();
    if matches!(setting.kind, Kind::Texts | Kind::Files) {
        let list: Vec<Value> = texts.map(Value::str).collect();
        return Ok((!list.is_empty()).then_some(Value::List(list)));
    }
    let Some(text) = texts.next() else {
        return Ok(None);
    };
    let number = |number: Option<i64>, reader| match number {
        Some(number) => Ok(Value::Int(number)),
        None => Err(Stop::Mistake(format!(
            "argument {}: invalid {reader} value: {}",
            setting.flag_names(),
            repr_str(text)
        ))),
    };
    let value = match setting.kind {
        Kind::Workers if text == "auto" => Value::str(text),
        Kind::Workers | Kind::Int | Kind::IntWithin { .. } => number(parse_int(text, 10), "int")?,
        Kind::OctalInt => number(parse_octal_int(text), "auto_int")?,
        _ => Value::str(text),
    };
    Ok(Some(value))
}

/// clap's error in argparse's words.
fn mistake(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let arg = context(ContextKind::InvalidArg);
    let arg = arg.split([' ', '=']).next().unwrap_or_default();
    let known = settings::all()
        .iter()
        .find(|setting| setting.flags.contains(&arg));
    let argument = known.map_or_else(|| arg.to_owned(), Setting::flag_names);
    match error.kind() {
        ErrorKind::UnknownArgument => unknown(arg),
        ErrorKind::TooManyValues => {
            let value = repr_str(context(ContextKind::InvalidValue));
            format!("argument {argument}: ignored explicit argument {value}")
        }
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        _ if known.is_some() => format!("argument {argument}: expected one argument"),
        _ => error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

fn unknown(arg: &str) -> String {
    let flags = || {
        settings::all()
            .iter()
            .flat_map(|setting| setting.flags.iter().copied())
    };
    let longer: Vec<&str> = flags()
        .filter(|flag| arg.len() > 2 && flag.starts_with(arg))
        .collect();
    if longer.len() > 1 {
        return format!("ambiguous option: {arg} could match {}", longer.join(", "));
    }
    let typed = arg.trim_start_matches('-').replace('_', "-");
    // The config file's name of a setting is a likely guess at its flag.
    let by_name = settings::find(&typed.replace('-', "_")).and_then(|setting| setting.flags.last());
    let long_flags = || flags().filter_map(|flag| flag.strip_prefix("--"));
    let close = by_name.map(|flag| (*flag).to_owned());
    let close =
        close.or_else(|| suggest::closest(&typed, long_flags()).map(|flag| format!("--{flag}")));
    match close {
        Some(close) if arg.len() > 2 => {
            format!("unrecognized arguments: {arg} (did you mean {close}?)")
        }
        _ => format!("unrecognized arguments: {arg}"),
    }
}

/// The name in messages: `gunicorn` when called by a link of that name.
fn program(argv: &[OsString]) -> String {
    let called = argv.first().and_then(|path| Path::new(path).file_name());
    if called.is_some_and(|name| name == "gunicorn") {
        "gunicorn"
    } else {
        "ferricorn"
    }
    .to_owned()
}

const HELP: &str = "help";
const VERSION_FLAG: &str = "version";
const APP: &str = "app";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("ferricorn")
            .chain(line.split_whitespace())
            .map(OsString::from)
            .collect()
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(
            pairs
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    fn run(line: &str, pairs: &[(&str, &str)]) -> RawSettings {
        match parse_all(&words(line), &environment(pairs)) {
            CliOutcome::Run(raw) => raw,
            CliOutcome::Exit { stderr, .. } => panic!("{line}: {stderr}"),
        }
    }

    fn refused(line: &str) -> String {
        match parse(&words(line)) {
            CliOutcome::Exit {
                code: 2,
                stdout,
                stderr,
            } if stdout.is_empty() => {
                assert_eq!(stderr.lines().count(), 1, "{stderr}");
                stderr
                    .trim_end()
                    .strip_prefix("ferricorn: error: ")
                    .unwrap()
                    .to_owned()
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn reads_every_way_of_writing_an_option() {
        for line in [
            "-w 4",
            "-w4",
            "-w=4",
            "--workers 4",
            "--workers=4",
            "--work=4 --worker=9 -w 4",
        ] {
            if line.starts_with("--work=") {
                assert!(
                    refused(line).starts_with("ambiguous option: --work could match --workers")
                );
                continue;
            }
            assert_eq!(
                run(line, &[]).get("workers"),
                Some(&Value::Int(4)),
                "{line}"
            );
        }
        let raw = run(
            "-b :80 app:app --bind=unix:/x --keep 5 --reload --no-sendfile -m 0022",
            &[],
        );
        assert_eq!(raw.app(), Some("app:app"));
        assert_eq!(raw.get("bind").unwrap().strings(), [":80", "unix:/x"]);
        assert_eq!(raw.get("keepalive"), Some(&Value::Int(5)));
        assert_eq!(raw.get("reload"), Some(&Value::Bool(true)));
        assert_eq!(raw.get("sendfile"), Some(&Value::Bool(false)));
        assert_eq!(raw.get("umask"), Some(&Value::Int(18)));
        assert_eq!(raw.get("threads"), None);
    }

    #[test]
    fn knows_the_odd_spellings() {
        for (line, name) in [
            ("--limit-request-field_size 1", "limit_request_field_size"),
            ("--limit-request-field-size 1", "limit_request_field_size"),
            ("--keep-alive 1", "keepalive"),
            ("-p 1", "pidfile"),
            ("--pid 1", "pidfile"),
            ("-n 1", "proc_name"),
            ("--name 1", "proc_name"),
            ("-e 1", "raw_env"),
            ("--log-file 1", "errorlog"),
            ("--error-logfile -", "errorlog"),
            ("--access-logfile -", "accesslog"),
            ("--access-logformat 1", "access_log_format"),
            ("--log-level 1", "loglevel"),
            ("--proxy-protocol", "proxy_protocol"),
            ("--proxy-allow-from 1", "proxy_allow_ips"),
            ("--reload-extra-file 1", "reload_extra_files"),
            ("-R", "enable_stdio_inheritance"),
            ("--paster 1", "paste"),
        ] {
            assert!(run(line, &[]).get(name).is_some(), "{line}");
        }
    }

    #[test]
    fn last_of_a_repeated_option_counts() {
        assert_eq!(
            run("-w 2 -w 3 --reload --reload", &[]).get("workers"),
            Some(&Value::Int(3))
        );
        assert_eq!(run("-w -1", &[]).get("workers"), Some(&Value::Int(-1)));
    }

    #[test]
    fn says_in_one_line_what_is_wrong() {
        assert_eq!(
            refused("-w abc"),
            "argument -w/--workers: invalid int value: 'abc'"
        );
        assert_eq!(
            refused("-m 9x"),
            "argument -m/--umask: invalid auto_int value: '9x'"
        );
        assert_eq!(
            refused("--workers"),
            "argument -w/--workers: expected one argument"
        );
        assert_eq!(
            refused("--wokers 4"),
            "unrecognized arguments: --wokers (did you mean --workers?)"
        );
        assert_eq!(
            refused("--wokers=4"),
            "unrecognized arguments: --wokers (did you mean --workers?)"
        );
        assert_eq!(
            refused("--keepalived"),
            "unrecognized arguments: --keepalived (did you mean --keep-alive?)"
        );
        assert_eq!(
            refused("--accesslog -"),
            "unrecognized arguments: --accesslog (did you mean --access-logfile?)"
        );
        assert_eq!(refused("-z"), "unrecognized arguments: -z");
        assert_eq!(
            refused("--reload=yes"),
            "argument --reload: ignored explicit argument 'yes'"
        );
    }

    #[test]
    fn prints_help_and_version() {
        let CliOutcome::Exit {
            code: 0, stdout, ..
        } = parse(&words("-v"))
        else {
            panic!()
        };
        assert_eq!(stdout, format!("ferricorn (version {VERSION})\n"));
        let CliOutcome::Exit {
            code: 0, stdout, ..
        } = parse(&words("--help"))
        else {
            panic!()
        };
        assert!(
            stdout.lines().all(|line| line.chars().count() < 80),
            "{stdout}"
        );
        for part in [
            "-w, --workers INT",
            "Server Socket:",
            "--limit-request-field_size",
        ] {
            assert!(stdout.contains(part), "{part}");
        }
    }

    #[test]
    fn combines_by_precedence() {
        let variables = [
            ("WEB_CONCURRENCY", "1"),
            ("FERRICORN_WORKERS", "2"),
            ("GUNICORN_CMD_ARGS", "-w 3 ignored:app"),
            ("FERRICORN_CMD_ARGS", "-w 4"),
        ];
        assert_eq!(run("-w 5", &variables).get("workers"), Some(&Value::Int(5)));
        assert_eq!(run("", &variables).get("workers"), Some(&Value::Int(4)));
        assert_eq!(
            run("", &variables[..3]).get("workers"),
            Some(&Value::Int(3))
        );
        assert_eq!(run("", &variables[..3]).app(), None);
        assert_eq!(
            run("", &variables[..2]).get("workers"),
            Some(&Value::str("2"))
        );
        assert_eq!(
            run("", &variables[..1]).get("workers"),
            Some(&Value::str("1"))
        );
        let mut file = RawSettings::default();
        let workers = settings::find("workers").unwrap();
        file.set(
            workers,
            Value::Int(9),
            Source::File("gunicorn.conf.py".to_owned()),
        );
        let with_file = combine([run("", &variables[..1]), file.clone()]);
        assert_eq!(with_file.get("workers"), Some(&Value::Int(9)));
        let with_env = combine([run("", &variables[..2]), file]);
        assert_eq!(with_env.get("workers"), Some(&Value::str("2")));
    }

    #[test]
    fn an_empty_variable_is_unset() {
        let empty = [
            ("WEB_CONCURRENCY", ""),
            ("FERRICORN_BIND", ""),
            ("GUNICORN_CMD_ARGS", ""),
            ("PORT", ""),
        ];
        assert_eq!(run("", &empty).iter().count(), 0);
        assert_eq!(
            run("", &[("PORT", "80")]).get("bind").unwrap().strings(),
            ["0.0.0.0:80"]
        );
    }

    #[test]
    fn variables_are_checked_and_hinted_at() {
        let raw = run(
            "",
            &[
                ("FERRICORN_WORKER", "2"),
                ("FERRICORN_HOME", "/x"),
                ("FERRICORN_RELOAD", "1"),
            ],
        );
        assert_eq!(
            raw.warnings(),
            ["Unknown variable FERRICORN_WORKER: did you mean FERRICORN_WORKERS?"]
        );
        assert_eq!(raw.get("reload"), Some(&Value::Bool(true)));
        let outcome = parse_all(&words(""), &environment(&[("GUNICORN_CMD_ARGS", "--nope")]));
        let CliOutcome::Exit {
            code: 2, stderr, ..
        } = outcome
        else {
            panic!()
        };
        assert_eq!(
            stderr,
            "ferricorn: error: GUNICORN_CMD_ARGS: unrecognized arguments: --nope\n"
        );
    }
}
