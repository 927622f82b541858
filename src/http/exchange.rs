//! One request with its answer, as its connection needs to know them.

use actix_http::error::PayloadError;
use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::web::Bytes;
use futures_core::Stream;
use std::cell::RefCell;
use std::error::Error as StdError;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::http::connection::Progress;

/// How much of an answer is given to the connection at a time. actix copies each part, and keeps
/// the copy until the client has taken it.
const PART: usize = 16 * 1024;

/// A request that is being answered. Keep it until the answer was sent: see [`Answer`].
pub struct Exchange {
    progress: Option<Rc<Progress>>,
    /// The body of the request, if it has one, read or not. While this exists, actix knows that an
    /// unread rest is not wanted, and closes the connection after the answer. Otherwise it would
    /// read on, however long that takes, to use the connection again.
    _body: Option<Rc<RefCell<Payload>>>,
}

impl Exchange {
    /// Begins with a request, whose body is replaced by one that says when it is waited for.
    pub fn begin(request: &mut ServiceRequest) -> Self {
        let progress = request.conn_data::<Rc<Progress>>().cloned();
        let body = match request.take_payload() {
            Payload::None => None,
            payload => Some(Rc::new(RefCell::new(payload))),
        };
        if let Some(progress) = &progress {
            progress.begin();
        }
        if let Some(body) = body.clone() {
            let stream: actix_http::BoxedPayloadStream =
                Box::pin(RequestBody { body, progress: progress.clone() });
            request.set_payload(stream.into());
        }
        Self { progress, _body: body }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.end();
        }
    }
}

struct RequestBody {
    body: Rc<RefCell<Payload>>,
    progress: Option<Rc<Progress>>,
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = Pin::new(&mut *self.body.borrow_mut()).poll_next(cx);
        if let Some(progress) = &self.progress {
            progress.want_body(part.is_pending());
        }
        part
    }
}

/// The body of an answer. It is sent in parts, so that a slow reader costs little memory.
pub struct Answer {
    /// What was not sent yet; or a body that comes in parts by itself.
    rest: Result<Bytes, BoxBody>,
    size: BodySize,
    _exchange: Exchange,
}

impl Answer {
    /// The body of the answer to a request.
    pub fn new(body: BoxBody, exchange: Exchange) -> Self {
        Self { size: body.size(), rest: body.try_into_bytes(), _exchange: exchange }
    }
}

impl MessageBody for Answer {
    type Error = Box<dyn StdError>;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match &mut self.rest {
            Ok(rest) => {
                let part = rest.len().min(PART);
                Poll::Ready((part > 0).then(|| Ok(rest.split_to(part))))
            }
            Err(parts) => parts.as_pin_mut().poll_next(cx),
        }
    }
}
