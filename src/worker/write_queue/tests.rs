//! Segments of every kind through a socket that takes little at a time.
#![allow(clippy::unwrap_used)]
use crate::worker::deferred_drop::DeferredDrops;
use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{setsockopt, sockopt};

use super::*;

#[derive(Debug)]
struct Owned(Vec<u8>);

impl BorrowedBuffer for Owned {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A transport that holds few bytes, and its other end.
fn narrow() -> (Transport, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    setsockopt(&ours, sockopt::SndBuf, &1).unwrap();
    let ours = mio::net::UnixStream::from_std(ours);
    (ours.into(), theirs)
}

fn file(bytes: &[u8]) -> PieceFile {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file.into()
}

#[test]
fn segments_of_every_kind_arrive_in_order_through_a_socket_that_blocks() {
    let (mut transport, mut theirs) = narrow();
    let large: Vec<u8> = (0..300_000_u32).map(|at| at as u8).collect();
    let (mut queue, mut drops) = (WriteQueue::default(), DeferredDrops::default());
    queue.push_bytes(b"head;", 0);
    let borrowed = Piece::Borrowed(Box::new(Owned(large.clone())));
    queue.push_piece(borrowed, large.len() as u64 - 1, 6, &mut drops);
    let file = file(&large);
    let part = Piece::File {
        file,
        offset: 2,
        len: 8,
        owner: None,
    };
    queue.push_piece(part, 5, 5, &mut drops);
    queue.push_bytes(b";end", 4);
    let (mut credit, mut written, mut blocked) = (0, 0, 0);
    let mut got = Vec::new();
    loop {
        let flushed = queue.flush(&mut transport, &mut drops).unwrap();
        credit += flushed.credit;
        written += flushed.written;
        if flushed.end == Flush::Done {
            break;
        }
        assert_eq!(flushed.end, Flush::Blocked);
        blocked += 1;
        let mut buffer = vec![0; 64 * 1024];
        let len = theirs
            .read(&mut buffer)
            .expect("what was written can be read");
        got.extend_from_slice(&buffer[..len]);
    }
    drop(transport);
    theirs.read_to_end(&mut got).unwrap();
    let due = [b"head;", &large[..large.len() - 1], &large[2..7], b";end"].concat();
    assert!(
        got == due && blocked > 1,
        "{} of {} bytes",
        got.len(),
        due.len()
    );
    assert_eq!((credit, written, drops.len()), (15, due.len() as u64, 1));
    assert!(queue.is_empty());
}

#[test]
fn a_file_shorter_than_its_range_is_reported() {
    let (mut transport, _theirs) = narrow();
    let (mut queue, mut drops) = (WriteQueue::default(), DeferredDrops::default());
    let piece = Piece::File {
        file: file(b"abc"),
        offset: 0,
        len: 10,
        owner: None,
    };
    queue.push_piece(piece, 10, 0, &mut drops);
    let flushed = queue.flush(&mut transport, &mut drops).unwrap();
    assert_eq!((flushed.end, flushed.written), (Flush::FileShort, 3));
}

#[test]
fn abandoning_gives_borrowed_buffers_back() {
    let (mut queue, mut drops) = (WriteQueue::default(), DeferredDrops::default());
    let borrowed = Piece::Borrowed(Box::new(Owned(vec![1; 9])));
    queue.push_piece(borrowed, 9, 0, &mut drops);
    assert_eq!(queue.unsent_bytes(), 9);
    queue.abandon(&mut drops);
    assert_eq!(drops.len(), 1);
    assert!(queue.is_empty());
}
