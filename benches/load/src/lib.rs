//! Shared code of the load client (`load`), the reference server (`raw`), the scale test (`million`) and the shutdown
//! tests (`proof`).
//!
//! Each program has one thread and one epoll instance. Only the shape `storm` of `load` has more threads. The programs
//! do not depend on the crate fdpush. A server that `load` measures serves the paths of `examples/bench_server.rs`.

pub mod epoll;
pub mod process;
pub mod wire;
