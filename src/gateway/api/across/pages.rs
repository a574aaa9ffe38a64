//! Merges the pages of all loops into one page.

use fdpush::Fd;

/// The page of one loop: entries in the order of their slots, and the fd after which the next page of this loop begins.
pub type LoopPage<T> = (Vec<T>, Option<u64>);

/// Merges the pages of all loops into one page in the order of slots. Returns the entries of the merged page, and the
/// fd after which the next page begins.
///
/// The merged page has at most `limit` entries. It ends after the first entry with which the sum of `weight_of` for all
/// entries exceeds `weight_max`.
pub fn merge<T>(
    pages: Vec<LoopPage<T>>,
    limit: usize,
    fd_of: impl Fn(&T) -> u64,
    weight_of: impl Fn(&T) -> usize,
    weight_max: usize,
) -> LoopPage<T> {
    // If the page of a loop is not the last page of the loop, the loop has further entries after the end of the page.
    // So the merged page must not continue after the first of these ends.
    let end = pages.iter().filter_map(|(_, next)| *next).min_by_key(|fd| slot_of(*fd));
    let mut entries: Vec<T> = pages.into_iter().flat_map(|(entries, _)| entries).collect();
    entries.sort_unstable_by_key(|entry| slot_of(fd_of(entry)));
    let is_known = |entry: &T| end.is_none_or(|end| slot_of(fd_of(entry)) <= slot_of(end));
    let known = entries.iter().take_while(|entry| is_known(entry)).count();
    let mut weight = 0;
    let is_within = |entry: &&T| {
        let is_within = weight <= weight_max;
        weight += weight_of(entry);
        is_within
    };
    let count = entries.iter().take(known.min(limit)).take_while(is_within).count();
    entries.truncate(count);
    let next = match entries.last() {
        Some(last) if count < known => Some(fd_of(last)),
        _ => end,
    };
    (entries, next)
}

fn slot_of(fd: u64) -> u32 {
    Fd::from_u64(fd).map_or(0, |fd| fd.slot().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a page of at most `limit` fds of one loop that are greater than `after`.
    fn page(fds: &[u64], after: u64, limit: usize) -> LoopPage<u64> {
        let left: Vec<u64> = fds.iter().copied().filter(|fd| *fd > after).collect();
        let page: Vec<u64> = left.iter().copied().take(limit).collect();
        let next = page.last().copied().filter(|_| left.len() > limit);
        (page, next)
    }

    #[test]
    fn merged_pages_list_each_entry_once_and_in_order() {
        let loops: [Vec<u64>; 3] = [(1..40).step_by(3).collect(), vec![2, 5, 38], Vec::new()];
        let mut all: Vec<u64> = loops.concat();
        all.sort_unstable();
        for limit in [1, 2, 3, 7, 100] {
            for weight_max in [0, 1, 5, usize::MAX] {
                let (mut listed, mut after) = (Vec::new(), 0);
                loop {
                    let pages = loops.iter().map(|fds| page(fds, after, limit)).collect();
                    let (entries, next) = merge(pages, limit, |fd| *fd, |_| 1, weight_max);
                    assert!(entries.len() <= limit.min(weight_max.saturating_add(1)));
                    assert!(!entries.is_empty(), "a page before the last must not be empty");
                    listed.extend(entries);
                    let Some(next) = next else { break };
                    after = next;
                }
                assert_eq!(listed, all, "limit {limit}, weight_max {weight_max}");
            }
        }
        assert_eq!(merge(Vec::<LoopPage<u64>>::new(), 9, |fd| *fd, |_| 1, 9), (Vec::new(), None));
    }

    #[test]
    fn a_page_of_a_loop_whose_connections_have_all_closed_has_a_next_page() {
        // The connections on the page of the first loop have closed since the loop found its page.
        let pages = vec![(Vec::new(), Some(4)), (vec![2, 5], None)];
        assert_eq!(merge(pages, 2, |fd| *fd, |_| 1, 9), (vec![2], Some(4)));
    }
}
