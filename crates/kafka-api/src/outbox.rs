//! The outbound half of a connection: answers in order, as far as the client takes them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use klamm_protocol::{Encoded, Payload};
use tokio::net::TcpStream;

use crate::errors::AnswerError;

/// Pieces that one call hands to the socket; more do not pay.
const PIECES_MAX: usize = 32;

/// Bytes that the client has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Outbox {
    /// Adds an answer behind the others.
    ///
    /// # Errors
    /// A payload that is not in memory: nothing here can find it. Nothing of the answer is added then.
    pub(crate) fn push(&mut self, answer: Encoded) -> Result<(), AnswerError> {
        let elsewhere = answer.pieces().iter().find_map(|piece| match piece {
            Payload::Bytes(_) => None,
            Payload::External(external) => Some(external.token),
        });
        if let Some(token) = elsewhere {
            return Err(AnswerError::PayloadElsewhere { token });
        }
        self.len = self.len.saturating_add(answer.len());
        self.pieces.extend(answer.into_pieces().into_iter().filter_map(|piece| match piece {
            Payload::Bytes(bytes) => Some(bytes),
            Payload::External(_) => None,
        }));
        Ok(())
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes until all is sent or the socket takes no more; returns how many bytes it took.
    ///
    /// # Errors
    /// What the socket tells, but for "would block".
    pub(crate) fn write(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let mut total: usize = 0;
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            let (used, _) = slices.split_at(count);
            match socket.try_write_vectored(used) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    self.advance(taken);
                    total = total.saturating_add(taken);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    fn advance(&mut self, mut taken: usize) {
        self.len = self.len.saturating_sub(taken);
        while let Some(piece) = self.pieces.front_mut() {
            if taken < piece.len() {
                piece.advance(taken);
                return;
            }
            taken -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::{Records, Writer};

    use super::*;

    fn encoded(payload: &Records) -> Encoded {
        let mut writer = Writer::new();
        writer.int32(7);
        writer.records(false, payload).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_socket_takes_at_a_time() {
        let payload = Bytes::from(vec![9; 1000]);
        let mut outbox = Outbox::default();
        outbox.push(encoded(&payload.into())).unwrap();
        assert_eq!(outbox.len(), 1008);
        for taken in [3, 5, 600, 400] {
            outbox.advance(taken);
        }
        assert!(outbox.is_empty() && outbox.pieces.is_empty());
    }

    #[test]
    fn a_payload_that_is_not_in_memory_is_refused() {
        let mut outbox = Outbox::default();
        let refused = outbox.push(encoded(&Records::external(5, 10)));
        assert_eq!(refused, Err(AnswerError::PayloadElsewhere { token: 5 }));
        assert!(outbox.is_empty() && outbox.pieces.is_empty());
    }
}
