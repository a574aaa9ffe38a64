//! Starts the server: opens the sockets, starts the threads, creates the handler, and announces the addresses.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fdpush::{Address, Remote, Server, TlsConfig};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::fleet::{self, Shared};
use super::page;
use super::plan::{Plan, api_keys};
use super::sighup;
use super::thread_message::ThreadMessage;
use crate::gateway::api;
use crate::gateway::hooks::webhook::Webhook;
use crate::gateway::identity::api_keys::ApiKeys;
use crate::gateway::identity::exposure::Exposure;
use crate::gateway::identity::proxies::Proxies;
use crate::gateway::operations::systemd::{ApiSocket, Inherited};
use crate::gateway::operations::{logging, memory};
use crate::gateway::push::datagrams::pending::PendingBytes;
use crate::gateway::push::datagrams::{DatagramReceiver, DatagramSocket, DatagramStatus};
use crate::gateway::runtime::threads;
use crate::gateway::settings::cli::{ApiAddress, ClientAddress, Serve};
use crate::gateway::settings::{Settings, back_ends};
use crate::gateway::tls::files::TlsConfigs;

/// The maximum time that the start of the server waits until the addresses are written to standard output.
const ANNOUNCE_TIME_MAX: Duration = Duration::from_secs(1);

/// The maximum time to deliver the last webhook events after the last connection has ended.
const WEBHOOK_FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// An address that the server listens on.
struct Bound {
    address: Address,
    is_tls: bool,
}

/// Writes the address, for example `127.0.0.1:9501` or `tls:127.0.0.1:9443`.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_tls { "tls:" } else { "" };
        write!(f, "{prefix}{}", self.address)
    }
}

/// Starts the server. Returns when the server is drained.
pub fn start(settings: Settings) -> Result<(), Box<dyn Error>> {
    let inherited = Inherited::take()?;
    let serve = &settings.serve;
    log::set_max_level(serve.log.into());
    for warning in settings.warnings() {
        log::warn!("{warning}");
    }
    let endpoints = if settings.listens_by_default() && !inherited.listen.is_empty() { &[] } else { &*serve.listen };
    let tls = settings.tls().configs()?;
    let (server, listeners) = bind(inherited.listen, endpoints, serve, &tls)?;
    serve.check_trust(&addresses_of(&listeners))?;
    let mut api_listeners = Vec::new();
    let (server, datagrams) = bind_api(server, inherited.api, &settings, &tls, &mut api_listeners)?;
    let datagram_addresses: Vec<_> = datagrams.iter().map(|socket| socket.address().clone()).collect();
    let exposure = Exposure::of(&addresses_of(&api_listeners), &datagram_addresses);
    let settings = Arc::new(settings);
    let serve = &settings.serve;
    let plan = Plan::of(Arc::clone(&settings), &exposure, tls)?;
    memory::return_free_pages()?;
    // The SIGHUP thread starts before the addresses are announced, because without this thread SIGHUP ends the process.
    let reloads = sighup::spawn(Arc::clone(&settings), exposure, server.remote())?;
    let keys = Arc::new(Mutex::new(api_keys(&settings)));
    let datagrams = datagrams
        .into_iter()
        .map(|socket| serve_datagrams(socket, Arc::clone(&keys), server.remote()))
        .collect::<Result<Vec<DatagramReceiver>, _>>()?;
    let (limits, origins) = (plan.limits.clone(), plan.origins.clone());
    let heartbeat = serve.heartbeat();
    let second_login = serve.clients.on_second_login.into();
    let node = back_ends::node(serve);
    let (webhook, hook) = (back_ends::webhook(serve, &node)?, back_ends::hook(serve, &node)?);
    let flush_time_max = WEBHOOK_FLUSH_TIME_MAX.min(limits.drain_time_max);
    let shared = Shared { keys, datagrams, hook, webhook: webhook.clone(), reloads };
    let (serves_page, loops) = (serve.serves_page(), serve.loops.count());
    announce(&listeners, serves_page)?;
    for listener in &api_listeners {
        log::info!("the API is on {listener}");
    }
    for address in &datagram_addresses {
        log::info!("the API takes datagrams on {address}");
    }
    if loops > 1 {
        log::info!("{loops} loops");
    }
    let server = server.limits(limits).heartbeat(heartbeat).origins(origins).second_login(second_login);
    let ended = fleet::run(server, loops, plan, shared);
    let flushed = webhook.map_or(Ok(()), |webhook| flush(&webhook, flush_time_max));
    ended.map_err(std::io::Error::from)?;
    flushed?;
    log::info!("the server is drained");
    Ok(())
}

/// Delivers the last webhook events. SIGTERM or SIGINT ends the wait for the delivery.
fn flush(webhook: &Arc<Webhook>, time_max: Duration) -> std::io::Result<()> {
    // The loop has ended and no longer handles signals. So this function handles SIGTERM and SIGINT.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let is_cut = Arc::new(AtomicBool::new(false));
    let waiter = threads::spawn("fdpush-signals", {
        let (webhook, is_cut) = (Arc::clone(webhook), Arc::clone(&is_cut));
        move || {
            if signals.forever().next().is_some() {
                is_cut.store(true, Ordering::Release);
                webhook.give_up();
            }
            Ok(())
        }
    });
    webhook.finish(time_max);
    handle.close();
    if let Ok(waiter) = waiter {
        waiter.thread().unpark();
        let _ = waiter.join();
    }
    match is_cut.load(Ordering::Acquire) {
        true => {
            Err(std::io::Error::new(ErrorKind::Interrupted, "a signal stopped the delivery of the last webhook events"))
        }
        false => Ok(()),
    }
}

/// Adds the API listeners to the server, and binds the datagram sockets of the API.
fn bind_api(
    mut server: Server,
    inherited: Vec<ApiSocket>,
    settings: &Settings,
    tls: &TlsConfigs,
    listeners: &mut Vec<Bound>,
) -> Result<(Server, Vec<DatagramSocket>), Box<dyn Error>> {
    let (clients, mut datagrams) = (server.addresses().count(), Vec::new());
    if settings.serve.api.api_client_ca.is_some() && !inherited.is_empty() {
        return Err(
            "api_client_ca has no effect on API sockets of systemd: these sockets ask clients for no certificate"
                .into(),
        );
    }
    let stands_in = settings.has_default_api() && !inherited.is_empty();
    for socket in inherited {
        match socket {
            ApiSocket::Http(socket) => server = server.listen_control_on(socket)?,
            ApiSocket::Udp(socket) => datagrams.push(DatagramSocket::from_udp(socket)?),
            ApiSocket::UnixDatagram(socket) => datagrams.push(DatagramSocket::from_unixgram(socket)?),
        }
    }
    note(&server, clients, listeners, false);
    for address in settings.serve.api_addresses().filter(|_| !stands_in) {
        match address {
            ApiAddress::Http(stream) if stream.is_tls() => {
                server = server.listen_control_tls(stream.endpoint(), configured(&tls.api)?)?;
            }
            ApiAddress::Http(stream) => server = server.listen_control(stream.endpoint())?,
            ApiAddress::Udp(_) | ApiAddress::UnixDatagram(_) => {
                datagrams.extend(DatagramSocket::bind_all(&address.to_string())?)
            }
            ApiAddress::Off => {}
        }
        note(&server, clients, listeners, address.is_tls());
    }
    Ok((server, datagrams))
}

/// Starts a thread that receives datagrams and sends each valid datagram to the loop.
fn serve_datagrams(
    socket: DatagramSocket,
    keys: Arc<Mutex<ApiKeys>>,
    remote: Remote,
) -> std::io::Result<DatagramReceiver> {
    let waiting = PendingBytes::default();
    DatagramReceiver::start(socket, move |datagram| {
        if let Err(error) = api::check_datagram(&keys, datagram) {
            log::debug!("datagram refused: {:?}", error.message);
            return if error.status == 401 { DatagramStatus::Unauthorized } else { DatagramStatus::Malformed };
        }
        match waiting.admit(datagram).map(|datagram| remote.notify(ThreadMessage::Datagram(datagram))) {
            Some(Ok(())) => DatagramStatus::Done,
            Some(Err(_)) | None => DatagramStatus::Overflowed,
        }
    })
}

/// Creates a server that has all client listeners.
///
/// Listeners that expect a PROXY header are added first, because a call of `Server::proxy_protocol` applies only to the
/// listeners that exist at the time of the call.
fn bind(
    sockets: Vec<OwnedFd>,
    addresses: &[ClientAddress],
    serve: &Serve,
    tls: &TlsConfigs,
) -> Result<(Server, Vec<Bound>), Box<dyn Error>> {
    let all_have_header = serve.clients.proxy_protocol;
    let has_header = |address: &&ClientAddress| all_have_header || address.has_proxy_header();
    let (with_header, without): (Vec<_>, Vec<_>) = addresses.iter().partition(has_header);
    let (sockets_with_header, sockets) = if all_have_header { (sockets, Vec::new()) } else { (Vec::new(), sockets) };
    let mut listeners = Vec::new();
    let server = listen(None, sockets_with_header, &with_header, tls, &mut listeners)?.map(|server| {
        let proxies = Proxies::of(serve);
        server.proxy_protocol(move |peer| proxies.trusts_peer(peer))
    });
    let server = listen(server, sockets, &without, tls, &mut listeners)?;
    Ok((server.ok_or("no address to listen on: give --listen")?, listeners))
}

/// Adds client listeners to a server. If `server` is `None`, creates a server with the new listeners.
fn listen(
    mut server: Option<Server>,
    sockets: Vec<OwnedFd>,
    addresses: &[&ClientAddress],
    tls: &TlsConfigs,
    listeners: &mut Vec<Bound>,
) -> Result<Option<Server>, Box<dyn Error>> {
    for socket in sockets {
        let bound = match server {
            None => Server::from_listener(socket)?,
            Some(server) => server.listen_on(socket)?,
        };
        note(&bound, 0, listeners, false);
        server = Some(bound);
    }
    for address in addresses {
        let endpoint = address.endpoint();
        let bound = match (server, address.is_tls()) {
            (None, false) => Server::bind(endpoint)?,
            (None, true) => Server::bind_tls(endpoint, configured(&tls.clients)?)?,
            (Some(server), false) => server.listen(endpoint)?,
            (Some(server), true) => server.listen_tls(endpoint, configured(&tls.clients)?)?,
        };
        note(&bound, 0, listeners, address.is_tls());
        server = Some(bound);
    }
    Ok(server)
}

/// Returns the TLS settings for a `tls:` address, or an error if no certificate is set.
fn configured(tls: &Option<TlsConfig>) -> Result<TlsConfig, &'static str> {
    tls.clone().ok_or("an address with tls: needs --tls-cert and --tls-key")
}

/// Adds the addresses of new listeners of a server to `listeners`.
///
/// The first `before` addresses of the server are not added to `listeners`.
fn note(server: &Server, before: usize, listeners: &mut Vec<Bound>, is_tls: bool) {
    let added = server.addresses().skip(before + listeners.len()).cloned();
    listeners.extend(added.map(|address| Bound { address, is_tls }).collect::<Vec<_>>());
}

fn addresses_of(listeners: &[Bound]) -> Vec<Address> {
    listeners.iter().map(|listener| listener.address.clone()).collect()
}

/// Writes the client addresses, or the URLs of the demo page, to standard output.
///
/// A new thread writes the addresses, because a write to a full pipe blocks. The start continues after
/// [`ANNOUNCE_TIME_MAX`] at the latest.
fn announce(listeners: &[Bound], serves_page: bool) -> std::io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let line = |listener: &Bound| match listener.address {
        Address::Tcp(tcp) if serves_page => {
            format!("fdpush {version} is running: open {}\n", page::url(tcp, listener.is_tls))
        }
        _ => format!("fdpush {version} is running on {listener}\n"),
    };
    let text: String = listeners.iter().map(line).collect();
    let (done, is_done) = mpsc::channel();
    threads::spawn("fdpush-announce", move || {
        // A write error is ignored, because a closed standard output must not stop the server.
        let _ = logging::print(&text);
        let _ = done.send(());
        Ok(())
    })?;
    let _ = is_done.recv_timeout(ANNOUNCE_TIME_MAX);
    Ok(())
}
