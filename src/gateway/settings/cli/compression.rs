//! The settings of permessage-deflate.

use clap::{Args, ValueEnum};
use fdpush::Limits;

use super::values::Size;

#[derive(PartialEq, Debug, Args)]
#[command(next_help_heading = "Compression")]
pub struct Compression {
    /// Compression of messages with permessage-deflate (RFC 7692), for clients that offer it
    #[arg(long, value_name = "SWITCH", env = "FDPUSH_COMPRESSION", default_value = "off")]
    pub compression: Switch,

    /// With --compression on: minimum payload of a compressed message to clients, in bytes; the server does not
    /// compress a message with a shorter payload
    #[arg(long, value_name = "SIZE", env = "FDPUSH_COMPRESS_BYTES_MIN",
        default_value_t = Size(Limits::default().compress_bytes_min))]
    pub compress_bytes_min: Size,

    /// With --compression on: maximum bytes per second to which the compressed messages of one client may inflate; over
    /// this limit, the server reads the client more slowly
    #[arg(long, value_name = "SIZE", env = "FDPUSH_INFLATED_BYTES_PER_SECOND_MAX",
        default_value_t = Size(Limits::default().inflated_bytes_per_second_max))]
    pub inflated_bytes_per_second_max: Size,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Switch {
    On,
    Off,
}
