//! Creates a gateway for each loop, and runs the server.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use fdpush::{Error, Server};

use super::handler::{Gateway, Services, counts_addresses};
use super::loop_settings::{LoopSettings, SettingsBoxes};
use super::plan::Plan;
use super::sighup::ReloadQueue;
use crate::gateway::api::Loops;
use crate::gateway::hooks::emitter::EventEmitter;
use crate::gateway::hooks::webhook::Webhook;
use crate::gateway::identity::addresses::Addresses;
use crate::gateway::identity::api_keys::ApiKeys;
use crate::gateway::identity::connect_hook::Hook;
use crate::gateway::identity::token_counts::TokenCounts;
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::datagrams::DatagramReceiver;
use crate::gateway::runtime::loops::HOME;

/// The services that the server starts before the loops.
pub struct Shared {
    pub keys: Arc<Mutex<ApiKeys>>,
    pub datagrams: Vec<DatagramReceiver>,
    pub hook: Option<Hook>,
    pub webhook: Option<Arc<Webhook>>,
    pub reloads: Arc<ReloadQueue>,
}

/// Runs the server with a gateway for each loop.
pub fn run(server: Server, loops: usize, plan: Plan, shared: Shared) -> Result<(), Error> {
    let settings =
        LoopSettings { settings: Arc::clone(&plan.settings), tokens: plan.tokens.clone(), address_version: 0 };
    let mut services: Vec<Option<Services>> = services(loops, plan, shared).into_iter().map(Some).collect();
    let make = move |index: usize| {
        // `handlers` calls `make` once for each loop.
        let services = services[index].take().unwrap_or_else(|| unreachable!("a loop has one gateway"));
        Gateway::new(settings.clone(), services)
    };
    server.loops(loops).handlers(make).run()
}

/// Creates the [`Services`] for the gateway of each loop.
fn services(loops: usize, plan: Plan, shared: Shared) -> Vec<Services> {
    let Shared { keys, datagrams, hook, webhook, reloads } = shared;
    let hooks = &plan.settings.serve.hooks;
    // With several loops, there are two rosters for each loop: one roster for the gateway, and one roster for the API.
    let rosters = if loops == 1 { 1 } else { 2 * loops };
    let mut rosters = Roster::several(EventEmitter::several(&webhook, hooks.presence_delay.0, rosters));
    let of_api = rosters.split_off(loops);
    let mut first = Some((datagrams, reloads, (loops > 1).then(|| Loops::new(of_api))));
    let (hook, boxes) = (hook.map(Arc::new), (loops > 1).then(|| Arc::new(SettingsBoxes::new(loops))));
    let (unstarted, verified) = (Arc::new(AtomicUsize::new(loops)), Arc::new(TokenCounts::default()));
    let addresses = Addresses::several(loops, counts_addresses(&plan.settings));
    let each = rosters.into_iter().zip(addresses).enumerate().map(|(index, (roster, addresses))| {
        let (datagrams, reloads, loops) = first.take_if(|_| index == HOME).unwrap_or_default();
        Services {
            keys: Arc::clone(&keys),
            datagrams,
            hook: hook.clone(),
            webhook: webhook.clone(),
            reloads,
            boxes: boxes.clone(),
            unstarted: Arc::clone(&unstarted),
            verified: Arc::clone(&verified),
            roster,
            addresses,
            loops,
            tls: plan.tls.clone(),
        }
    });
    each.collect()
}
