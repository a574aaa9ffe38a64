//! Runs the fuzz target on random lists of operations, and on one list that once found a fault.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_list_of_operations(operations in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_connection(&operations);
    }

    /// Runs lists of operations on connections that are open from the start.
    ///
    /// Random operations alone rarely open a connection.
    #[test]
    fn any_list_of_operations_on_open_connections(
        setting in any::<[u8; 2]>(),
        operations in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let both = [3, 0, 4, 250, 143, 0, 144, 250];
        fuzz_connection(&[&setting[..], &both, &operations].concat());
    }

    /// Works like `any_list_of_operations_on_open_connections`, but both clients negotiated permessage-deflate.
    #[test]
    fn any_list_of_operations_on_deflating_connections(
        bounds in 108..=u8::MAX,
        manner in any::<u8>(),
        requests in (8..10_u8, 8..10_u8),
        operations in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let both = [3, requests.0, 4, 250, 143, requests.1, 144, 250];
        fuzz_connection(&[&[bounds, manner][..], &both, &operations].concat());
    }

    #[test]
    fn any_request(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_upgrade(&bytes);
    }
}

/// A smaller queue is not evicted in place of a large partly written message.
#[test]
fn a_partly_written_largest_holder_does_not_evict_a_smaller_one() {
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
