//! A push that owns its data, for another thread.

use crate::fd::Fd;
use crate::message::{Content, Push};
use crate::protocol::shared::Frame;

/// A push that owns its data.
pub struct OwnedPush {
    frame: Frame,
    except: Vec<Fd>,
    key: Option<String>,
    may_compress: bool,
}

impl OwnedPush {
    pub fn as_push(&self) -> Push<'_> {
        let OwnedPush { frame, except, key, may_compress } = self;
        Push { content: Content::Frame(frame), except, key: key.as_deref(), may_compress: *may_compress }
    }
}

impl From<Push<'_>> for OwnedPush {
    fn from(push: Push<'_>) -> OwnedPush {
        let frame = push.content.to_frame();
        let key = push.key.map(str::to_owned);
        OwnedPush { frame, except: push.except.to_vec(), key, may_compress: push.may_compress }
    }
}
