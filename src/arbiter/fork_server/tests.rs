//! Fork servers of every manner; the processes behind them are real children that do nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};

use super::*;
use crate::arbiter::control_channel::{self, ControlChannel};

struct Bench {
    servers: ForkServers,
    /// The fork server's side.
    theirs: Option<OwnedFd>,
    scoreboard: Arc<Scoreboard>,
    process: Child,
}

impl Bench {
    fn new() -> Self {
        let (ours, theirs) = open_control().unwrap();
        let scoreboard = Arc::new(Scoreboard::new(4, 1).unwrap());
        let process = sleeper();
        let mut servers = ForkServers::default();
        servers.add(pid_of(&process), 1, ours, Arc::clone(&scoreboard), 0);
        Self {
            servers,
            theirs: Some(theirs),
            scoreboard,
            process,
        }
    }

    fn ready() -> Self {
        let mut bench = Self::new();
        wire::send_ready(bench.theirs()).unwrap();
        assert!(bench.servers.read(10).is_empty());
        assert_eq!(bench.servers.availability(1), Availability::Ready);
        bench
    }

    fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_ref().unwrap().as_fd()
    }

    fn request(&mut self, age: u64) -> ControlChannel {
        let (ours, channel) = control_channel::open().unwrap();
        let birth = Birth {
            age,
            generation: 1,
            scoreboard: Arc::clone(&self.scoreboard),
            slot: 2,
            at: 10,
            expires_at: None,
        };
        self.servers.request(birth, &channel, 10).unwrap();
        ours
    }

    /// Fails by never ending, if it is not killed.
    fn wait_killed(&mut self) {
        let status = self.process.wait().unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    fn answer(&mut self, age: u64, pid: i32) -> Vec<SpawnAnswer> {
        wire::send_answer(self.theirs(), age, pid).unwrap();
        self.servers.read(20)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").spawn().unwrap()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

#[test]
fn workers_are_asked_for_and_counted_until_the_answer() {
    let mut bench = Bench::ready();
    let mut worker = sleeper();
    let _channel = bench.request(5);
    assert!(bench.servers.holds_slot(2));
    let members: Vec<_> = bench.servers.members().map(|member| member.stage).collect();
    assert_eq!(members, [Stage::Booting]);
    let answers = bench.answer(5, worker.id() as i32);
    assert_eq!(answers[0].birth.age, 5);
    assert!(matches!(answers[0].result, Ok(Spawned::Lives(pid)) if pid == pid_of(&worker)));
    assert_eq!(bench.servers.members().count(), 0);
    worker.kill().unwrap();
    worker.wait().unwrap();
}

#[test]
fn only_children_that_the_kernel_knows_are_taken() {
    let mut bench = Bench::ready();
    let own_pid = bench.process.id() as i32;
    for pid in [
        1,
        0,
        -1,
        i32::MIN,
        i32::MAX,
        std::process::id() as i32,
        own_pid,
    ] {
        let _channel = bench.request(7);
        let answers = bench.answer(7, pid);
        assert_eq!(answers.len(), 1);
        assert!(answers[0].result.is_err(), "{pid}");
    }
    assert!(bench.answer(99, 1).is_empty(), "not asked for");
}

#[test]
fn a_worker_that_ended_before_the_answer_is_known_by_its_status() {
    let mut bench = Bench::ready();
    let _channel = bench.request(5);
    let status = ExitStatus::Signal(9);
    bench.servers.note_stranger(Pid::from_raw(i32::MAX), status);
    let answers = bench.answer(5, i32::MAX);
    let ended = Spawned::Ended(Pid::from_raw(i32::MAX), status);
    assert_eq!(answers[0].result.as_ref().unwrap(), &ended);
    bench.servers.note_stranger(Pid::from_raw(i32::MAX), status);
    assert!(bench.servers.strangers.is_empty(), "nothing is pending");
}

#[test]
fn a_fork_server_that_hangs_is_killed_and_its_requests_fail() {
    let mut bench = Bench::ready();
    let _channel = bench.request(5);
    let timeouts = (Some(Duration::from_secs(60)), Duration::from_secs(10));
    bench
        .servers
        .watch(timeouts.0, timeouts.1, 10 + ANSWER_MS - 1);
    assert!(bench.servers.read(20).is_empty());
    bench.servers.watch(timeouts.0, timeouts.1, 10 + ANSWER_MS);
    let answers = bench.servers.read(20);
    assert!(matches!(answers[0].result, Err(SpawnError::ServerGone)));
    assert_eq!(
        bench.servers.availability(1),
        Availability::Soon,
        "not reaped yet"
    );
    let pid = pid_of(&bench.process);
    let exit = bench
        .servers
        .on_exit(pid, ExitStatus::Signal(9), 30)
        .unwrap();
    assert!(!exit.was_dismissed);
    assert_eq!(bench.servers.availability(1), Availability::None);
}

#[test]
fn an_import_has_the_time_of_a_boot() {
    let mut bench = Bench::new();
    bench
        .servers
        .watch(Some(Duration::from_secs(1)), Duration::ZERO, 1000);
    assert!(bench.process.try_wait().unwrap().is_none());
    bench
        .servers
        .watch(Some(Duration::from_secs(1)), Duration::ZERO, 1001);
    bench.wait_killed();
}

#[test]
fn a_dismissed_fork_server_leaves_or_is_killed() {
    let mut bench = Bench::ready();
    let _channel = bench.request(5);
    bench.servers.cancel_generation(1);
    assert_eq!(bench.servers.members().count(), 0, "it takes no place");
    bench.servers.dismiss(|generation| generation == 1, 100);
    assert!(wire::receive_request(bench.theirs()).is_some());
    assert!(wire::receive_request(bench.theirs()).is_none(), "the end");
    bench.servers.watch(None, Duration::from_secs(10), 10_101);
    bench.wait_killed();
    let exit = bench
        .servers
        .on_exit(pid_of(&bench.process), ExitStatus::Code(0), 10_200);
    assert!(exit.unwrap().was_dismissed);
    let answers = bench.servers.read(10_300);
    assert!(answers[0].is_cancelled && answers[0].result.is_err());
}

#[test]
fn answers_sent_before_the_end_still_count() {
    let mut bench = Bench::ready();
    let mut worker = sleeper();
    let _channels = [bench.request(5), bench.request(6)];
    wire::send_answer(bench.theirs(), 5, worker.id() as i32).unwrap();
    bench.theirs = None;
    let pid = pid_of(&bench.process);
    let exit = bench
        .servers
        .on_exit(pid, ExitStatus::Signal(9), 30)
        .unwrap();
    assert!(!exit.was_dismissed);
    let answers = bench.servers.read(40);
    let lives: Vec<_> = answers.iter().map(|one| one.result.is_ok()).collect();
    assert_eq!(lives, [true, false]);
    worker.kill().unwrap();
    worker.wait().unwrap();
}

/// A process that ends where this one cannot reap it.
fn stranger() -> Pid {
    let output = Command::new("sh").args(["-c", "echo $$"]).output().unwrap();
    Pid::from_raw(
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap(),
    )
}

#[test]
fn a_fork_server_that_moved_answers_what_was_asked_before() {
    let mut bench = Bench::ready();
    let mut worker = sleeper();
    let _channels = [bench.request(5), bench.request(6)];
    let after = stranger();
    wire::send_moved(bench.theirs(), after.as_raw()).unwrap();
    let before = pid_of(&bench.process);
    let exit = bench.servers.on_exit(before, ExitStatus::Code(0), 15);
    assert!(exit.is_none(), "it goes on as another process");
    assert_eq!(bench.servers.availability(1), Availability::Ready);
    let answers = bench.answer(5, worker.id() as i32);
    assert!(matches!(answers[0].result, Ok(Spawned::Lives(pid)) if pid == pid_of(&worker)));
    // It ends below a worker, which reaps it.
    bench.theirs = None;
    // Another test's child has a copy of the socket until it executes its program.
    let answers = loop {
        let answers = bench.servers.read(30);
        if !answers.is_empty() {
            break answers;
        }
    };
    assert!(answers[0].result.is_err());
    let exits = bench.servers.take_lost(30);
    assert_eq!(
        (exits.len(), exits[0].pid, exits[0].status),
        (1, after, None)
    );
    assert!(exits[0].was_ready && !exits[0].was_dismissed);
    assert!(bench.servers.is_empty());
    worker.kill().unwrap();
    worker.wait().unwrap();
}

#[test]
fn a_fork_server_that_was_adopted_again_is_left_to_the_reaper() {
    let mut bench = Bench::ready();
    let mut moved = sleeper();
    wire::send_moved(bench.theirs(), moved.id() as i32).unwrap();
    assert!(bench.servers.read(20).is_empty());
    bench.servers.dismiss(|_| true, 20);
    bench.theirs = None;
    assert!(bench.servers.read(30).is_empty());
    moved.kill().unwrap();
    assert!(
        bench.servers.take_lost(30).is_empty(),
        "a child of this process"
    );
    moved.wait().unwrap();
    let exit = bench
        .servers
        .on_exit(pid_of(&moved), ExitStatus::Code(0), 40);
    assert!(exit.unwrap().was_dismissed);
}
