//! Binds sockets to all addresses of a host name.

use std::io;
use std::net::SocketAddr;

/// Binds a socket to each address of a host name, such as `localhost`.
///
/// If the port is 0, only the first address is bound, because each address would get a different port. An address that
/// this machine does not have is skipped, if the host name also has addresses that can be bound.
///
/// # Errors
/// Returns the error of the first address that cannot be bound, or `AddrNotAvailable` if the machine has none of the
/// addresses.
pub fn bind_each<S>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    bind: impl Fn(SocketAddr) -> io::Result<S>,
) -> io::Result<Vec<S>> {
    let mut addresses: Vec<SocketAddr> = addresses.into_iter().collect();
    addresses.dedup();
    if addresses.first().is_some_and(|first| first.port() == 0) {
        addresses.truncate(1);
    }
    let is_alone = addresses.len() == 1;
    let mut sockets = Vec::new();
    for address in addresses {
        match bind(address) {
            Ok(socket) => sockets.push(socket),
            // `localhost` may name ::1 on a machine that has no IPv6.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && !is_alone => {}
            Err(error) => return Err(error),
        }
    }
    if sockets.is_empty() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(sockets) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(addresses: &[&str], missing: &[&str]) -> Result<Vec<String>, io::ErrorKind> {
        let addresses = addresses.iter().map(|address| address.parse().expect("the address is valid"));
        let bound = bind_each(addresses, |address| match address.to_string() {
            address if missing.contains(&&*address) => Err(io::ErrorKind::AddrNotAvailable.into()),
            address if address.ends_with(":1") => Err(io::ErrorKind::PermissionDenied.into()),
            address => Ok(address),
        });
        bound.map_err(|error| error.kind())
    }

    #[test]
    fn each_address_of_a_name_is_bound() {
        let owned = |addresses: &[&str]| Ok(addresses.iter().map(|address| (*address).to_owned()).collect());
        let (v6, v4) = ("[::1]:80", "127.0.0.1:80");
        assert_eq!(bind(&[v6, v6, v4], &[]), owned(&[v6, v4]));
        assert_eq!(bind(&[v6, v4], &[v6]), owned(&[v4]), "an address that the machine does not have must be skipped");
        assert_eq!(bind(&[v6, v4], &[v6, v4]), Err(io::ErrorKind::AddrNotAvailable));
        assert_eq!(bind(&[v4], &[v4]), Err(io::ErrorKind::AddrNotAvailable));
        assert_eq!(bind(&[v4, "127.0.0.1:1"], &[]), Err(io::ErrorKind::PermissionDenied));
        assert_eq!(
            bind(&["[::1]:0", "127.0.0.1:0"], &[]),
            owned(&["[::1]:0"]),
            "only the first address may be bound to port 0"
        );
        assert_eq!(bind(&[], &[]), Err(io::ErrorKind::AddrNotAvailable));
    }
}
