//! `--help`.
