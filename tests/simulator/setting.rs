//! The settings of a run, drawn from the seed.

use std::time::Duration;

use fdpush::{Heartbeat, Limits, SecondLogin, SlowReader};

use crate::rng::Rng;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Setting {
    pub limits: Limits,
    pub heartbeat: Heartbeat,
    pub second_login: SecondLogin,
    /// The maximum number of connections at a time.
    pub slots_max: usize,
    /// The maximum number of connections during the run.
    pub clients_max: usize,
    pub turns: usize,
    pub read_bytes_max: usize,
    /// A flush writes the output of only some connections with a probability of one in this number, or never if this
    /// number is 0.
    pub portions: usize,
    /// The maximum capacity of a pipe in bytes. A pipe is one direction of a simulated connection.
    pub pipe_bytes_max: usize,
    /// The maximum number of commands of other threads in a turn.
    pub commands_a_turn: usize,
    /// The usual time between two turns is at most this number of milliseconds. If the next deadline is earlier, the
    /// turn begins at the deadline.
    pub pace: usize,
    /// After an event, a handler makes a random call with a probability of one in this number.
    pub random_calls: usize,
    /// Whether the generations of slots begin near the maximum, so that slots run out of generations.
    pub is_old: bool,
    /// Whether clients disconnect after a short time, so that slots are often reused.
    pub is_hasty: bool,
    /// One in this number of connections is to a TLS listener. 0: none.
    pub tls_share: usize,
    /// The number of receivers from which on a push is a fan-out.
    pub fan_out_min: usize,
}

impl Setting {
    /// Draws the settings of a seed.
    pub fn draw(rng: &mut Rng) -> Setting {
        let mut setting = Setting::draw_plain(rng);
        // A separate generator draws the settings of compression and TLS. So the runs of seeds without compression and
        // TLS do not change if the number of these draws changes.
        let mut rng = rng.clone().fork();
        if rng.one_in(3) {
            setting.limits.compression = true;
            setting.limits.compress_bytes_min = *rng.pick(&[1, 100, 512]);
            setting.limits.inflated_bytes_per_second_max = *rng.pick(&[50_000, 1 << 20, 1 << 40]);
        }
        setting.tls_share = *rng.pick(&[0, 0, 1, 1, 2, 8]);
        if setting.tls_share > 0 {
            setting.limits.handshakes_per_second_max = *rng.pick(&[None, None, Some(1), Some(20), Some(300)]);
            // `head_time_max` also limits a TLS handshake. A handshake takes several turns, so some runs have a limit
            // that is ten times as long.
            setting.limits.head_time_max *= *rng.pick(&[1, 10]);
        }
        setting
    }

    /// Draws the number of receivers of a fan-out. Two of seven seeds have fan-outs, with a flush that often writes to
    /// only some connections.
    pub fn draw_fan_outs(&mut self, seed: u64) {
        if matches!(seed % 7, 2 | 6) {
            let mut rng = Rng::new(seed.rotate_left(32));
            self.fan_out_min = *rng.pick(&[1, 2, 8]);
            self.portions = *rng.pick(&[1, 2]);
        }
    }

    fn draw_plain(rng: &mut Rng) -> Setting {
        let is_large = rng.one_in(12);
        let slots_max = if is_large { rng.within(500..=2000) } else { rng.within(1..=60) };
        Setting {
            limits: limits(rng),
            heartbeat: heartbeat(rng),
            second_login: *rng.pick(&[SecondLogin::Multi, SecondLogin::KickOld, SecondLogin::RejectNew]),
            slots_max,
            clients_max: if is_large { 2 * slots_max } else { 20 * slots_max + 400 },
            turns: if is_large { rng.within(100..=200) } else { rng.within(200..=700) },
            read_bytes_max: *rng.pick(&[1, 7, 100, 1000, 4096, 65_536]),
            portions: *rng.pick(&[0, 0, 2, 8]),
            pipe_bytes_max: *rng.pick(&[64, 1000, 16_384, 65_536]),
            commands_a_turn: if is_large { 20 } else { *rng.pick(&[1, 2, 8]) },
            pace: *rng.pick(&[2, 20, 200, 2000]),
            random_calls: rng.within(1..=10),
            is_old: rng.one_in(8),
            is_hasty: rng.one_in(4),
            tls_share: 0,
            fan_out_min: usize::MAX,
        }
    }
}

fn limits(rng: &mut Rng) -> Limits {
    let queue_bytes_max = *rng.pick(&[300, 2000, 20_000, 100_000, 300_000]);
    Limits {
        head_time_max: millis(rng, 100, 3000),
        body_time_max: millis(rng, 100, 3000),
        answer_time_max: millis(rng, 100, 3000),
        keep_alive_max: millis(rng, 100, 3000),
        message_bytes_max: *rng.pick(&[200, 5000, 50_000]),
        message_time_max: millis(rng, 100, 5000),
        close_wait_max: millis(rng, 50, 3000),
        queue_bytes_max,
        queue_total_bytes_max: queue_bytes_max * *rng.pick(&[2, 10, 1000]),
        queue_bytes_min: *rng.pick(&[1, 500, 65_536]),
        write_time_max: millis(rng, 100, 5000),
        slow_reader: *rng.pick(&[SlowReader::Close, SlowReader::DropNewest, SlowReader::Conflate]),
        ..Limits::default()
    }
}

/// Draws a heartbeat.
pub fn heartbeat(rng: &mut Rng) -> Heartbeat {
    let every = millis(rng, 10, 4000);
    match rng.below(8) {
        0 => Heartbeat::Off,
        1..3 => Heartbeat::Client { idle_max: every },
        3..5 => Heartbeat::Push { every },
        _ => Heartbeat::Ping { every, missed_max: rng.within(1..=3) as u32 },
    }
}

fn millis(rng: &mut Rng, from: usize, to: usize) -> Duration {
    Duration::from_millis(rng.within(from..=to) as u64)
}
