//! `--daemon`: away from the terminal, the way every UNIX daemon does it.

use pyo3::prelude::*;

use crate::fork_guard;

/// Forks twice, so that the process leads no session and can never get a terminal again. The parents leave
/// at once; only the last child returns.
pub(super) fn detach(py: Python<'_>, keep_standard_streams: bool) -> PyResult<()> {
    let os = py.import("os")?;
    fork_and_leave(&os)?;
    os.call_method0("setsid")?;
    fork_and_leave(&os)?;
    os.call_method1("umask", (0o022,))?;
    let null: i32 = os
        .call_method1("open", (os.getattr("devnull")?, os.getattr("O_RDWR")?))?
        .extract()?;
    for stream in 0..=2 {
        let kept = keep_standard_streams
            && stream != 0
            && !os.call_method1("isatty", (stream,))?.extract::<bool>()?;
        if !kept {
            os.call_method1("dup2", (null, stream))?;
        }
    }
    if null > 2 {
        os.call_method1("close", (null,))?;
    }
    Ok(())
}

fn fork_and_leave(os: &Bound<'_, PyModule>) -> PyResult<()> {
    let child: i32 = fork_guard::own_fork(|| os.call_method0("fork"))?.extract()?;
    if child != 0 {
        // Not the exit that runs handlers: those belong to the process that goes on.
        os.call_method1("_exit", (0,))?;
    }
    Ok(())
}
