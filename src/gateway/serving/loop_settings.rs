//! Sends the settings for clients from the first loop to the other loops after a reload.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fdpush::Context;

use crate::gateway::identity::jwt;
use crate::gateway::runtime::gather::{Part, gather_when_room};
use crate::gateway::runtime::loops::HOME;
use crate::gateway::settings::Settings;

/// The settings that each loop applies to its clients.
#[derive(Clone)]
pub struct LoopSettings {
    pub settings: Arc<Settings>,
    pub tokens: Option<jwt::Keys>,
    /// The number of reloads so far that changed how connections are counted by client address. When this number
    /// changes, each loop counts its connections again.
    pub address_version: u64,
}

/// The settings that the first loop has sent and that another loop has not applied yet, in one queue for each loop.
pub struct SettingsBoxes {
    /// The settings of the last reload. A loop that gets the settings of an earlier reload late applies these settings.
    newest: Mutex<Option<LoopSettings>>,
    queues: Box<[Mutex<VecDeque<Waiting>>]>,
}

type Waiting = (LoopSettings, Part<()>);

impl SettingsBoxes {
    /// Creates an empty queue of settings for each of `loops` loops.
    pub fn new(loops: usize) -> SettingsBoxes {
        SettingsBoxes { newest: Mutex::default(), queues: (0..loops).map(|_| Mutex::default()).collect() }
    }

    /// Sends settings from the first loop to the other loops. Calls `then` when all loops have applied these settings,
    /// or the settings of a later reload.
    pub fn send(
        self: &Arc<Self>,
        ctx: &mut Context<'_>,
        settings: LoopSettings,
        then: impl FnOnce(&mut Context<'_>) + 'static,
    ) {
        *lock(&self.newest) = Some(settings);
        let boxes = Arc::clone(self);
        // The inbox of a loop may be full, so that the settings of a later reload are sent first.
        gather_when_room(ctx, move |ctx, part| boxes.put(ctx, part), then);
    }

    /// Puts the newest settings into the queue of this loop, which applies the settings at the end of its turn.
    fn put(&self, ctx: &mut Context<'_>, part: Part<()>) {
        let newest = lock(&self.newest).clone();
        match newest.filter(|_| ctx.loop_index() != HOME) {
            Some(settings) => {
                lock(&self.queues[ctx.loop_index()]).push_back((settings, part));
                ctx.request_turn_end();
            }
            None => part.give_at_once(()),
        }
    }

    /// Removes and returns the oldest settings in the queue of a loop. The loop applies the settings and then confirms
    /// this through the returned [`Part`].
    pub fn take(&self, index: usize) -> Option<(LoopSettings, Part<()>)> {
        lock(&self.queues[index]).pop_front()
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
