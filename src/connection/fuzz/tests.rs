//! Runs the fuzz target on random lists of operations, and on one list that once found a fault.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_on_new_connections_match_the_model(operations in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_connection(&operations);
    }

    /// Runs lists of operations on connections that are open WebSockets before the first operation.
    ///
    /// Random operations rarely open a WebSocket.
    #[test]
    fn operations_on_open_web_sockets_match_the_model(
        setting in any::<[u8; 2]>(),
        operations in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let both = [3, 0, 4, 250, 143, 0, 144, 250];
        fuzz_connection(&[&setting[..], &both, &operations].concat());
    }

    /// Works like `operations_on_open_web_sockets_match_the_model`, but both clients negotiated permessage-deflate.
    #[test]
    fn operations_on_deflating_web_sockets_match_the_model(
        bounds in 108..=u8::MAX,
        manner in any::<u8>(),
        requests in (8..10_u8, 8..10_u8),
        operations in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let both = [3, requests.0, 4, 250, 143, requests.1, 144, 250];
        fuzz_connection(&[&[bounds, manner][..], &both, &operations].concat());
    }

    #[test]
    fn any_input_gets_a_valid_response(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_upgrade(&bytes);
    }
}

/// The connection with the largest queue has only a partly written message, which cannot be dropped. The other
/// connection keeps its messages.
#[test]
fn a_small_queue_is_not_evicted_because_of_a_large_partly_written_message() {
    let both = [3, 0, 4, 250, 143, 0, 144, 250];
    fuzz_connection(
        &[
            &[37u8, 10][..],
            &both,
            &[
                62, 207, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 73, 0, 74, 0, 100, 0, 0, 12, 0, 246, 227, 0, 232,
                1, 30, 2, 187, 158, 0, 54, 0, 9, 95, 23, 0, 208, 118, 120, 0, 0, 146, 123,
            ],
        ]
        .concat(),
    );
}
