//! From a frame's JSON to a command: `{"id": 1, "command": "worker add", "args": [2]}`.

use serde_json::Value;

use crate::config::words;

/// What a client wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Show(Topic),
    WorkerAdd(usize),
    WorkerRemove(usize),
    /// The pid.
    WorkerKill(i32),
    /// The Python stacks of the worker with this pid.
    Stack(i32),
    /// There are no dirty workers: the answer states that.
    Dirty,
    Reload,
    Reopen,
    Shutdown {
        quick: bool,
    },
    Help,
}

/// What there is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    All,
    Workers,
    Requests,
    Histograms,
    Config,
    Stats,
    Listeners,
    Dirty,
}

/// A command and the number that its answer repeats.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub id: Value,
    pub command: Command,
}

/// What a frame turned out to be: a request, or a mistake with the id to complain to.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Request(Request),
    Mistake { id: Value, error: String },
}

impl Asked {
    #[must_use]
    pub fn read(payload: &[u8]) -> Self {
        let mistake = |id: Value, error: String| Self::Mistake { id, error };
        let message: Value = match serde_json::from_slice(payload) {
            Ok(message) => message,
            Err(error) => return mistake(Value::from(0), format!("Invalid JSON: {error}")),
        };
        let Some(message) = message.as_object() else {
            return mistake(Value::from(0), "A request is a JSON object".to_owned());
        };
        let id = message.get("id").cloned().unwrap_or(Value::from(0));
        match words_of(message).and_then(|words| Command::parse(&words)) {
            Ok(command) => Self::Request(Request { id, command }),
            Err(error) => mistake(id, error.to_string()),
        }
    }
}

/// Why a command was not understood.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("Empty command")]
    Empty,
    #[error("Unknown command: {0}")]
    Unknown(String),
    #[error("Missing show target ({TOPICS})")]
    NoTopic,
    #[error("Unknown show target: {0} ({TOPICS})")]
    Topic(String),
    #[error("Missing worker action (add|remove|kill)")]
    NoWorkerAction,
    #[error("Unknown worker action: {0} (add, remove or kill)")]
    WorkerAction(String),
    #[error("Unknown shutdown mode: {0} (graceful or quick)")]
    ShutdownMode(String),
    #[error("Missing PID for {0}")]
    NoPid(&'static str),
    #[error("Invalid argument: {0}")]
    Argument(String),
}

/// The command's words, split as a shell would, and then the arguments.
fn words_of(message: &serde_json::Map<String, Value>) -> Result<Vec<String>, CommandError> {
    let command = message.get("command").and_then(Value::as_str);
    let line = command.unwrap_or_default();
    let mut all = words::split(line).map_err(|error| CommandError::Argument(error.to_string()))?;
    if let Some(args) = message.get("args").and_then(Value::as_array) {
        all.extend(args.iter().map(|arg| match arg {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }));
    }
    Ok(all)
}

impl Command {
    /// # Errors
    /// With a line that names what was expected.
    pub fn parse(words: &[String]) -> Result<Self, CommandError> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let verb = words.first().map(|verb| verb.to_ascii_lowercase());
        let object = words.get(1).map(|object| object.to_ascii_lowercase());
        let argument = words.get(2).copied();
        match (verb.as_deref().unwrap_or_default(), object.as_deref()) {
            ("", _) => Err(CommandError::Empty),
            ("show", Some(topic)) => Topic::parse(topic).map(Self::Show),
            ("show", None) => Err(CommandError::NoTopic),
            ("worker", Some("add")) => count(argument).map(Self::WorkerAdd),
            ("worker", Some("remove")) => count(argument).map(Self::WorkerRemove),
            ("worker", Some("kill")) => pid(argument, "worker kill").map(Self::WorkerKill),
            ("worker", Some(other)) => Err(CommandError::WorkerAction(other.to_owned())),
            ("worker", None) => Err(CommandError::NoWorkerAction),
            ("stack", object) => pid(object, "stack").map(Self::Stack),
            ("dirty", _) => Ok(Self::Dirty),
            ("reload", _) => Ok(Self::Reload),
            ("reopen", _) => Ok(Self::Reopen),
            ("shutdown", None | Some("graceful")) => Ok(Self::Shutdown { quick: false }),
            ("shutdown", Some("quick")) => Ok(Self::Shutdown { quick: true }),
            ("shutdown", Some(other)) => Err(CommandError::ShutdownMode(other.to_owned())),
            ("help", _) => Ok(Self::Help),
            (other, _) => Err(CommandError::Unknown(other.to_owned())),
        }
    }
}

impl Topic {
    fn parse(word: &str) -> Result<Self, CommandError> {
        match word {
            "all" => Ok(Self::All),
            "workers" => Ok(Self::Workers),
            "requests" => Ok(Self::Requests),
            "histograms" => Ok(Self::Histograms),
            "config" => Ok(Self::Config),
            "stats" => Ok(Self::Stats),
            "listeners" => Ok(Self::Listeners),
            "dirty" => Ok(Self::Dirty),
            other => Err(CommandError::Topic(other.to_owned())),
        }
    }
}

/// How many workers to add or remove. gunicorn reads less than one as one.
fn count(argument: Option<&str>) -> Result<usize, CommandError> {
    let Some(text) = argument else {
        return Ok(1);
    };
    let count: i64 = text
        .parse()
        .map_err(|_| CommandError::Argument(format!("{text} is not a number")))?;
    match usize::try_from(count.max(1)) {
        Ok(count) if count <= COUNT_MAX => Ok(count),
        _ => Err(CommandError::Argument(format!(
            "at most {COUNT_MAX} workers at a time"
        ))),
    }
}

fn pid(argument: Option<&str>, of: &'static str) -> Result<i32, CommandError> {
    let Some(text) = argument else {
        return Err(CommandError::NoPid(of));
    };
    let pid = text.parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| CommandError::Argument(format!("{text} is not a PID")))
}

const TOPICS: &str = "all|workers|requests|histograms|config|stats|listeners|dirty";
/// A slip of the finger must not start a million processes.
const COUNT_MAX: usize = 100;

/// For `help`: how each command is written, and what it does.
pub(super) const COMMANDS: &[(&str, &str)] = &[
    ("show all", "Show the arbiter and its workers"),
    ("show workers", "List workers: state, load, memory"),
    ("show requests", "List the requests that run now"),
    (
        "show histograms",
        "Times of requests and in the queue, by powers of two of microseconds",
    ),
    ("show config", "Show every setting with its value"),
    ("show stats", "Show counters of the server"),
    ("show listeners", "Show the sockets that are listened on"),
    ("show dirty", "Always empty: there are no dirty workers"),
    ("stack <PID>", "Show the Python stacks of a worker"),
    ("worker add [N]", "Start N more workers (default 1)"),
    ("worker remove [N]", "Stop N workers gracefully (default 1)"),
    ("worker kill <PID>", "Replace one worker gracefully"),
    ("reload", "Reload settings and application (HUP)"),
    ("reopen", "Reopen log files (USR1)"),
    ("shutdown [graceful|quick]", "Stop the server (TERM or INT)"),
    ("help", "Show this list"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn asked(message: &Value) -> Asked {
        Asked::read(message.to_string().as_bytes())
    }

    fn command(line: &str) -> Result<Command, String> {
        match asked(&json!({"id": 7, "command": line})) {
            Asked::Request(Request { id, command }) => {
                assert_eq!(id, json!(7));
                Ok(command)
            }
            Asked::Mistake { id, error } => {
                assert_eq!(id, json!(7));
                Err(error)
            }
        }
    }

    #[test]
    fn commands_are_read_as_gunicornc_sends_them() {
        for (line, wanted) in [
            ("show workers", Command::Show(Topic::Workers)),
            ("SHOW  Requests", Command::Show(Topic::Requests)),
            ("show histograms", Command::Show(Topic::Histograms)),
            ("worker add", Command::WorkerAdd(1)),
            ("worker add 2", Command::WorkerAdd(2)),
            ("worker remove 0", Command::WorkerRemove(1)),
            ("worker kill 12", Command::WorkerKill(12)),
            ("stack 12", Command::Stack(12)),
            ("dirty add 3", Command::Dirty),
            ("reload", Command::Reload),
            ("reopen", Command::Reopen),
            ("shutdown", Command::Shutdown { quick: false }),
            ("shutdown quick", Command::Shutdown { quick: true }),
            ("help", Command::Help),
        ] {
            assert_eq!(command(line), Ok(wanted), "{line}");
        }
        let split = json!({"command": "worker", "args": ["add", 3]});
        let request = Request {
            id: json!(0),
            command: Command::WorkerAdd(3),
        };
        assert_eq!(asked(&split), Asked::Request(request));
    }

    #[test]
    fn mistakes_are_told() {
        for (line, part) in [
            ("", "Empty command"),
            ("shwo workers", "Unknown command: shwo"),
            ("show", "Missing show target"),
            ("show me", "Unknown show target: me"),
            ("worker", "Missing worker action"),
            ("worker add many", "Invalid argument: many"),
            ("worker add 1000000", "at most 100"),
            ("worker kill", "Missing PID"),
            ("worker kill -1", "is not a PID"),
            ("worker kill 99999999999", "is not a PID"),
            ("shutdown now", "Unknown shutdown mode"),
            ("show 'workers", "No closing quotation"),
        ] {
            let error = command(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn anything_may_arrive() {
        for payload in [
            &b"\xff\xfe"[..],
            b"",
            b"{",
            b"[]",
            b"null",
            b"\"show workers\"",
            b"{\"command\": 5, \"args\": {}, \"id\": {\"a\": []}}",
            &[b'['; 5000],
        ] {
            assert!(matches!(Asked::read(payload), Asked::Mistake { .. }));
        }
    }

    #[test]
    fn every_command_of_the_help_is_one() {
        for (usage, _) in COMMANDS {
            let line = usage.replace("[N]", "2").replace("<PID>", "1");
            let line = line.replace("[graceful|quick]", "quick");
            assert!(command(&line).is_ok(), "{usage}");
        }
    }
}
