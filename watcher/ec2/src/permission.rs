//! The check whether an order may still be sent, made when the connection is ready.
//!
//! A slow proxy or handshake takes seconds, and the client may have gone by then. The HTTP library
//! asks for the body of a request only afterwards, right before it sends the body. The order is in
//! the body: a service that received only the headers received no order.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use aws_smithy_types::body::SdkBody;
use fence_device::{Client, Ec2Outcome, Limit};
use http_body::{Body, Frame, SizeHint};

/// The permission to send one order once.
#[derive(Clone, Debug)]
pub(crate) struct Permission {
    client: Option<Client>,
    limit: Limit,
    found: Arc<OnceLock<Result<(), Ec2Outcome>>>,
}

impl Permission {
    /// The permission that `client` gives until `limit`.
    pub(crate) fn new(client: Option<Client>, limit: Limit) -> Self {
        Permission { client, limit, found: Arc::default() }
    }

    /// Whether the order may be sent now; the error is the outcome of an order that may not be
    /// sent.
    pub(crate) fn check(&self) -> Result<(), Ec2Outcome> {
        if self.client.as_ref().is_some_and(|client| !client.is_waiting(self.limit)) {
            return Err(Ec2Outcome::Withdrawn);
        }
        if self.limit.has_passed() { Err(Ec2Outcome::TooLate) } else { Ok(()) }
    }

    /// The result of the check when the connection was ready; after `Ok`, the order may have been
    /// sent. `None` if there never was a connection.
    pub(crate) fn found(&self) -> Option<Result<(), Ec2Outcome>> {
        self.found.get().copied()
    }

    /// `body`, which is sent only with this permission.
    pub(crate) fn guard(&self, body: SdkBody) -> SdkBody {
        SdkBody::from_body_1_x(Guarded { body, permission: self.clone() })
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
        let Permission { found, .. } = &self.permission;
        if found.get_or_init(|| self.permission.check()).is_ok() {
            return Pin::new(&mut self.body).poll_frame(context);
        }
        let forbidden = io::Error::other("the order may not be sent any more");
        Poll::Ready(Some(Err(forbidden.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}
