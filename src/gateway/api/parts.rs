//! The parts of the gateway that an API call reads or changes.

use fdpush::Stats;

use crate::gateway::operations::metrics::Metrics;
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::publish::Publisher;

/// A function that returns the text of the metrics. The first argument is the statistics of the whole server. The
/// second argument contains the statistics of each loop if there are several loops, and is empty otherwise.
pub type MetricsText = Box<dyn FnOnce(&Stats, &[Stats]) -> String>;

/// The roster, the publisher and the metrics of the gateway.
pub struct ApiParts<'a> {
    pub roster: &'a mut Roster,
    pub publisher: &'a mut Publisher,
    pub metrics: &'a Metrics,
}
