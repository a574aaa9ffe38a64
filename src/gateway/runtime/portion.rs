//! The bound on the work of one turn of the loop, for commands and checks that concern many connections.

use fdpush::{Context, Fd};

/// The maximum number of connections and group memberships that one turn of the loop removes or notifies. This constant
/// is also the maximum number of entries that list commands visit in one turn.
///
/// For example, ten thousand connections that are each in two groups reach this maximum, and the removal of ten
/// thousand such connections takes about 10 ms.
pub const WORK_MAX: usize = 30_000;

/// The budget of work that all list requests in one turn of the loop share.
#[derive(Debug, Default)]
pub struct TurnBudget {
    spent: usize,
}

impl TurnBudget {
    /// Takes the work of one portion from the budget. Returns `false` if the remaining budget is smaller than the work.
    ///
    /// Work above [`WORK_MAX`] counts as [`WORK_MAX`].
    pub fn take(&mut self, work: usize) -> bool {
        let spent = self.spent + work.clamp(1, WORK_MAX);
        let is_within = spent <= WORK_MAX;
        if is_within {
            self.spent = spent;
        }
        is_within
    }

    /// Restores the whole budget at the end of a turn.
    pub fn reset(&mut self) {
        self.spent = 0;
    }
}

/// Takes items until the sum of their work reaches [`WORK_MAX`]. The work of the last item may make the sum exceed
/// [`WORK_MAX`].
pub fn take_portion<T>(mut items: impl Iterator<Item = T>, work_of: impl Fn(&T) -> usize) -> Vec<T> {
    let (mut portion, mut work) = (Vec::new(), 0);
    while work < WORK_MAX
        && let Some(item) = items.next()
    {
        work += work_of(&item);
        portion.push(item);
    }
    portion
}

/// Returns the work for a connection: 1 for the connection, and 1 for each of its groups.
pub fn connection_work(ctx: &Context<'_>, fd: Fd) -> usize {
    1 + ctx.groups_of(fd).len()
}

/// Returns the work for a group: 1 for the group, and 1 for each of its members.
pub fn group_work(ctx: &Context<'_>, group: &str) -> usize {
    1 + ctx.member_count(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_ends_when_its_work_reaches_the_maximum() {
        let mut items = [1, WORK_MAX - 2, 1, 7, WORK_MAX, 3].into_iter();
        let mut take = || take_portion(&mut items, |work| *work);
        assert_eq!(take(), [1, WORK_MAX - 2, 1]);
        assert_eq!(take(), [7, WORK_MAX]);
        assert_eq!(take(), [3]);
        assert!(take().is_empty());
    }

    #[test]
    fn the_total_work_of_the_portions_of_a_turn_is_limited() {
        let mut budget = TurnBudget::default();
        for _ in 0..3 {
            assert!(budget.take(10_000) && budget.take(19_999));
            assert!(!budget.take(2), "work of 29,999 and 2 exceeds the maximum of 30,000");
            assert!(budget.take(0), "a portion without entries counts as 1");
            assert!(!budget.take(0));
            budget.reset();
            assert!(budget.take(usize::MAX), "a portion with more work than the maximum takes the whole budget");
            assert!(!budget.take(1));
            budget.reset();
        }
    }
}
