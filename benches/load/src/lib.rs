//! Shared code of the load client (`load`), the reference server (`raw`) and the shutdown tests (`proof`).
//!
//! Each program has one thread and one epoll instance. `load` and `raw` do not depend on fdpush. A server under test
//! serves the paths of `examples/bench_server.rs`.

pub mod epoll;
pub mod process;
pub mod wire;
