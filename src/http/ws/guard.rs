//! Looks at the heads of incoming frames before anybody keeps what follows them.
//!
//! The framework's codec makes room for a frame whatever its length, and says of most faults only that there was one. Here a frame is refused at its head, with the close code that RFC 6455 has for it.
//!
//! Must not know: sockets, what messages say. Invariants: no more than one message of [`MAX_MESSAGE`] is let through at a
//! time; what is let through is well-formed but for its text and the inside of close frames.

use crate::wire::CloseReason;

/// Largest message, in one frame or several, in bytes. A `where` is at most 8 kB; more than this in one write belongs into
/// `POST /v1/batch`.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;

/// Parts a message may come in: nobody else counts frames that complete nothing.
const MAX_FRAGMENTS: u32 = 256;

/// Longest head: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;

/// Largest payload of a ping, pong or close: RFC 6455, 5.5.
const MAX_CONTROL: u64 = 125;

/// Follows the frames in a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Guard {
    head: [u8; MAX_HEAD],
    /// Bytes of the head that are there.
    have: usize,
    /// Bytes of the payload that are still to come.
    payload: u64,
    /// Bytes of the message at hand, when it comes in several frames.
    message: Option<u64>,
    /// Its frames so far.
    fragments: u32,
}

impl Guard {
    /// Looks at the next bytes.
    ///
    /// # Errors
    /// Why the connection ends here, with the number of bytes before the frame at fault.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<(), (usize, CloseReason)> {
        let (mut at, mut begin) = (0, 0);
        while at < bytes.len() {
            if self.payload > 0 {
                let here = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.payload -= here as u64;
                at += here;
                continue;
            }
            if self.have == 0 {
                begin = at;
            }
            self.head[self.have] = bytes[at];
            self.have += 1;
            at += 1;
            match self.judge() {
                Ok(None) => {}
                Ok(Some(payload)) => (self.have, self.payload) = (0, payload),
                Err(reason) => return Err((begin, reason)),
            }
        }
        Ok(())
    }

    /// What the head says so far: the length of the payload once it is whole.
    fn judge(&mut self) -> Result<Option<u64>, CloseReason> {
        let [first, second, ref rest @ ..] = self.head;
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        let control = opcode >= 8;
        let known = matches!(opcode, 0..=2 | 8..=10);
        // reserved bits belong to extensions, and none was agreed on
        if first & 0x70 != 0 || !known || (control && !last) {
            return Err(CloseReason::ProtocolError);
        }
        if !control && (opcode == 0) != self.message.is_some() {
            return Err(CloseReason::ProtocolError);
        }
        if opcode == 2 {
            return Err(CloseReason::NotText);
        }
        if self.have < 2 {
            return Ok(None);
        }
        // clients mask
        if second & 0x80 == 0 {
            return Err(CloseReason::ProtocolError);
        }
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.have < 2 + wide {
            return Ok(None);
        }
        let length = match wide {
            0 => u64::from(second & 0x7f),
            wide => rest[..wide].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if length >> 63 != 0 || (control && length > MAX_CONTROL) {
            return Err(CloseReason::ProtocolError);
        }
        let whole = length.saturating_add(self.message.unwrap_or_default());
        if !control && whole > MAX_MESSAGE as u64 {
            return Err(CloseReason::TooBig);
        }
        if self.have < 2 + wide + 4 {
            return Ok(None);
        }
        if !control {
            self.fragments = if last { 0 } else { self.fragments + 1 };
            if self.fragments > MAX_FRAGMENTS {
                return Err(CloseReason::Quota);
            }
            self.message = (!last).then_some(whole);
        }
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
            126..=0xffff => frame.extend([&[0xfe][..], &u16::try_from(length).unwrap().to_be_bytes()].concat()),
            _ => frame.extend([&[0xff][..], &(length as u64).to_be_bytes()].concat()),
        }
        frame.extend([1, 2, 3, 4]);
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn faults_are_named_before_the_payload_came() {
        let huge = [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes()].concat();
        let negative = [&[0x81, 0xff][..], &(1_u64 << 63).to_be_bytes()].concat();
        for (bytes, reason) in [
            (vec![0xc1, 0x80], CloseReason::ProtocolError),
            (vec![0x91], CloseReason::ProtocolError),
            (vec![0x83], CloseReason::ProtocolError),
            (vec![0x8b], CloseReason::ProtocolError),
            (vec![0x81, 0x05], CloseReason::ProtocolError),
            (vec![0x09, 0x80], CloseReason::ProtocolError),
            (vec![0x89, 0xfe, 0, 126], CloseReason::ProtocolError),
            (vec![0x80, 0x80], CloseReason::ProtocolError),
            ([frame(0x01, 3), vec![0x81]].concat(), CloseReason::ProtocolError),
            (vec![0x82], CloseReason::NotText),
            (huge, CloseReason::TooBig),
            (negative, CloseReason::ProtocolError),
            (frame(0x81, MAX_MESSAGE + 1)[..10].to_vec(), CloseReason::TooBig),
            ([frame(0x01, MAX_MESSAGE), frame(0x00, 1)].concat(), CloseReason::TooBig),
        ] {
            let (_, found) = Guard::default().look(&bytes).expect_err(&format!("{:?}", &bytes[..bytes.len().min(14)]));
            assert_eq!(found, reason, "{:?}", &bytes[..bytes.len().min(14)]);
        }
    }

    #[test]
    fn a_message_comes_in_so_many_parts() {
        let parts = |count| [frame(0x01, 0), [0x00, 0x80, 1, 2, 3, 4].repeat(count - 1)].concat();
        let many = MAX_FRAGMENTS as usize;
        assert_eq!(Guard::default().look(&parts(many)), Ok(()));
        assert_eq!(Guard::default().look(&parts(many + 1)), Err((6 * many, CloseReason::Quota)));
        let again = [parts(many), frame(0x80, 0)].concat().repeat(3);
        assert_eq!(Guard::default().look(&again), Ok(()), "counted anew for each message");
    }

    #[test]
    fn what_stands_before_the_fault_is_let_through() {
        let good = [frame(0x81, 300), frame(0x89, 125)].concat();
        let bytes = [good.clone(), vec![0x82, 0x80]].concat();
        assert_eq!(Guard::default().look(&bytes), Err((good.len(), CloseReason::NotText)));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(
            lengths in proptest::collection::vec(0_usize..200, 1..20), cut in 1_usize..64,
        ) {
            // a message in several frames, with a ping between each two of them
            let mut bytes = Vec::new();
            for (i, length) in lengths.iter().enumerate() {
                let first = u8::from(i == 0) | if i + 1 == lengths.len() { 0x80 } else { 0 };
                bytes.extend(frame(first, *length));
                bytes.extend(frame(0x89, length % 126));
            }
            bytes.extend(frame(0x81, MAX_MESSAGE));
            let mut guard = Guard::default();
            for part in bytes.chunks(cut) {
                prop_assert_eq!(guard.look(part), Ok(()));
            }
            prop_assert_eq!(guard.look(&[0x80]), Err((0, CloseReason::ProtocolError)), "nothing is left open");
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Err((good, _)) = Guard::default().look(&bytes) {
                prop_assert!(good <= bytes.len());
                prop_assert!(Guard::default().look(&bytes[..good]).is_ok());
            }
        }
    }
}
