//! Says in what state a node is, by its record in the map and by what it answers. The code is pure.

use tern_proto::v1;

/// The state of a node, as operators read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The node did not answer.
    NoAnswer,
    /// Another incarnation answers than the map has.
    Restarted,
    /// The node takes no new work, and ends soon.
    Draining,
    /// The node is cut off from what others reach.
    Unwell,
    /// None of these is the case.
    Up,
}

impl State {
    /// Returns the state of a node of the map.
    pub fn of(node: &v1::ClusterNode) -> Self {
        match &node.answer {
            None => Self::NoAnswer,
            Some(answer) if answer.incarnation != node.incarnation => Self::Restarted,
            Some(answer) if node.draining || answer.draining => Self::Draining,
            Some(_) if node.unwell => Self::Unwell,
            Some(_) => Self::Up,
        }
    }

    /// Returns the text to print. What somebody should look at is in capitals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "NO ANSWER",
            Self::Restarted => "RESTARTED",
            Self::Draining => "draining",
            Self::Unwell => "UNWELL",
            Self::Up => "up",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_what_the_map_and_the_node_say() {
        let node = |draining, unwell, answer: Option<(u64, bool)>| {
            let answer = answer.map(|(incarnation, draining)| v1::NodeAnswer {
                incarnation,
                draining,
                ..Default::default()
            });
            State::of(&v1::ClusterNode {
                incarnation: 7,
                draining,
                unwell,
                answer,
                ..Default::default()
            })
        };
        assert_eq!(node(true, true, None), State::NoAnswer);
        assert_eq!(node(true, true, Some((8, true))), State::Restarted);
        assert_eq!(node(true, true, Some((7, false))), State::Draining);
        assert_eq!(node(false, true, Some((7, true))), State::Draining);
        assert_eq!(node(false, true, Some((7, false))), State::Unwell);
        assert_eq!(node(false, false, Some((7, false))), State::Up);
    }
}
