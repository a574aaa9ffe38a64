//! A message that is kept after its push, for receivers that get it in later turns.

use super::{JournalPart, Outbound, Range, Source};
use crate::protocol::shared::{Frame, SharedFrame};

/// The message of a push to very many connections, with its encoded forms.
///
/// An [`Outbound`] borrows its payload from the caller of the push. A kept message owns its frame and its key.
/// [`lend`](KeptMessage::lend) makes an `Outbound` for one receiver, and keeps the forms that this receiver needed. So
/// each form is encoded once, and all queues share it.
#[derive(Debug)]
pub struct KeptMessage {
    frame: Frame,
    key: Option<Box<str>>,
    may_deflate: bool,
    /// The length of the plain frame, and its memory in a queue besides its bytes.
    bytes: usize,
    overhead: usize,
    plain: Form,
    /// The form for clients that negotiated permessage-deflate, after the first of them got the message.
    deflated: Option<DeflatedForm>,
}

/// An encoded form of a message.
#[derive(Clone, Debug, Default)]
struct Form {
    shared: Option<SharedFrame>,
    /// The range of the frame in the journal of this turn.
    place: Option<Range>,
}

#[derive(Debug)]
struct DeflatedForm {
    /// Whether the frame is deflated. If not, the form has the bytes of the plain frame.
    is_deflated: bool,
    bytes: usize,
    form: Form,
}

impl<'a> Outbound<'a> {
    /// Copies the message, to send it to more connections after the push.
    pub fn to_kept(&self) -> KeptMessage {
        let frame = match self.source {
            Source::Payload(opcode, payload) => Frame::encode(opcode, payload),
            Source::Frame(frame) => frame.clone(),
            Source::Deflated => unreachable!("a push must start with a plain message"),
        };
        let message = Outbound { to_many: true, key: self.key, ..Outbound::frame(&frame) };
        let (bytes, overhead) = (message.bytes(), message.overhead());
        let (key, may_deflate) = (self.key.map(Into::into), self.may_deflate);
        KeptMessage { frame, key, may_deflate, bytes, overhead, plain: Form::default(), deflated: None }
    }

    fn form(&self) -> Form {
        Form { shared: self.shared.clone(), place: self.place }
    }
}

impl KeptMessage {
    /// Returns the length of the plain frame in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the memory that the message takes in a queue in addition to its bytes.
    pub fn overhead(&self) -> usize {
        self.overhead
    }

    /// Calls `send` with the message.
    pub fn lend<R>(&mut self, send: impl FnOnce(&mut Outbound<'_>) -> R) -> R {
        let key = self.key.as_deref();
        let deflated =
            self.deflated.as_ref().map(|DeflatedForm { is_deflated, bytes, form: Form { shared, place } }| {
                let source = if *is_deflated { Source::Deflated } else { Source::Frame(&self.frame) };
                let (shared, place, part) = (shared.clone(), *place, JournalPart::Deflated);
                Box::new(Outbound { part, key, shared, place, ..Outbound::new(source, *bytes, true) })
            });
        let mut outbound = Outbound {
            key,
            may_deflate: self.may_deflate,
            shared: self.plain.shared.clone(),
            place: self.plain.place,
            deflated,
            ..Outbound::frame(&self.frame)
        };
        let result = send(&mut outbound);
        let plain = outbound.form();
        let deflated = outbound.deflated.map(|deflated| DeflatedForm {
            is_deflated: deflated.is_deflated(),
            bytes: deflated.bytes(),
            form: deflated.form(),
        });
        (self.plain, self.deflated) = (plain, deflated);
        result
    }

    /// Forgets the ranges in the journal, because the journal was cleared.
    pub fn forget_places(&mut self) {
        self.plain.place = None;
        if let Some(deflated) = &mut self.deflated {
            deflated.form.place = None;
        }
    }
}
