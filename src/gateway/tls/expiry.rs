//! Logs warnings before a certificate expires.
//!
//! The expiry of a certificate is a time of the wall clock, but the timers of the loop use the monotonic clock. So an
//! hourly timer starts a check, and the check reads the wall clock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fdpush::{Context, TimerId};

use super::certificate::{Certificate, UnixTime};
use super::files::{Chain, ClientAuthorities, TlsFiles};

/// The time before the expiry of a certificate at which the warnings start.
const WARNING_TIME: Duration = Duration::from_secs(14 * DAY.as_secs());

/// The minimum interval between two warnings about one certificate. A reload repeats the warnings even within this
/// interval.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The interval between two checks of the certificates.
const CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The times of the last warnings about certificates, and the timer of the next certificate check.
#[derive(Debug)]
pub struct ExpiryWatch {
    /// The time of the last warning about each certificate, in seconds since 1970.
    warned_at: BTreeMap<CertificatePlace, u64>,
    timer: Option<TimerId>,
    /// The function that reads the wall clock, in milliseconds since 1970.
    wall_ms: fn() -> u64,
}

/// The setting and the file of a certificate, and the position of the certificate in the file.
type CertificatePlace = (&'static str, PathBuf, usize);

/// A warning about a certificate: the level and the text of a log line.
#[derive(PartialEq, Eq, Debug)]
struct Warning {
    level: log::Level,
    text: String,
}

impl ExpiryWatch {
    /// Creates a watch that has written no warning. `wall_ms` reads the wall clock, in milliseconds since 1970.
    pub fn new(wall_ms: fn() -> u64) -> ExpiryWatch {
        ExpiryWatch { warned_at: BTreeMap::new(), timer: None, wall_ms }
    }

    /// Warns about new certificates that expire soon, and starts the periodic checks.
    pub fn start(&mut self, ctx: &mut Context<'_>, files: &TlsFiles) {
        self.warned_at.clear();
        self.check(files);
        if !files.pairs.is_empty() && self.timer.is_none() {
            self.timer = Some(ctx.set_timer(CHECK_INTERVAL));
        }
    }

    /// Returns whether the timer belongs to this watch. If the timer belongs to this watch, the method checks the
    /// certificates.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId, files: &TlsFiles) -> bool {
        if self.timer.take_if(|own| *own == timer).is_none() {
            return false;
        }
        self.check(files);
        self.timer = Some(ctx.set_timer(CHECK_INTERVAL));
        true
    }

    fn check(&mut self, files: &TlsFiles) {
        for Warning { level, text } in self.take_warnings(files, (self.wall_ms)() / 1000) {
            log::log!(level, "{text}");
        }
    }

    fn take_warnings(&mut self, files: &TlsFiles, now: u64) -> Vec<Warning> {
        let of_chains = files.pairs.iter().flat_map(|pair| warnings_of_chain(&pair.chain, now));
        let of_authorities = files.client_authorities.iter().flat_map(|own| warnings_of_authorities(own, now));
        let mut warnings = Vec::new();
        for (place, warning) in of_chains.chain(of_authorities) {
            // If the wall clock was set back, the time of the last warning is in the future. A time in the future does
            // not suppress a new warning.
            let last = self.warned_at.get(&place).filter(|last| **last <= now);
            if last.is_none_or(|last| now - last >= DAY.as_secs()) {
                self.warned_at.insert(place, now);
                warnings.push(warning);
            }
        }
        warnings
    }
}

impl Warning {
    fn warn(text: String) -> Warning {
        Warning { level: log::Level::Warn, text }
    }

    fn error(text: String) -> Warning {
        Warning { level: log::Level::Error, text }
    }
}

/// Returns the warnings about the certificates of a chain at the time `now`.
fn warnings_of_chain(chain: &Chain, now: u64) -> impl Iterator<Item = (CertificatePlace, Warning)> {
    let (file, server) = (chain.file().display(), chain.server());
    let of_server = chain.fault_at(now).map(Warning::error).or_else(|| {
        let end = near_end(server, now)?;
        Some(Warning::warn(format!("tls_cert {file}: the certificate of {server} {end}")))
    });
    let of_others = chain.others().filter_map(move |other| {
        let near = || Some(format!("tls_cert {file}: {other} {}", near_end(other.certificate, now)?));
        Some((other.number, Warning::warn(other.warning_at(now).or_else(near)?)))
    });
    let numbered = of_server.map(|warning| (1, warning)).into_iter().chain(of_others);
    numbered.map(|(number, warning)| (("tls_cert", chain.file().to_owned(), number), warning))
}

/// Returns the warnings about the certificate authorities of API clients at the time `now`.
fn warnings_of_authorities(
    authorities: &ClientAuthorities,
    now: u64,
) -> impl Iterator<Item = (CertificatePlace, Warning)> {
    let file = authorities.file();
    authorities.certificates().iter().zip(1..).filter_map(move |(authority, number)| {
        let warning = match authority.fault_at(now) {
            Some(why) => Warning::error(format!("api_client_ca {}: {why}", file.display())),
            None => {
                let end = near_end(authority, now)?;
                Warning::warn(format!("api_client_ca {}: the certificate of {authority} {end}", file.display()))
            }
        };
        Some((("api_client_ca", file.to_owned(), number), warning))
    })
}

/// Returns the text `expires in 3 days, at …`, if a certificate expires within [`WARNING_TIME`].
fn near_end(certificate: &Certificate, now: u64) -> Option<String> {
    let left = certificate.not_after.saturating_sub(now);
    if left > WARNING_TIME.as_secs() {
        return None;
    }
    let time = match left / DAY.as_secs() {
        0 => "in less than a day".to_owned(),
        1 => "in 1 day".to_owned(),
        days => format!("in {days} days"),
    };
    Some(format!("expires {time}, at {}", UnixTime(certificate.not_after)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use fdpush::TlsVersion;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::super::files::Pair;
    use super::*;
    use crate::gateway::runtime::files;

    /// The start of the validity period of the certificates in these tests, 2026-01-31, in seconds since 1970.
    const START: u64 = 1_769_817_600;
    const HOUR: u64 = 3600;

    fn files<const COUNT: usize>(pairs: [Pair; COUNT]) -> TlsFiles {
        let version_min = TlsVersion::Tls12;
        TlsFiles { pairs: pairs.into(), keyless: Vec::new(), client_authorities: None, version_min }
    }

    /// Returns a certificate that is valid for `days` days, with its key.
    fn pair(name: &str, days: u64) -> Pair {
        pair_with(name, days, None)
    }

    /// Works like [`pair`]. The file of the chain has a second certificate, which is valid for `other_days` days.
    fn pair_with(name: &str, days: u64, other_days: Option<u64>) -> Pair {
        read_file(name, days, other_days, |path| Pair::read(&Chain::read(path)?, path))
    }

    /// Reads a file that has a certificate, valid for `days` days, and the key of this certificate.
    ///
    /// The file has a second certificate if `other_days` is set. The second certificate is valid for `other_days` days.
    fn read_file<T>(
        name: &str,
        days: u64,
        other_days: Option<u64>,
        read: impl FnOnce(&Path) -> Result<T, String>,
    ) -> T {
        let key = KeyPair::generate().expect("the key can be created");
        let certificate = |days: u64| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).expect("the name is valid");
            params.distinguished_name.push(DnType::CommonName, format!("{days} days"));
            params.not_before = date_time_ymd(2026, 1, 31);
            params.not_after =
                params.not_before + DAY * u32::try_from(days).expect("the number of days fits into 32 bits");
            params.self_signed(&key).expect("the certificate can be created").pem()
        };
        let path = files::unused_path();
        let certificates: String = [days].into_iter().chain(other_days).map(certificate).collect();
        fs::write(&path, certificates + &key.serialize_pem()).expect("the file can be written");
        let content = read(&path).unwrap_or_else(|why| panic!("{why}"));
        fs::remove_file(&path).expect("the file can be removed");
        content
    }

    #[test]
    fn warnings_about_a_certificate_come_daily_from_14_days_before_its_expiry() {
        let files = files([pair("soon.example", 30), pair("later.example", 300)]);
        let end = START + 30 * DAY.as_secs();
        let mut watch = ExpiryWatch::new(|| 0);
        let mut lines = Vec::new();
        for hour in 0..32 * 24 {
            let now = START + hour * HOUR;
            lines.extend(watch.take_warnings(&files, now).into_iter().map(|warning| (now, warning)));
        }
        assert!(lines.iter().all(|(_, warning)| warning.text.contains("certificate of soon.example")), "{lines:?}");
        let times: Vec<u64> = lines.iter().map(|(now, _)| *now).collect();
        let expected: Vec<u64> = (0..16).map(|day| end - WARNING_TIME.as_secs() + day * DAY.as_secs()).collect();
        assert_eq!(times, expected);
        let text = |index: usize| lines[index].1.text.as_str();
        assert!(text(0).ends_with("the certificate of soon.example expires in 14 days, at 2026-03-02T00:00:00Z"));
        assert!(text(13).contains("expires in 1 day, ") && text(14).contains("expires in less than a day, "));
        assert!(lines[..15].iter().all(|(_, warning)| warning.level == log::Level::Warn), "{lines:?}");
        assert!(lines[15].1.level == log::Level::Error && text(15).ends_with("expired at 2026-03-02T00:00:00Z"));
    }

    #[test]
    fn an_invalid_intermediate_certificate_causes_a_warning_and_no_error() {
        let files = files([pair_with("chain.example", 300, Some(20))]);
        let mut watch = ExpiryWatch::new(|| 0);
        let mut at = |day: u64| watch.take_warnings(&files, START + day * DAY.as_secs());
        assert_eq!(at(5), []);
        let soon = at(8);
        let chain = &files.pairs[0].chain;
        let start = format!("tls_cert {}: certificate 2 of 2 (CN=20 days) ", chain.file().display());
        assert_eq!(soon.len(), 1, "{soon:?}");
        assert_eq!(soon[0].text, format!("{start}expires in 12 days, at 2026-02-20T00:00:00Z"));
        let over = at(21);
        assert_eq!((over.len(), over[0].level), (1, log::Level::Warn));
        assert!(over[0].text.starts_with(&format!("{start}expired at 2026-02-20T00:00:00Z: renew")), "{over:?}");
        assert_eq!(chain.fault_at(START + 21 * DAY.as_secs()), None);
        // In the last days of the server's certificate, both certificates cause a warning.
        let both: Vec<_> = at(299).into_iter().map(|warning| warning.text).collect();
        assert!(both.len() == 2 && both[0].contains("chain.example expires in 1 day, "), "{both:?}");
        assert!(both[1].contains(" expired at "), "{both:?}");
    }

    #[test]
    fn a_clock_that_is_set_back_causes_a_new_warning() {
        let files = files([pair("back.example", 10)]);
        let mut watch = ExpiryWatch::new(|| 0);
        let mut count = |now: u64| watch.take_warnings(&files, now).len();
        let now = START + 2 * DAY.as_secs();
        assert_eq!((count(now), count(now), count(now - HOUR), count(now)), (1, 0, 1, 0));
    }
    #[test]
    fn authorities_of_api_clients_cause_warnings_before_their_expiry() {
        let mut files = files([pair("server.example", 300)]);
        let authorities = read_file("authority.example", 20, Some(300), ClientAuthorities::read);
        let start = format!("api_client_ca {}: the certificate of authority.example ", authorities.file().display());
        files.client_authorities = Some(authorities);
        let mut watch = ExpiryWatch::new(|| 0);
        let mut at = |day: u64| watch.take_warnings(&files, START + day * DAY.as_secs());
        assert_eq!(at(5), []);
        assert_eq!(at(6), [Warning::warn(format!("{start}expires in 14 days, at 2026-02-20T00:00:00Z"))]);
        assert_eq!(at(6), []);
        assert_eq!(at(21), [Warning::error(format!("{start}expired at 2026-02-20T00:00:00Z"))]);
    }
}
