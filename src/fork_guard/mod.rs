//! What keeps a child that the application forks apart from the server.
//!
//! An application may fork at any time, from any thread: `multiprocessing`, `os.fork`, or a C library. The child is a copy
//! of a worker, and it must not act as one. So the server registers what the child must lose, and a handler of
//! `pthread_atfork` takes that away in the child before any other code runs there: signal handlers go back to the
//! default, descriptors are closed, shared memory is replaced by private zeros. The handler only makes calls that are
//! allowed in a signal handler, because another thread may have held any lock at the fork.
//!
//! Forks of the server itself pass through [`own_fork`], and the handler leaves them alone. A child that a bare system
//! call has made (`clone` without the C library) runs no handler; the signal handlers compare process ids for it.
//!
//! Python's half, for what is Python's, is `ferricorn/_fork_guard.py`.

#![expect(
    unsafe_code,
    reason = "the handler runs between fork and any other code, where only system calls are allowed"
)]

mod guarded_file;
mod handlers;
mod memory;
mod own_descriptors;
mod successor;

use std::cell::Cell;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;

pub use guarded_file::GuardedFile;
pub use handlers::{note_handler, note_installed_handler, reset_handlers};
pub use memory::{register_mapping, unregister_mapping};
pub use own_descriptors::{Registered, disown, keep_for_this_thread, own, register, registered};
pub use successor::{QuietChild, Succession, fork_with_successor};

/// This process is a child that the application has forked.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The fork that this thread is about to make is the server's own.
    static IS_OWN_FORK: Cell<bool> = const { Cell::new(false) };
}

/// From now on children of the application lose what is registered. This process is not one itself: it begins to serve.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a plain function that lives as long as the process; this library is never unloaded,
        // as Python unloads no extension.
        let failed = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        debug_assert_eq!(failed, 0, "there is memory at the start");
    });
    IS_CHILD.store(false, Ordering::Relaxed);
}

/// Whether this process is a child that the application has forked: nothing of the server may be used here.
#[must_use]
pub fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Makes a fork of the server itself: its child keeps what is registered.
pub fn own_fork<T>(fork: impl FnOnce() -> T) -> T {
    IS_OWN_FORK.set(true);
    let result = fork();
    IS_OWN_FORK.set(false);
    result
}

extern "C" fn in_child() {
    if IS_OWN_FORK.get() {
        return;
    }
    let errno = Errno::last_raw();
    IS_CHILD.store(true, Ordering::Relaxed);
    reset_handlers();
    memory::replace_all();
    own_descriptors::close_all();
    Errno::set_raw(errno);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    extern "C" fn handler(_: libc::c_int) {}

    fn is_open(fd: i32) -> bool {
        // SAFETY: the call only asks for the flags of a number.
        unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
    }

    fn handler_of(signal: Signal) -> usize {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: without a new action the call only fills `action`.
        unsafe { libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) };
        // SAFETY: zeroed is a valid sigaction, and the call has filled it.
        unsafe { action.assume_init() }.sa_sigaction
    }

    /// The exit code of a child that runs `child`, which must not allocate.
    fn code_of_child(child: impl FnOnce() -> i32, own: bool) -> i32 {
        // SAFETY: the child makes system calls only, and leaves without running anything else.
        let fork = || unsafe { fork() }.unwrap();
        match if own { own_fork(fork) } else { fork() } {
            ForkResult::Child => {
                let code = child();
                // SAFETY: the call ends the process at once.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, code) => code,
                other => panic!("{other:?}"),
            },
        }
    }

    #[test]
    fn a_child_of_the_application_loses_what_is_registered_and_one_of_the_server_keeps_it() {
        install();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours_fd, theirs_fd) = (ours.as_raw_fd(), theirs.as_raw_fd());
        register(&ours);
        let action = SigAction::new(
            SigHandler::Handler(handler),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        unsafe { sigaction(Signal::SIGUSR2, &action) }.unwrap();
        note_handler(Signal::SIGUSR2, Some(handler));
        let look = || {
            i32::from(is_child())
                | i32::from(is_open(ours_fd)) << 1
                | i32::from(is_open(theirs_fd)) << 2
                | i32::from(handler_of(Signal::SIGUSR2) == handler as *const () as usize) << 3
        };
        assert_eq!(code_of_child(look, false), 0b0101);
        assert_eq!(code_of_child(look, true), 0b1110);
        assert!(!is_child(), "this process is not one");
    }

    #[test]
    fn a_number_that_has_become_the_applications_stays_open() {
        install();
        let (ours, _other) = UnixStream::pair().unwrap();
        register(&ours);
        let number = ours.as_raw_fd();
        let (applications, _other) = UnixStream::pair().unwrap();
        let mut number_of_own = std::os::fd::OwnedFd::from(ours);
        nix::unistd::dup2(&applications, &mut number_of_own).unwrap();
        assert_eq!(code_of_child(|| i32::from(is_open(number)), false), 1);
    }

    #[test]
    fn sockets_of_clients_are_closed_and_one_that_was_given_up_stays() {
        install();
        let pairs: Vec<_> = (0..100).map(|_| UnixStream::pair().unwrap()).collect();
        for (ours, theirs) in &pairs {
            own(ours);
            own(theirs);
            disown(theirs);
        }
        let numbers: Vec<_> = pairs
            .iter()
            .map(|(ours, theirs)| (ours.as_raw_fd(), theirs.as_raw_fd()))
            .collect();
        let look = || {
            let is_wrong = |(ours, theirs): &&(i32, i32)| is_open(*ours) || !is_open(*theirs);
            numbers.iter().filter(is_wrong).count() as i32
        };
        assert_eq!(code_of_child(look, false), 0);
        for (ours, _) in &pairs {
            disown(ours);
        }
    }

    #[test]
    fn a_child_keeps_the_body_of_the_request_whose_thread_has_forked_it() {
        install();
        let files: Vec<GuardedFile> = (0..2)
            .map(|_| tempfile::tempfile().unwrap().into())
            .collect();
        let numbers: Vec<_> = files.iter().map(|file| file.file().as_raw_fd()).collect();
        keep_for_this_thread(files[1].file());
        let look = || i32::from(is_open(numbers[0])) | i32::from(is_open(numbers[1])) << 1;
        assert_eq!(code_of_child(look, false), 0b10);
    }

    #[test]
    fn a_child_does_not_close_the_number_of_a_file_that_it_has_not_got() {
        install();
        let mut file: Option<GuardedFile> = Some(tempfile::tempfile().unwrap().into());
        let number = file.as_ref().map_or(-1, |file| file.file().as_raw_fd());
        let child = || {
            // SAFETY: the call makes a number of its own, the lowest that is free.
            let reused = unsafe { libc::dup2(0, number) } == number;
            drop(file.take());
            i32::from(reused && is_open(number))
        };
        assert_eq!(code_of_child(child, false), 1);
    }

    #[test]
    fn a_file_that_has_the_number_of_a_socket_stays_open() {
        install();
        let (ours, _other) = UnixStream::pair().unwrap();
        own(&ours);
        let number = ours.as_raw_fd();
        let mut number_of_own = std::os::fd::OwnedFd::from(ours);
        nix::unistd::dup2(tempfile::tempfile().unwrap(), &mut number_of_own).unwrap();
        assert_eq!(code_of_child(|| i32::from(is_open(number)), false), 1);
        disown(&number_of_own);
    }

    #[test]
    fn shared_memory_becomes_private_zeros() {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
        install();
        let length = std::num::NonZeroUsize::new(8192).unwrap();
        let (protection, flags) = (
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
        );
        // SAFETY: a new mapping of no file.
        let memory = unsafe { mmap_anonymous(None, length, protection, flags) }.unwrap();
        register_mapping(memory.as_ptr() as usize, 8192);
        let first = memory.cast::<u8>();
        // SAFETY: the mapping is 8192 bytes long and writable.
        unsafe { first.write_volatile(7) };
        let child = || {
            // SAFETY: as above, in the child's copy.
            let seen = unsafe { first.read_volatile() };
            // SAFETY: as above.
            unsafe { first.write_volatile(9) };
            i32::from(seen)
        };
        assert_eq!(code_of_child(child, false), 0);
        // SAFETY: as above.
        assert_eq!(unsafe { first.read_volatile() }, 7);
        unregister_mapping(memory.as_ptr() as usize);
        // SAFETY: nothing uses the mapping any more.
        unsafe { munmap(memory, 8192) }.unwrap();
    }
}
