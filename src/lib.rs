//! A WebSocket push server for Linux: one epoll loop on one thread, or [several](Server::loops).
//!
//! Each connection has an [`Fd`]: a number, as in Swoole, that is never reused. A user has a uid, and any number of
//! connections. The server maps uids to fds, and pushes to one connection, to a uid, to a group, or to all connections.
//!
//! ```no_run
//! use fdpush::Server;
//!
//! fn main() -> Result<(), fdpush::Error> {
//!     Server::bind("127.0.0.1:9501")?
//!         .on_open(|ctx, fd, request| {
//!             if let Some(uid) = request.query("uid") {
//!                 ctx.bind(fd, uid);
//!             }
//!         })
//!         .on_message(|ctx, fd, message| {
//!             ctx.push(fd, message);               // point to point: reply
//!             // ctx.push_uid("10010", message);   // point to point: by uid
//!             // ctx.push_group("room", message);  // point to many
//!             // ctx.broadcast(message);           // point to all
//!         })
//!         .on_close(|_ctx, fd, closed| println!("{fd} closed: {closed}"))
//!         .run()
//! }
//! ```
//!
//! Start with [`Server`]: it binds addresses, takes closures and runs the event loop. Closures get a [`Context`]. Other
//! threads use a [`Remote`]. A program with state of its own implements [`Handler`] in place of closures.
//!
//! # Logging
//!
//! The server logs through the `log` crate: refused origins, a full server, handlers that panicked or blocked. If the
//! program sets no logger, no log line is written. Any logger works, for instance `simple_logger`:
//!
//! ```no_run
//! # use fdpush::Server;
//! # fn main() -> Result<(), fdpush::Error> {
//! simple_logger::SimpleLogger::new().with_level(log::LevelFilter::Info).init().expect("no logger was set before");
//! Server::bind("127.0.0.1:9501")?.run()
//! # }
//! ```
//!
//! The thread of the loop calls the logger. While the logger blocks, the server serves no client. A panic of the logger
//! outside a handler ends [`Server::run`]. `simple_logger` can block and can panic: it writes with `eprintln!`, which
//! blocks on a full pipe and panics if standard error cannot be written. If standard error can block or fail, use a
//! logger with a thread and a bounded queue, as `fdpush serve` does.
//!
//! Text from clients is quoted and escaped, as by `{:?}`, in every log line.
//!
//! With TLS, rustls logs each TLS error of a client: one line at the level WARN with the target `rustls`. A client can
//! repeat such an error. So a logger should limit the rate of log lines with this target, as `fdpush serve` does, or
//! limit their level to ERROR.
//!
//! [`Context::stats`] returns the server's counters, for instance of connections, messages and refused requests.
//!
//! # Architecture
//!
//! Each layer imports only from the layers below it. Layers 0 and 1 use no socket, no clock and no log. The loop of
//! layer 2 works in turns. In a turn, the loop waits for events, handles the events, and writes the output.
//!
//! ```text
//! layer 4   main, gateway/                     the ready-made server: a user of layer 3, like any other program
//!              serving ── api ── push ── presence    clients, HTTP requests, messages, uids and groups
//!              identity   hooks   wire               authentication; webhooks; JSON and client frames
//!              operations   settings   runtime       log and metrics; command line and file; clock and threads
//!              tls                             certificates and keys in files
//!          ───────────────────────────────────────────────────────────────────────────────────────────────────
//! layer 3   server   context   remote   ticket       the public API: Server, Context, Remote, Ticket
//!          ───────────────────────────────────────────────────────────────────────────────────────────────────
//! layer 2   event_loop/                        epoll, sockets, system calls, the clock: the turns of the loop
//!              core ── context ── handler      state of a loop; argument of handlers; trait of handlers
//!              accept ── listener ── socket    new connections; system calls
//!              inbox   signals   timers        commands of other threads and loops; SIGTERM; deadlines of handlers
//!              tls_sessions   handshakes       TLS sessions by socket; the bound on handshakes
//!              answers   guard   clock         requests and their answers; panics and slow handlers; two clocks
//!              threads   siblings   posts      several loops: threads, shared state, messages between loops
//!          ───────────────────────────────────────────────────────────────────────────────────────────────────
//! layer 1   connection/   wheel/   registry/   directory      state machines that do not import each other
//!              http ── queue ── table          requests; output; connections by slot, with the bounds of all queues
//!          ───────────────────────────────────────────────────────────────────────────────────────────────────
//! layer 0   protocol/          fd   tick   peer   message   limits     values and functions
//!              histogram   split_table   log_throttle   token_bucket   sync
//!              tls                             TLS: certificates, settings, the engine of a session
//!              frame → decoder → assembler                  RFC 6455: bytes to messages
//!              http → request, query, body_mode, body · response · upgrade    RFC 9112: the parts that an upgrade needs
//! ```
//!
//! Reading order: [`fd`](Fd), `protocol/frame.rs` and its neighbours, `connection/mod.rs`, `event_loop/mod.rs`, and
//! layer 3 last.
//!
//! # Features
//!
//! - `gateway`, on by default: the binary `fdpush` and its dependencies. A program that uses only the crate turns this
//!   feature off: `fdpush = { version = "0.1", default-features = false }`.
//! - `tls`, on with `gateway`: TLS listeners, `Server::listen_tls`, with rustls and the cryptography of ring.
//! - `unstable`: internals for the tests, benches and fuzz targets of this repository. These internals are not
//!   documented, and any release may change them.

#[cfg(not(target_os = "linux"))]
compile_error!("fdpush requires Linux: it uses epoll, accept4 and TCP_USER_TIMEOUT");

#[cfg(not(target_pointer_width = "64"))]
compile_error!("fdpush requires 64-bit pointers: limits and byte counts are `usize` values of up to 2^50");

mod connection;
mod context;
mod directory;
mod event_loop;
mod fd;
mod histogram;
mod limits;
mod log_throttle;
mod message;
mod peer;
mod protocol;
mod registry;
mod remote;
mod server;
mod split_table;
mod sync;
mod tick;
mod ticket;
mod tls;
mod token_bucket;
mod wheel;

/// The bodies of the fuzz targets in `fuzz/`.
#[cfg(all(feature = "tls", feature = "unstable"))]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::connection::{fuzz_connection, fuzz_tls, fuzz_upgrade};
    pub use crate::protocol::assembler::fuzz_frames;
    pub use crate::protocol::body::fuzz_body;
    pub use crate::protocol::deflate::fuzz_inflate;
    pub use crate::protocol::extension::fuzz_extension;
    pub use crate::protocol::http::fuzz_head;
    pub use crate::protocol::proxy::fuzz_proxy;
    pub use crate::registry::fuzz_registry;
    pub use crate::wheel::fuzz_wheel;
}

/// The internals that `benches/` measures.
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod bench {
    pub use crate::connection::SlotSet;
    pub use crate::protocol::assembler::{Assembler, AssemblerError, AssemblerPool, Item, take_message};
    pub use crate::protocol::decoder::{DeflatedMessages, MessageRules};
    pub use crate::protocol::deflate::{Deflater, Inflater};
    pub use crate::protocol::frame::{Opcode, ServerHeader};
    pub use crate::protocol::http::{RequestKind, find_head_end, parse_head};
    pub use crate::protocol::mask::unmask;
    pub use crate::protocol::shared::SharedFrame;
    pub use crate::registry::Registry;
    pub use crate::tick::Tick;
    pub use crate::wheel::{Owner, Wheel};
}

/// The state machines that `tests/simulator/` drives in place of the loop.
#[cfg(feature = "unstable")]
#[doc(hidden)]
pub mod sim {
    pub use crate::connection::{
        Connection, Deferred, Env, Event, FlushResult, Io, JournalResult, KeptMessage, Observed, Outbound, Queued,
        Sent, SessionRead, SlotSet, Table, Transport, Written,
    };
    pub use crate::connection::{KEY_BYTES, QUEUE_BYTES, SEGMENT_BYTES};
    #[cfg(feature = "tls")]
    pub use crate::connection::{Stream, TlsShared, TlsStream};
    pub use crate::event_loop::Handshakes;
    pub use crate::protocol::frame::Opcode;
    pub use crate::protocol::shared::FRAME_BYTES;
    pub use crate::registry::{FormerNames, Registry};
    pub use crate::tick::Tick;
    #[cfg(feature = "tls")]
    pub use crate::tls::{HANDSHAKE, Hello, TLS12_RECORDS_MAX, TestClient, test_config};
    pub use crate::wheel::{Owner, Wheel};

    /// Adds the options of a push to an outbound message, as the loop does.
    pub fn outbound<'a>(mut outbound: Outbound<'a>, to_many: bool, key: Option<&'a str>) -> Outbound<'a> {
        outbound.to_many |= to_many;
        outbound.key = key;
        outbound
    }
}

/// Internals of the crate that `fdpush serve` also uses. These internals do not belong to the public API.
#[cfg(feature = "gateway")]
#[doc(hidden)]
pub mod shared {
    pub use crate::connection::SlotSet;
    pub use crate::event_loop::{SocketFile, bind_each};
    pub use crate::log_throttle::LogThrottle;
    pub use crate::protocol::deflate::DEFLATED_BYTES_MAX;
    pub use crate::protocol::frame::SERVER_HEADER_BYTES_MAX;
    pub use crate::protocol::http::HEADERS_CEILING;
    pub use crate::protocol::origin::authority::{DNS_LABEL_BYTES_MAX, DNS_NAME_BYTES_MAX};
    pub use crate::registry::is_name;
    pub use crate::split_table::SplitTable;
    pub use crate::tick::Tick;
    pub use crate::token_bucket::{RATE_MAX, Rate, Take, TokenBucket};
}

/// The README. `cargo test` runs the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use crate::connection::{AbortOutcome, By, Cause, CloseOutcome, Closed, Compression, State, Traffic};
pub use crate::event_loop::{Address, Context, Error, Handler, Info, Notice, Stats, TimerId};
pub use crate::fd::{Fd, Slot};
pub use crate::histogram::Histogram;
pub use crate::limits::{Heartbeat, LimitError, Limits, SlowReader};
pub use crate::message::{Delivery, IntoPush, Message, Outcome, Push};
pub use crate::peer::Peer;
pub use crate::protocol::body_mode::{BodyEvent, BodyMode};
pub use crate::protocol::close::CloseCode;
pub use crate::protocol::deferral::Deferral;
pub use crate::protocol::error::ProtocolError;
pub use crate::protocol::origin::{OriginError, Origins};
pub use crate::protocol::query::QueryError;
pub use crate::protocol::request::Request;
pub use crate::protocol::response::Response;
pub use crate::protocol::shared::Frame;
pub use crate::protocol::upgrade::{Accept, Upgrade};
pub use crate::registry::{Change, NAME_BYTES_MAX, ScanCursor, SecondLogin};
pub use crate::remote::{Promise, Remote, RemoteError, Reply, ReplyFuture};
pub use crate::server::{Closures, Server};
pub use crate::ticket::{ResponseStream, Ticket};
#[cfg(feature = "tls")]
pub use crate::tls::{TlsBuilder, TlsConfig, TlsError};
pub use crate::tls::{TlsCounts, TlsInfo, TlsVersion};
