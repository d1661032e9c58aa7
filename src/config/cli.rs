//! The command line, from the table.
use std::ffi::OsString;

use super::sources::{Environment, RawSettings};

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
    let _ = (argv, environment);
    CliOutcome::Run(RawSettings::default())
}
