//! Answers that wait for the log.

use std::collections::VecDeque;

use klamm_types::Offset;

use super::handle::Answer;
use crate::ControllerError;

/// Answers in the order of the offsets that they stand on.
#[derive(Default)]
pub(crate) struct Parked {
    waiting: VecDeque<(Offset, Answer)>,
}

impl Parked {
    /// Parks `answer` until `offset` is committed. Offsets never fall.
    pub(crate) fn park(&mut self, offset: Offset, answer: Answer) {
        debug_assert!(
            self.waiting.back().is_none_or(|(last, _)| *last <= offset),
            "answers are parked in order"
        );
        self.waiting.push_back((offset, answer));
    }

    /// Lets go of everything up to `committed`.
    pub(crate) fn release(&mut self, committed: Offset) {
        while let Some((offset, answer)) = self.waiting.pop_front_if(|(offset, _)| *offset <= committed) {
            answer(Ok(offset));
        }
    }

    /// Answers everything that waits with `error`.
    pub(crate) fn fail(&mut self, error: &ControllerError) {
        for (_, answer) in self.waiting.drain(..) {
            answer(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn answers_leave_in_order_once_their_offset_is_committed() {
        let (sender, answers) = mpsc::channel();
        let mut parked = Parked::default();
        for offset in [3, 3, 5, 9] {
            let sender = sender.clone();
            parked.park(Offset(offset), Box::new(move |outcome| sender.send(outcome).unwrap()));
        }
        parked.release(Offset(2));
        assert_eq!(answers.try_iter().count(), 0);
        parked.release(Offset(5));
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [3, 3, 5].map(|offset| Ok(Offset(offset))));
        parked.fail(&ControllerError::Interrupted);
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [Err(ControllerError::Interrupted)]);
    }
}
