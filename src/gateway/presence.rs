//! Who is in a group, by uid: a person with three tabs comes in once and leaves once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The persons in each group, with how many of their connections are.
#[derive(Debug, Default)]
pub struct Presence {
    groups: HashMap<Box<str>, HashMap<Box<str>, u32>>,
}

impl Presence {
    /// One connection of `uid` joined `group`. When it is the first, the number of persons there now.
    pub fn enter(&mut self, group: &str, uid: &str) -> Option<usize> {
        let persons = match self.groups.get_mut(group) {
            Some(persons) => persons,
            None => self.groups.entry(group.into()).or_default(),
        };
        match persons.get_mut(uid) {
            Some(connections) => {
                *connections += 1;
                None
            }
            None => {
                persons.insert(uid.into(), 1);
                Some(persons.len())
            }
        }
    }

    /// One connection of `uid` left `group`. When it was the last, the number of persons there now.
    pub fn exit(&mut self, group: &str, uid: &str) -> Option<usize> {
        let persons = self.groups.get_mut(group)?;
        let Entry::Occupied(mut connections) = persons.entry(uid.into()) else { return None };
        *connections.get_mut() -= 1;
        if *connections.get() > 0 {
            return None;
        }
        connections.remove();
        let left = persons.len();
        if left == 0 {
            self.groups.remove(group);
        }
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_and_last_out() {
        let mut presence = Presence::default();
        assert_eq!(presence.enter("room", "ann"), Some(1));
        assert_eq!(presence.enter("room", "ann"), None);
        assert_eq!(presence.enter("room", "bob"), Some(2));
        assert_eq!(presence.exit("room", "ann"), None);
        assert_eq!(presence.exit("room", "ann"), Some(1));
        assert_eq!(presence.exit("room", "ann"), None, "who is out does not leave");
        assert_eq!(presence.exit("room", "bob"), Some(0));
        assert!(presence.groups.is_empty(), "an empty group leaves nothing behind");
    }
}
