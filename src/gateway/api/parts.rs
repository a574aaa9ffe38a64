//! The parts of the gateway that an API call reads or changes.

use fdpush::Stats;

use crate::gateway::operations::metrics::Metrics;
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::publish::Publisher;

/// The text of the metrics for these statistics of the server, and of each loop if there are several loops.
pub type MetricsText = Box<dyn FnOnce(&Stats, &[Stats]) -> String>;

/// The roster, the publisher and the metrics of the gateway.
pub struct ApiParts<'a> {
    pub roster: &'a mut Roster,
    pub publisher: &'a mut Publisher,
    pub metrics: &'a Metrics,
}
