//! Sends the settings for clients from the first loop to the other loops after a reload.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fdpush::Context;

use crate::gateway::identity::jwt;
use crate::gateway::runtime::gather::{GatherError, Part, gather};
use crate::gateway::runtime::loops::HOME;
use crate::gateway::settings::Settings;

/// If the inbox of a loop is full, the first loop sends the settings again after this time.
const REPEAT_AFTER: Duration = Duration::from_millis(10);

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
pub struct SettingsBoxes(Box<[Mutex<VecDeque<Waiting>>]>);

type Waiting = (LoopSettings, Part<()>);

impl SettingsBoxes {
    /// Creates an empty queue of settings for each of `loops` loops.
    pub fn new(loops: usize) -> SettingsBoxes {
        SettingsBoxes((0..loops).map(|_| Mutex::default()).collect())
    }

    /// Sends settings from the first loop to the other loops. Calls `then` when all loops have applied them.
    pub fn send(
        self: &Arc<Self>,
        ctx: &mut Context<'_>,
        settings: LoopSettings,
        then: impl FnOnce(&mut Context<'_>) + 'static,
    ) {
        let (boxes, sent) = (Arc::clone(self), settings.clone());
        let put = move |ctx: &mut Context<'_>, part: Part<()>| match ctx.loop_index() {
            HOME => part.give_at_once(()),
            index => {
                boxes.lock(index).push_back((sent.clone(), part));
                ctx.request_turn_end();
            }
        };
        let boxes = Arc::clone(self);
        gather(ctx, put, move |ctx, result| match result {
            Err(GatherError::Full) => {
                ctx.after(REPEAT_AFTER, move |ctx| boxes.send(ctx, settings, then));
            }
            // A loop that has ended needs no settings.
            Ok(_) | Err(GatherError::Incomplete) => then(ctx),
        });
    }

    /// Removes and returns the oldest settings in the queue of a loop. The loop applies the settings and then confirms
    /// this through the returned [`Part`].
    pub fn take(&self, index: usize) -> Option<(LoopSettings, Part<()>)> {
        self.lock(index).pop_front()
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
