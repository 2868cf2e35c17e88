//! Which controller to ask.

use klamm_rpc::{ControllerLocation, NodeAddress};

/// How many controllers are remembered; a quorum has three or five.
const NODES_MAX: usize = 16;

/// The controllers that are known, and the one that is thought to be active.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Quorum {
    nodes: Vec<NodeAddress>,
    target: usize,
}

impl Quorum {
    /// The controllers at `nodes`, without a guess which is active. An empty list stands for a place where nobody is.
    pub(super) fn new(mut nodes: Vec<NodeAddress>) -> Self {
        nodes.dedup();
        if nodes.is_empty() {
            nodes.push(NodeAddress::new("", 0));
        }
        Self { nodes, target: 0 }
    }

    /// Whom to ask.
    pub(super) fn target(&self) -> &NodeAddress {
        // The list is never empty, and the index is always taken modulo its length.
        &self.nodes[self.target]
    }

    /// `asked` did not serve, and named who may. Tells whether there is somebody else to ask who has been named.
    /// If others have moved on already, nothing changes: their failure was the same.
    pub(super) fn on_failure(&mut self, asked: &NodeAddress, hint: Option<&ControllerLocation>) -> bool {
        if self.target() != asked {
            return true;
        }
        match hint {
            Some(location) if location.address != *asked => {
                self.target = self.index_of(&location.address);
                true
            }
            _ => {
                self.target = (self.target + 1) % self.nodes.len();
                false
            }
        }
    }

    fn index_of(&mut self, address: &NodeAddress) -> usize {
        if let Some(index) = self.nodes.iter().position(|node| node == address) {
            return index;
        }
        if self.nodes.len() >= NODES_MAX {
            // The newest of those that were learnt goes; those that were configured stay.
            self.nodes.pop();
        }
        self.nodes.push(address.clone());
        self.nodes.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use klamm_types::BrokerId;

    use super::*;

    fn node(number: u16) -> NodeAddress {
        NodeAddress::new("c", number)
    }

    fn hint(number: u16) -> ControllerLocation {
        ControllerLocation { node_id: BrokerId(number.into()), address: node(number) }
    }

    #[test]
    fn hints_are_followed_and_others_asked_in_turn() {
        let mut quorum = Quorum::new(vec![node(1), node(2), node(3)]);
        assert_eq!(quorum.target(), &node(1));
        assert!(!quorum.on_failure(&node(1), None));
        assert_eq!(quorum.target(), &node(2));
        assert!(quorum.on_failure(&node(2), Some(&hint(1))));
        assert_eq!(quorum.target(), &node(1));
        // A node that names itself and refuses knows nothing.
        assert!(!quorum.on_failure(&node(1), Some(&hint(1))));
        assert_eq!(quorum.target(), &node(2));
    }

    #[test]
    fn a_failure_that_others_have_met_before_moves_nothing() {
        let mut quorum = Quorum::new(vec![node(1), node(2), node(3)]);
        assert!(!quorum.on_failure(&node(1), None));
        assert!(quorum.on_failure(&node(1), None));
        assert_eq!(quorum.target(), &node(2));
    }

    #[test]
    fn unknown_controllers_are_learnt_up_to_a_limit() {
        let mut quorum = Quorum::new(vec![node(1)]);
        for number in 2..100 {
            let asked = quorum.target().clone();
            assert!(quorum.on_failure(&asked, Some(&hint(number))));
            assert_eq!(quorum.target(), &node(number));
        }
        assert_eq!(quorum.nodes.len(), NODES_MAX);
        let asked = quorum.target().clone();
        quorum.on_failure(&asked, None);
        assert_eq!(quorum.target(), &node(1));
    }

    #[test]
    fn without_controllers_there_is_an_address_that_nobody_has() {
        let mut quorum = Quorum::new(Vec::new());
        let asked = quorum.target().clone();
        assert_eq!(asked.port, 0);
        assert!(!quorum.on_failure(&asked, None));
    }
}
