//! Whether an order may still be sent, looked at when its connection is ready.
//!
//! A connection takes seconds where a proxy or a handshake is slow, and the client may be gone by
//! then. HTTP asks for the body of a call after that, right before it is sent. An order is its
//! body: whoever got the rest alone was told nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use aws_smithy_types::body::SdkBody;
use fence_device::{Client, Limit};
use http_body::{Body, Frame, SizeHint};

/// The permission to send one order once.
#[derive(Clone, Debug)]
pub(crate) struct Permission {
    client: Option<Client>,
    limit: Limit,
    look: Arc<OnceLock<Look>>,
}

/// What was seen when the connection was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The order may have been sent.
    Permitted,
    /// Nobody waited any more.
    Withdrawn,
    /// The limit had passed.
    TooLate,
}

impl Permission {
    /// The permission that `client` gives until `limit`.
    pub(crate) fn new(client: Option<Client>, limit: Limit) -> Self {
        Permission { client, limit, look: Arc::default() }
    }

    /// What was seen; `None` if there never was a connection.
    pub(crate) fn look(&self) -> Option<Look> {
        self.look.get().copied()
    }

    /// `body`, which is sent only with this permission.
    pub(crate) fn guard(&self, body: SdkBody) -> SdkBody {
        SdkBody::from_body_1_x(Guarded { body, permission: self.clone() })
    }

    fn look_now(&self) -> Look {
        *self.look.get_or_init(|| {
            if self.client.as_ref().is_some_and(|client| !client.is_waiting(self.limit)) {
                Look::Withdrawn
            } else if self.limit.has_passed() {
                Look::TooLate
            } else {
                Look::Permitted
            }
        })
    }
}

struct Guarded {
    body: SdkBody,
    permission: Permission,
}

impl Body for Guarded {
    type Data = <SdkBody as Body>::Data;
    type Error = <SdkBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.permission.look_now() {
            Look::Permitted => Pin::new(&mut self.body).poll_frame(context),
            Look::Withdrawn | Look::TooLate => Poll::Ready(Some(Err(io::Error::other(
                "the order may not be sent any more",
            )
            .into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}
