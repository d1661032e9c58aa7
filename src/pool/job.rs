//! What passes between the event loop and the pool: a request on its way in, a response on its way back.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::{Forwarded, ProxyHeader, RequestHead, ResponseHead, StreamPriority};

use super::borrowed_buffer::BorrowedBuffer;
use super::buffer_pool::BodyBytes;
use super::conn_id::ConnId;
use super::response_memory::Reservation;
use super::shared_files::PieceFile;
use super::stream_spool::SpooledPart;
use super::streaming_body::StreamingBody;
use super::tls_info::TlsInfo;
use super::window::Window;

/// The other end of a connection, as the socket knows it or as a trusted proxy reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A client of which a proxy reported the address but no port.
    Ip(IpAddr),
    /// A client on a unix socket, which has no address worth reporting.
    Unix,
}

impl Peer {
    /// The address, of a peer that has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Ip(ip) => Some(ip),
            Self::Unix => None,
        }
    }
}

/// A request's body: whole, unless it is [`RequestBody::Streaming`].
#[derive(Debug, Default)]
pub enum RequestBody {
    /// No body, or one of no bytes.
    #[default]
    Empty,
    /// Held in memory.
    Memory(BodyBytes),
    /// Spooled to an unlinked temporary file.
    File {
        /// The spool.
        file: PieceFile,
        /// Where it begins there.
        offset: u64,
        /// Length of the body in bytes.
        len: u64,
    },
    /// Read as it comes from the client.
    Streaming(Arc<StreamingBody>),
}

impl RequestBody {
    /// Length in bytes, unless it is still arriving.
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::File { len, .. } => Some(*len),
            Self::Streaming(_) => None,
        }
    }

    /// Whether there is nothing to read, as far as is known.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Memory(bytes) => bytes.is_empty(),
            Self::File { len, .. } => *len == 0,
            Self::Streaming(_) => false,
        }
    }
}

/// What writes a request's line in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLine {
    FromLoop,
    /// The thread, by the application's logger.
    FromThread,
    /// None is written.
    Omitted,
}

/// One request on its way to the pool, with room for the response head and a small body on its way back.
/// Boxed and recycled by the loop, so that a request makes the server allocate nothing once the loop is warm.
#[derive(Debug)]
pub struct Job {
    /// The connection that waits for the answer.
    pub conn: ConnId,
    /// The request's head.
    pub head: RequestHead,
    /// The request's body.
    pub body: RequestBody,
    /// Memory of the worker's body budget that the body holds, until the job is back with the loop.
    pub body_held_bytes: usize,
    /// The client that sent the request.
    pub peer: Peer,
    /// The PROXY header that the connection began with.
    pub proxy: Option<ProxyHeader>,
    /// What TLS has agreed on for the connection; `None`: it is plain.
    pub tls: Option<Arc<TlsInfo>>,
    /// Whether `forwarded_allow_ips` trusts the other end of the connection.
    pub trusted: bool,
    /// What a trusted peer's fields say of the request.
    pub forwarded: Forwarded,
    /// What a client of HTTP/2 has said of the request's rank among its others.
    pub priority: StreamPriority,
    /// Which listener accepted the connection (index into the worker's listeners).
    pub listener: usize,
    /// When the request was whole, or its head if the body is streamed.
    pub arrived: Instant,
    /// Length of the request's body, if that was known when the request was queued.
    pub body_bytes: Option<u64>,
    /// Counts the worker's requests.
    pub serial: u64,
    /// The client's socket, when the request asks for an upgrade. A thread whose application takes it sends
    /// [`Reply::Hijacked`] first.
    pub socket: Option<OwnedFd>,
    /// When a thread took it.
    pub started: Instant,
    /// How much of the wait for a thread was a woken thread's for the GIL. Zero when a thread had it already.
    pub gil_wait: Duration,
    /// What the access log needs of the environ, noted when the application has returned.
    pub noted: Vec<Option<Box<[u8]>>>,
    /// Why it was answered without the application; empty if it was not.
    pub refusal: &'static str,
    /// Its response is a file that the thread reads.
    pub is_file: bool,
    pub access_line: AccessLine,
    /// The response's head.
    pub response: ResponseHead,
    /// The response's body, when it is sent whole.
    pub response_body: ResponseBody,
}

impl Job {
    /// Its answer is not for the access log.
    pub fn omit_access_line(&mut self) {
        self.access_line = AccessLine::Omitted;
    }

    /// Whether the client has sent the request over TLS, to this server or to a trusted proxy.
    pub fn is_https(&self) -> bool {
        self.forwarded.is_https.unwrap_or(self.tls.is_some())
    }

    /// An empty job, to be filled by the loop.
    pub fn new(now: Instant) -> Self {
        Self {
            conn: ConnId::new(u32::MAX, 0),
            head: RequestHead::default(),
            body: RequestBody::Empty,
            body_held_bytes: 0,
            peer: Peer::Unix,
            proxy: None,
            tls: None,
            trusted: false,
            forwarded: Forwarded::default(),
            priority: StreamPriority::UNSAID,
            listener: 0,
            arrived: now,
            body_bytes: None,
            serial: 0,
            socket: None,
            refusal: "",
            started: now,
            gil_wait: Duration::ZERO,
            noted: Vec::new(),
            is_file: false,
            access_line: AccessLine::FromLoop,
            response: ResponseHead::default(),
            response_body: ResponseBody::default(),
        }
    }

    /// How many bytes of memory it keeps when it is cleared.
    pub fn capacity(&self) -> usize {
        self.head.capacity() + self.response.capacity() + self.response_body.bytes.capacity()
    }

    /// Forget the request and its response but keep the buffers.
    pub fn clear(&mut self) {
        self.head.clear();
        self.forwarded = Forwarded::default();
        self.priority = StreamPriority::UNSAID;
        self.body = RequestBody::Empty;
        self.body_bytes = None;
        self.noted.clear();
        self.socket = None;
        self.tls = None;
        self.refusal = "";
        self.access_line = AccessLine::FromLoop;
        self.is_file = false;
        self.response.clear();
        self.response_body.bytes.clear();
        self.response_body.reservation = None;
        debug_assert!(
            self.response_body.pieces.is_empty(),
            "pieces are taken, not cleared: they may need the GIL"
        );
    }
}

/// A response body that is sent whole: `bytes` first, then `pieces`.
#[derive(Debug, Default)]
pub struct ResponseBody {
    /// Small items, copied together.
    pub bytes: Vec<u8>,
    /// Large items and files.
    pub pieces: Vec<Piece>,
    /// Counts the body's bytes in memory until the job is done with.
    pub reservation: Option<Reservation>,
}

impl ResponseBody {
    /// Length of the whole body in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64 + self.pieces.iter().map(Piece::len).sum::<u64>()
    }

    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its client has to be quick ([`Reservation::is_hurried`]).
    pub fn is_hurried(&self) -> bool {
        self.reservation
            .as_ref()
            .is_some_and(Reservation::is_hurried)
    }

    /// The parts that are in memory.
    pub fn parts_in_memory(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.as_slice(),
            Piece::Borrowed(buffer) => buffer.bytes(),
            Piece::File { .. } => &[],
        });
        std::iter::once(self.bytes.as_slice()).chain(pieces)
    }
}

/// A part of a response body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes that the server owns.
    Bytes(Vec<u8>),
    /// Bytes of the application, borrowed.
    Borrowed(Box<dyn BorrowedBuffer>),
    /// A range of a file.
    File {
        /// A handle that the server owns.
        file: PieceFile,
        /// First byte of the range.
        offset: u64,
        /// Length of the range in bytes.
        len: u64,
        /// The application's file, which is closed when this is dropped: when the range was sent, or will not be. It has
        /// no bytes in memory.
        owner: Option<Box<dyn BorrowedBuffer>>,
    },
}

impl Piece {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Borrowed(buffer) => buffer.bytes().len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// How many bytes of a stream's window it takes. A file takes none: it is not in memory.
    pub fn window_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Borrowed(buffer) => buffer.bytes().len(),
            Self::File { .. } => 0,
        }
    }

    /// Whether the piece has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the application is to have back.
    pub fn into_borrowed(self) -> Option<Box<dyn BorrowedBuffer>> {
        match self {
            Self::Bytes(_) => None,
            Self::Borrowed(buffer) => Some(buffer),
            Self::File { owner, .. } => owner,
        }
    }
}

impl From<SpooledPart> for Piece {
    fn from(part: SpooledPart) -> Self {
        match part {
            SpooledPart::Bytes(bytes) => Self::Bytes(bytes),
            SpooledPart::File { file, offset, len } => Self::File {
                file,
                offset,
                len,
                owner: None,
            },
        }
    }
}

/// The start of a response whose body follows piece by piece.
#[derive(Debug)]
pub struct StreamedResponse {
    /// The response's head.
    pub response: ResponseHead,
    /// Holds the pool thread back when the client is slower.
    pub window: Arc<Window>,
}

/// A pool thread's answer. For one job: `Whole`, or `Head` then any number of `Data` then `End`, and at any point
/// `Abort` instead.
#[derive(Debug)]
pub enum Reply {
    /// The whole response is in the job.
    Whole(Box<Job>),
    /// The head is in; the body follows.
    Head(ConnId, Box<StreamedResponse>),
    /// The response's spool was empty, and has something to be taken ([`Window::take_spooled`]).
    Spooled(ConnId),
    /// An interim response, before any other reply.
    Hints(ConnId, Box<ResponseHead>),
    /// What follows the body of a response over HTTP/2, before its end.
    Trailers(ConnId, Box<ResponseHead>),
    /// A piece of the body.
    Data(ConnId, Piece),
    /// The body is over. The job comes back for the log and for recycling.
    End(Box<Job>),
    /// The application failed. Answer 500 when nothing was sent, else break the connection off.
    Abort(Box<Job>),
    /// The job has waited longer than `queue_timeout`: the application has not seen it.
    Overdue(Box<Job>),
    /// The application has hijacked the socket in [`Job::socket`]: the loop lets go of the connection. The job still
    /// comes back in one of the other replies.
    Hijacked(ConnId),
    /// The application waits for more of a streaming body, or has room for it.
    WantsBody(ConnId),
}
