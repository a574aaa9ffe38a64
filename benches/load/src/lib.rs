//! What the load client (`load`) and the yardstick server (`raw`) share.
//!
//! Both are as plain as can be: one thread, one epoll, no options that a figure would have to be explained by. Neither
//! knows fdpush; what a server under test offers is the paths of `examples/bench_server.rs`.

pub mod epoll;
pub mod process;
pub mod wire;
