//! Parses the names and the validity period of a certificate (RFC 5280).

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use x509_cert::Version;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};

/// The maximum number of names of a certificate that one log line lists. A certificate may have thousands of names.
const NAMES_LISTED_MAX: usize = 20;

/// The parsed content of a certificate, without the private key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// The DNS names and IP addresses for which the certificate is valid.
    pub names: Vec<String>,
    subject: String,
    /// The start of the validity period, in seconds since 1970.
    pub not_before: u64,
    /// The end of the validity period, in seconds since 1970.
    pub not_after: u64,
    /// Whether the certificate belongs to a certificate authority (RFC 5280 section 4.2.1.9).
    pub is_authority: bool,
}

/// A time of the wall clock in seconds since 1970, written as `2027-01-31T00:00:00Z`.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UnixTime(pub u64);

impl Certificate {
    /// Parses a certificate.
    ///
    /// # Errors
    /// Returns an error if the bytes are not a valid certificate.
    pub fn parse(der: &[u8]) -> Result<Certificate, String> {
        let invalid = |error: x509_cert::der::Error| format!("invalid certificate: {error}");
        let tbs = x509_cert::Certificate::from_der(der).map_err(invalid)?.tbs_certificate;
        let alternative = tbs.get::<SubjectAltName>().map_err(invalid)?;
        let names = alternative.iter().flat_map(|(_, names)| &names.0).filter_map(name).collect();
        let constraints = tbs.get::<BasicConstraints>().map_err(invalid)?;
        // A certificate of version 1 cannot have extensions (RFC 5280 section 4.1.2.1).
        let is_root_without_extensions = tbs.version == Version::V1 && tbs.issuer == tbs.subject;
        Ok(Certificate {
            names,
            // The subject is a text in the form of RFC 4514. RFC 4514 escapes only the control characters of ASCII, so
            // all other control characters are replaced by `?`.
            subject: tbs.subject.to_string().replace(char::is_control, "?"),
            not_before: tbs.validity.not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity.not_after.to_unix_duration().as_secs(),
            is_authority: constraints.is_some_and(|(_, constraints)| constraints.ca) || is_root_without_extensions,
        })
    }

    /// Returns the reason why clients refuse the certificate at the time `now`, or `None`.
    pub fn fault_at(&self, now: u64) -> Option<String> {
        Some(format!("the certificate of {self} {}", self.invalidity_at(now)?))
    }

    /// Returns `expired at …` or `is not valid before …`, if the certificate is not valid at the time `now`.
    pub fn invalidity_at(&self, now: u64) -> Option<String> {
        match self {
            _ if now > self.not_after => Some(format!("expired at {}", UnixTime(self.not_after))),
            _ if now < self.not_before => Some(format!("is not valid before {}", UnixTime(self.not_before))),
            _ => None,
        }
    }

    /// Returns the subject of the certificate, or the names if the subject is empty.
    pub fn subject(&self) -> String {
        if self.subject.is_empty() { self.to_string() } else { self.subject.clone() }
    }
}

/// Writes the names of the certificate, or the subject if the certificate has no names.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.names.split_first() else { return f.write_str(&self.subject) };
        f.write_str(first)?;
        for name in others.iter().take(NAMES_LISTED_MAX - 1) {
            write!(f, ", {name}")?;
        }
        match self.names.len().saturating_sub(NAMES_LISTED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more names"),
        }
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last second of the year 9999. A certificate with this end never expires (RFC 5280 section 4.1.2.5).
        const LAST: u64 = 253_402_300_799;
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(self.0.min(LAST))).fmt(f)
    }
}

/// Returns the text of a name that a client can connect to.
fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().escape_debug().to_string()),
        GeneralName::IpAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(octets.as_bytes()).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(octets.as_bytes()).map(IpAddr::from);
            v4.or(v6).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::{Certificate, UnixTime};

    /// A self-signed certificate of version 1 with the subject `v1 ca`, made by OpenSSL.
    const ROOT_V1: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBGTCBwQIUGtfY23prEw+k6iOJckX5UNL63SEwCgYIKoZIzj0EAwIwEDEOMAwGA1UEAwwFdjEgY2EwHhcNMjYxMTI4MDMzNzM1\n\
        WhcNMjYxMjAzMDMzNzM1WjAQMQ4wDAYDVQQDDAV2MSBjYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABEzA/3plsISyLaXaaDSc\n\
        PcSw+cfN13dkVDsF7CxX21jXYkpoSxU3dSy3I4N3ovbVeuWVsqeEWnsGJFG+QzBbh0AwCgYIKoZIzj0EAwIDRwAwRAIgIQkP8hSf\n\
        OpqQMAQeuHw0I7XhRxTF8uFxckZEvEdy4sQCIF8lb9xDjRS4gnCS8aDXl4cC9iNARjMyQz6+CqAxfzy6\n\
        -----END CERTIFICATE-----";

    /// A certificate of version 1 with the subject `backend`, made by OpenSSL and signed by an authority.
    const LEAF_V1: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBHTCBxQIUR46kVzKZEUk16gvVVPsyjBonvFswCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHZ29vZCBjYTAeFw0yNjExMjgwMzM3\n\
        MzVaFw0yNjExMzAwMzM3MzVaMBIxEDAOBgNVBAMMB2JhY2tlbmQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAREIb2eJRHb8QdD\n\
        mD3CBHOG+RBWlgq0J/2NNsSqfR9pMUk5cF5nypD+3Eqae7YDBP4fWFYeRUU7nkr8Z2bPB+CjMAoGCCqGSM49BAMCA0cAMEQCIHgo\n\
        OjwWwzl00+t95XWPD7lC3yD82e71qcez4mVwu22MAiBewz0+pRxHD6bL61bm9c/ZESQLVigUbCvsP3vYrMNZog==\n\
        -----END CERTIFICATE-----";

    fn certificate(names: Vec<String>) -> Certificate {
        let mut params = CertificateParams::new(names).expect("the names are valid");
        params.distinguished_name.push(DnType::CommonName, "chat\nserver");
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 31), date_time_ymd(2126, 1, 31));
        let key = KeyPair::generate().expect("the key can be created");
        Certificate::parse(params.self_signed(&key).expect("the certificate can be created").der())
            .expect("the certificate is valid")
    }

    #[test]
    fn names_and_validity_are_parsed() {
        let names = ["chat.example", "*.chat.example", "127.0.0.1", "::1"].map(str::to_owned);
        let parsed = certificate(names.to_vec());
        assert_eq!(parsed.names, names);
        assert_eq!((parsed.not_before, parsed.not_after), (1_769_817_600, 4_925_491_200));
        assert_eq!(parsed.to_string(), "chat.example, *.chat.example, 127.0.0.1, ::1");
        assert_eq!(parsed.subject(), "CN=chat\\0aserver");
        let start = parsed.not_before;
        assert!(parsed.fault_at(start - 1).is_some_and(|why| why.ends_with("not valid before 2026-01-31T00:00:00Z")));
        assert_eq!((parsed.fault_at(start), parsed.fault_at(parsed.not_after)), (None, None));
        let why = parsed.fault_at(parsed.not_after + 1).expect("the certificate has expired");
        assert!(
            why.starts_with("the certificate of chat.example, ") && why.ends_with("expired at 2126-01-31T00:00:00Z")
        );
    }

    #[test]
    fn authorities_are_recognized() {
        let parse = |der: &[u8]| Certificate::parse(der).expect("the certificate is valid");
        let made = |is_ca: IsCa| {
            let mut params = CertificateParams::new(Vec::new()).expect("the parameters are valid");
            params.is_ca = is_ca;
            let key = KeyPair::generate().expect("the key can be created");
            parse(params.self_signed(&key).expect("the certificate can be created").der()).is_authority
        };
        assert!(made(IsCa::Ca(BasicConstraints::Unconstrained)) && made(IsCa::Ca(BasicConstraints::Constrained(0))));
        assert!(!made(IsCa::ExplicitNoCa) && !made(IsCa::NoCa));
        for (pem, subject, is_authority) in [(ROOT_V1, "CN=v1 ca", true), (LEAF_V1, "CN=backend", false)] {
            let parsed = parse(&CertificateDer::from_pem_slice(pem.as_bytes()).expect("the text is PEM"));
            assert_eq!((parsed.to_string().as_str(), parsed.is_authority), (subject, is_authority));
        }
    }

    #[test]
    fn the_subject_of_a_certificate_without_names_is_written_and_escaped() {
        assert_eq!(certificate(Vec::new()).to_string(), "CN=chat\\0aserver");
        let many = certificate((0..22).map(|number| format!("h{number}.example")).collect());
        assert!(many.to_string().ends_with(", h19.example and 2 more names"), "{many}");
        assert!(Certificate::parse(b"\x30\x03\x02\x01\x01").is_err_and(|why| why.starts_with("invalid certificate: ")));
        assert_eq!(UnixTime(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }
}
