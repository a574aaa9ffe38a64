//! Checks that the TLS settings fit each other, the addresses of the listeners, and the current time.

use super::Settings;
use super::faults::Faults;
use crate::gateway::runtime::clock;
use crate::gateway::tls::files::{Chain, ClientAuthorities, Pair, TlsFiles};

impl Settings {
    /// Returns the settings of TLS, with the content of the TLS files.
    pub fn tls(&self) -> &TlsFiles {
        &self.contents.tls
    }

    /// Collects contradictions between the TLS settings and the addresses as faults.
    pub(super) fn check_tls(&mut self, faults: &mut Faults) {
        let (serve, name) = (&self.serve, |key: &str| self.layers.name(key));
        let (certificates, keys) = (serve.tls.tls_cert.len(), serve.tls.tls_key.len());
        if certificates != keys {
            let why = format!(
                "{} names {certificates} files, and {} names {keys}: each certificate needs its key, in the same order",
                name("tls_cert"),
                name("tls_key")
            );
            faults.add(&["tls_cert", "tls_key"], why);
        }
        if certificates == 0 && keys == 0 {
            let listen =
                serve.listen.iter().filter(|address| address.is_tls()).map(|address| ("listen", address.to_string()));
            let api =
                serve.api_addresses().filter(|address| address.is_tls()).map(|address| ("api", address.to_string()));
            for (key, address) in listen.chain(api) {
                let why = format!("{}: {address} needs --tls-cert and --tls-key", name(key));
                faults.add(&[key, "tls_cert", "tls_key"], why);
            }
        }
        let needs_listener = ["tls_cert", "tls_key", "tls_min"];
        for key in needs_listener.into_iter().filter(|key| self.is_changed(key)) {
            if !serve.has_tls_listener() && !serve.has_tls_api() {
                let why = format!("{} needs --listen tls:HOST:PORT or --api tls:HOST:PORT", name(key));
                faults.add(&["listen", "api", key], why);
            }
        }
        if serve.api.api_client_ca.is_some() && !serve.has_tls_api() {
            faults.add(&["api", "api_client_ca"], format!("{} needs --api tls:HOST:PORT", name("api_client_ca")));
        }
        self.check_plain_api_addresses(faults);
    }

    /// If `api_client_ca` is set, checks API addresses without TLS, because `api_client_ca` has no effect on an address
    /// without TLS.
    ///
    /// An API address without TLS causes a warning if only this machine can reach the address. Otherwise the address
    /// causes a fault.
    fn check_plain_api_addresses(&mut self, faults: &mut Faults) {
        if self.serve.api.api_client_ca.is_none() || !self.serve.has_tls_api() {
            return;
        }
        let (ca, api) = (self.layers.name("api_client_ca"), self.layers.name("api"));
        let mut warnings = Vec::new();
        for address in self.serve.api_addresses().filter(|address| !address.is_tls()) {
            let why = format!("{ca} has no effect on {address} of {api}: only tls: addresses ask for a certificate");
            // `check_api` and `fdpush check` report an address that cannot be resolved.
            match address.is_local() {
                Ok(false) => faults.add(&["api", "api_client_ca"], why),
                Ok(true) | Err(_) => warnings.push(why),
            }
        }
        self.warnings.extend(warnings);
    }

    /// Adds a fault for each certificate of the server or of an authority that is not valid now.
    ///
    /// If `old` is given, files that have the same content in the old settings are not checked.
    pub(super) fn check_validity(&self, old: Option<&Settings>, faults: &mut Faults) {
        let (now, own, old) = (clock::unix_seconds(), self.tls(), old.map(Settings::tls));
        let is_new_chain =
            |chain: &&Chain| !old.is_some_and(|old| old.pairs.iter().any(|pair| pair.chain.has_same(chain)));
        let is_new_authority = |own: &&ClientAuthorities| {
            !old.and_then(|old| old.client_authorities.as_ref()).is_some_and(|old| old.has_same(own))
        };
        let chains = own.pairs.iter().map(|pair| &pair.chain).chain(&own.keyless);
        let of_chains = chains.filter(is_new_chain).filter_map(|chain| chain.fault_at(now));
        let authorities = own.client_authorities.iter().filter(is_new_authority);
        let of_authorities = authorities.flat_map(|authorities| authorities.faults_at(now));
        of_chains.chain(of_authorities).for_each(|why| faults.add(&[], why));
    }

    /// Returns warnings about certificates that are not valid now, except the certificates of the server.
    pub fn certificate_warnings(&self) -> Vec<String> {
        let now = clock::unix_seconds();
        self.contents
            .tls
            .pairs
            .iter()
            .flat_map(|pair| pair.chain.others())
            .filter_map(|other| other.warning_at(now))
            .collect()
    }

    /// Returns whether the TLS files of a setting have changed since `other` was loaded.
    pub(super) fn has_other_tls_content(&self, other: &Settings, key: &str) -> bool {
        let (own, theirs) = (&self.contents.tls, &other.contents.tls);
        let differs = |is_same: fn(&Pair, &Pair) -> bool| {
            let mut both = own.pairs.iter().zip(&theirs.pairs);
            own.pairs.len() != theirs.pairs.len() || !both.all(|(own, other)| is_same(own, other))
        };
        match key {
            "tls_cert" => differs(Pair::has_same_certificates),
            "tls_key" => differs(Pair::has_same_key),
            "api_client_ca" => own.client_authorities != theirs.client_authorities,
            _ => false,
        }
    }

    /// Returns text about the certificates in use, with one line for each certificate.
    pub fn certificates(&self) -> String {
        let pairs = self.contents.tls.pairs.iter().map(|pair| format!("{pair}\n"));
        let authorities = self.contents.tls.client_authorities.iter().map(|authorities| format!("{authorities}\n"));
        pairs.chain(authorities).collect()
    }
}
