//! The parts of the gateway that an API call changes or reads.

use crate::gateway::operations::metrics::Metrics;
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::publish::Publisher;

/// The parts of the gateway that the API uses.
pub struct ApiParts<'a> {
    pub roster: &'a mut Roster,
    pub publisher: &'a mut Publisher,
    pub metrics: &'a Metrics,
}
