//! What goes back to a caller: a document, a stream that is made while it is read, or a refusal in a
//! sentence.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

pub enum Content {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Stream(stream) => stream.poll_recv(context),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                hyper::body::SizeHint::with_exact(length as u64)
            }
            Self::Stream(_) => hyper::body::SizeHint::default(),
        }
    }
}

pub type Answer = Response<Content>;

pub fn json(value: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(value).expect("our types have string keys alone");
    with(
        StatusCode::OK,
        "application/json",
        Content::Whole(Some(bytes.into())),
    )
}

/// Lines of JSON, or an archive.
pub fn stream(kind: &'static str, receiver: mpsc::Receiver<Bytes>) -> Answer {
    with(StatusCode::OK, kind, Content::Stream(receiver))
}

pub fn line(value: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).expect("our types have string keys alone");
    bytes.push(b'\n');
    bytes.into()
}

fn with(status: StatusCode, kind: &'static str, content: Content) -> Answer {
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A request that is not done, with a sentence for the person who made it. The sentence is ours: it
/// repeats nothing of a request, as a password may be in that.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    sentence: String,
}

impl Refusal {
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self {
            status,
            sentence: sentence.into(),
        }
    }

    pub fn forbidden(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, sentence)
    }

    pub fn busy(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, sentence)
    }

    pub fn answer(self) -> Answer {
        let text = format!("{}\n", self.sentence);
        let content = Content::Whole(Some(text.into()));
        with(self.status, "text/plain; charset=utf-8", content)
    }

    /// The whole answer, for who is not even asked what the request is.
    pub fn raw(&self) -> String {
        format!(
            "HTTP/1.1 {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{}\n",
            self.status,
            self.sentence.len() + 1,
            self.sentence
        )
    }
}
