//! The rule that some API addresses require API keys. An API that other machines can reach needs a key, because the
//! callers of the API can push messages, bind uids and close connections.
//!
//! The rule checks the addresses to which the API sockets are bound. The addresses in the settings were already
//! checked, but a service manager may pass a socket with another address.

use fdpush::Address;

use super::api_keys::ApiKeys;
use crate::gateway::push::datagrams::DatagramAddress;

/// The first API socket that other machines can reach, if any.
#[derive(Debug)]
pub struct Exposure(Option<String>);

impl Exposure {
    /// Finds the first API socket that other machines can reach.
    pub fn of(listeners: &[Address], datagrams: &[DatagramAddress]) -> Exposure {
        let udp = datagrams.iter().filter_map(|address| match address {
            DatagramAddress::Udp(udp) => Some((Address::Tcp(*udp), address.to_string())),
            DatagramAddress::Unixgram(_) => None,
        });
        let tcp = listeners.iter().map(|address| (address.clone(), address.to_string()));
        Exposure(tcp.chain(udp).find(|(address, _)| !address.is_local()).map(|(_, name)| name))
    }

    /// Checks that the set of keys is not empty if other machines can reach the API.
    ///
    /// # Errors
    /// Returns an error if other machines can reach the API and the set of keys is empty. The error names the address
    /// of the API.
    pub fn check(&self, keys: &ApiKeys) -> Result<(), String> {
        match &self.0 {
            Some(open) if keys.is_empty() => Err(format!(
                "the API on {open} can be reached from other machines and needs an API key: \
                 give --api-key or --api-key-file"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposure(listeners: &[&str], datagrams: &[&str]) -> Exposure {
        let tcp = |text: &&str| Address::Tcp(text.parse().expect("the address is valid"));
        let udp = |text: &&str| DatagramAddress::Udp(text.parse().expect("the address is valid"));
        Exposure::of(
            &listeners.iter().map(tcp).chain([Address::Unix("/x".into())]).collect::<Vec<_>>(),
            &datagrams.iter().map(udp).chain([DatagramAddress::Unixgram("/y".into())]).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn an_api_that_other_machines_can_reach_needs_a_key() {
        let (none, some) = (ApiKeys::default(), ApiKeys::new(["key"]));
        for local in
            [exposure(&[], &[]), exposure(&["127.0.0.1:1", "[::1]:1"], &["127.0.0.2:1", "[::ffff:127.0.0.1]:1"])]
        {
            assert_eq!((local.check(&none), local.check(&some)), (Ok(()), Ok(())), "{local:?}");
        }
        for (open, named) in [
            (exposure(&["127.0.0.1:1", "0.0.0.0:2"], &[]), "0.0.0.0:2"),
            (exposure(&["[::]:3"], &["127.0.0.1:1"]), "[::]:3"),
            (exposure(&["127.0.0.1:1"], &["[::1]:1", "10.0.0.1:4"]), "udp:10.0.0.1:4"),
        ] {
            let why = open.check(&none).expect_err("the API is reachable");
            assert!(why.contains(&format!("on {named} can be reached")), "{why}");
            assert_eq!(open.check(&some), Ok(()));
        }
    }
}
