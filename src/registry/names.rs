//! The valid lengths of uids and group names.

/// The longest uid or group name, in bytes of UTF-8.
///
/// The shortest name has one byte.
pub const NAME_BYTES_MAX: usize = 128;

/// Returns whether `name` has a valid length for a uid or a group name.
///
/// A valid length is 1 to [`NAME_BYTES_MAX`] bytes.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}
