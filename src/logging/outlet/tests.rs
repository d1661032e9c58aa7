//! Pipes that nobody reads: what waits, what is dropped, and that no write ever waits.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::*;

/// A line of 100 bytes that ends in its number.
fn line(number: usize) -> Vec<u8> {
    format!("{number:>99}\n").into_bytes()
}

fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe().unwrap()
}

/// All that is in the pipe now.
fn drain(reader: &OwnedFd) -> Vec<u8> {
    let flags = OFlag::from_bits_truncate(fcntl(reader, FcntlArg::F_GETFL).unwrap());
    fcntl(reader, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    let mut bytes = Vec::new();
    // It ends with "would block".
    let _ = fs::File::from(reader.try_clone().unwrap()).read_to_end(&mut bytes);
    bytes
}

fn numbers(lines: &[u8]) -> Vec<usize> {
    let text = std::str::from_utf8(lines).unwrap();
    text.lines()
        .map(|line| line.trim().parse().unwrap())
        .collect()
}

/// Fills pipe and buffer, and more.
fn overfill(outlet: &mut Outlet, fd: &OwnedFd) -> usize {
    let lines = 2 * PENDING_BYTES_MAX / 100;
    for number in 0..lines {
        outlet.write(fd.as_fd(), &line(number));
    }
    lines
}

#[test]
fn what_a_pipe_does_not_take_waits_and_then_is_dropped_and_counted() {
    let (reader, writer) = pipe();
    let mut outlet = Outlet::of(writer.as_fd());
    let written = overfill(&mut outlet, &writer);
    assert!(outlet.pending.len() <= PENDING_BYTES_MAX);
    assert_eq!(outlet.take_dropped(), None, "it does not flow yet");
    let mut read = Vec::new();
    while !outlet.pending.is_empty() {
        read.extend(drain(&reader));
        outlet.flush(writer.as_fd());
    }
    read.extend(drain(&reader));
    let read = numbers(&read);
    assert!(read.iter().copied().eq(0..read.len()), "whole and in order");
    let dropped = outlet.take_dropped().unwrap();
    assert_eq!(dropped as usize + read.len(), written);
    assert_eq!(outlet.take_dropped(), None);
    outlet.write(writer.as_fd(), &line(7));
    assert_eq!(numbers(&drain(&reader)), [7]);
    assert_eq!(outlet.dropped_total(), dropped);
}

#[test]
fn lines_stay_whole_in_a_pipe_that_others_fill_too() {
    let (reader, writer) = pipe();
    let mut outlet = Outlet::of(writer.as_fd());
    let lines: Vec<u8> = (0..200).flat_map(line).collect();
    let long = [&[b'1'; 5000][..], b"\n"].concat();
    for part in [&lines, &long, &lines] {
        outlet.write(writer.as_fd(), part);
    }
    outlet.flush(writer.as_fd());
    assert_eq!(drain(&reader), [&lines[..], &long, &lines].concat());
}

#[test]
fn a_full_disk_costs_the_lines_and_they_are_counted() {
    let full = fs::OpenOptions::new().append(true).open("/dev/full");
    let Ok(full) = full else { return };
    let mut outlet = Outlet::of(full.as_fd());
    outlet.write(full.as_fd(), b"a\nb\n");
    assert_eq!(outlet.dropped_total(), 2);
    assert_eq!(outlet.take_dropped(), None, "it does not flow yet");
}

#[test]
fn closing_waits_for_the_reader_and_not_for_ever() {
    let (reader, writer) = pipe();
    let mut outlet = Outlet::of(writer.as_fd());
    let lines: Vec<u8> = (0..1000).flat_map(line).collect();
    outlet.write(writer.as_fd(), &lines);
    let begin = Instant::now();
    outlet.close(writer.as_fd(), begin + Duration::from_millis(50));
    assert!(begin.elapsed() < Duration::from_secs(5) && !outlet.pending.is_empty());
    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; 100_000];
        fs::File::from(reader).read_exact(&mut bytes).unwrap();
        bytes
    });
    outlet.close(writer.as_fd(), Instant::now() + Duration::from_secs(30));
    assert_eq!(reading.join().unwrap(), lines);
}

/// A pipe that can only be written to as it is.
fn waiting_outlet(writer: &OwnedFd) -> Outlet {
    let mut outlet = Outlet::of(writer.as_fd());
    outlet.mode = WriteMode::MayWait;
    outlet.allow_thread();
    outlet
}

#[test]
fn where_a_write_may_wait_a_thread_waits() {
    let (reader, writer) = pipe();
    let mut outlet = waiting_outlet(&writer);
    let (done, is_done) = mpsc::channel();
    let writing = std::thread::spawn(move || {
        let written = overfill(&mut outlet, &writer);
        done.send(()).unwrap();
        (outlet, writer, written)
    });
    is_done
        .recv_timeout(Duration::from_secs(60))
        .expect("no write waits");
    let (mut outlet, writer, written) = writing.join().unwrap();
    assert_eq!(outlet.take_dropped(), None, "it does not flow yet");
    // In the pipe, with the thread, and waiting for it: all that was not dropped.
    let kept = written - outlet.dropped_total() as usize;
    let mut bytes = vec![0; kept * 100];
    let mut file = fs::File::from(reader.try_clone().unwrap());
    file.read_exact(&mut bytes).unwrap();
    let read = numbers(&bytes);
    assert!(read.is_sorted_by(|a, b| a < b), "whole and in order");
    outlet.close(writer.as_fd(), Instant::now() + Duration::from_secs(30));
    let total = outlet.dropped_total();
    assert_eq!(outlet.take_dropped(), Some(total));
}

#[test]
fn without_a_thread_a_full_pipe_is_not_waited_for() {
    let (_reader, writer) = pipe();
    let mut outlet = waiting_outlet(&writer);
    outlet.thread = Thread::Forbidden;
    overfill(&mut outlet, &writer);
    assert!(outlet.dropped_total() > 0);
}

#[test]
fn a_forked_process_leaves_its_parents_lines_to_the_parent() {
    let (reader, writer) = pipe();
    let mut outlet = Outlet::of(writer.as_fd());
    overfill(&mut outlet, &writer);
    drain(&reader);
    outlet.pending_of = 1;
    outlet.write(writer.as_fd(), &line(1));
    assert_eq!(numbers(&drain(&reader)), [1]);
    outlet.forked();
    assert_eq!(outlet.dropped_total(), 0);
}

#[test]
fn a_thread_writes_what_a_stalled_pipe_did_not_take_and_then_leaves_it() {
    let (reader, writer) = pipe();
    let mut outlet = Outlet::of(writer.as_fd());
    outlet.allow_thread();
    outlet.write(writer.as_fd(), &line(0));
    assert!(outlet.running().is_none(), "a pipe that is read needs none");
    let lines: Vec<u8> = (1..2000).flat_map(line).collect();
    outlet.write(writer.as_fd(), &lines);
    outlet.write(writer.as_fd(), &line(2000));
    assert!(outlet.running().is_some() && outlet.pending.is_empty());
    let mut bytes = vec![0; 2001 * 100];
    let mut file = fs::File::from(reader.try_clone().unwrap());
    file.read_exact(&mut bytes).unwrap();
    assert!(numbers(&bytes).iter().copied().eq(0..2001), "in order");
    outlet.close(writer.as_fd(), Instant::now() + Duration::from_secs(30));
    outlet.write(writer.as_fd(), &line(1));
    assert_eq!(numbers(&drain(&reader)), [1], "at once, and here");
    assert_eq!(outlet.take_dropped(), None);
}

#[test]
fn the_outlet_of_new_settings_takes_over_what_was_kept() {
    let (reader, writer) = pipe();
    let mut before = Outlet::of(writer.as_fd());
    let lines: Vec<u8> = (0..1000).flat_map(line).collect();
    before.write(writer.as_fd(), &lines);
    let kept = before.pending.len();
    assert!(kept > 0);
    let mut after = Outlet::of(writer.as_fd());
    after.succeed(before, true);
    let mut bytes = drain(&reader);
    after.flush(writer.as_fd());
    bytes.extend(drain(&reader));
    assert_eq!(bytes, lines);

    let mut before = Outlet::of(writer.as_fd());
    before.write(writer.as_fd(), &lines);
    let mut other = Outlet::of(writer.as_fd());
    other.succeed(before, false);
    assert_eq!(other.dropped_total(), kept as u64 / 100);
}

#[test]
fn the_thread_writes_all_of_a_file_on_a_network_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let file: OwnedFd = fs::File::create(&path).unwrap().into();
    let mut outlet = Outlet::of(file.as_fd());
    outlet.mode = WriteMode::Remote;
    outlet.allow_thread();
    let lines: Vec<u8> = (0..100).flat_map(line).collect();
    outlet.write(file.as_fd(), &lines);
    assert!(outlet.running().is_some());
    outlet.close(file.as_fd(), Instant::now() + Duration::from_secs(30));
    assert_eq!(fs::read(&path).unwrap(), lines);
    // Renamed and made anew: the thread follows.
    let other = directory.path().join("other");
    let file: OwnedFd = fs::File::create(&other).unwrap().into();
    outlet.retarget(file.as_fd()).unwrap();
    outlet.write(file.as_fd(), &line(1));
    outlet.close(file.as_fd(), Instant::now() + Duration::from_secs(30));
    assert_eq!(fs::read(&other).unwrap(), line(1));
}
