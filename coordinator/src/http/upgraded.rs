//! Carries the connections of requests that ask for an upgrade to WebSocket.
//!
//! The application answers such a request like any other; then what comes from the socket is its payload, and its body
//! goes to the socket. What carries ordinary requests could do that too, but keeps two buffers for each connection, which
//! grow to 256 KiB when much comes at once and stay like that. An agent is connected for months and says little: here a
//! connection that rests has no buffer at all. What is read goes through one buffer a thread, and nothing is read before
//! it is asked for, which makes the back-pressure.

use actix_codec::{Encoder, Framed};
use actix_http::body::{BodySize, MessageBody};
use actix_http::error::PayloadError;
use actix_http::h1::{Codec, Message};
use actix_http::{ConnectionType, Payload, Request, Response, StatusCode};
use actix_service::{Service, ServiceFactory};
use actix_web::HttpResponse;
use actix_web::dev::ServiceResponse;
use actix_web::web::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use futures_util::future::{LocalBoxFuture, poll_fn};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;
/// The application is not asked for more while this much is to be written.
const UNWRITTEN: usize = 32 * 1024;
/// How long a peer may take to read the last that it is sent.
const FAREWELL_LIMIT: Duration = Duration::from_secs(10);

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// Makes, for each thread, what carries upgraded connections of the application that this makes.
pub(super) struct Upgrade<F>(pub(super) F);

impl<F, B> ServiceFactory<(Request, Framed<TcpStream, Codec>)> for Upgrade<F>
where
    F: ServiceFactory<Request, Config = (), Response = ServiceResponse<B>, Error = HttpResponse, InitError = ()>,
    F::Future: 'static,
    F::Service: 'static,
    B: MessageBody + 'static,
{
    type Response = ();
    type Error = actix_http::Error;
    type Config = ();
    type Service = Upgraded<F::Service>;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<Self::Service, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let application = self.0.new_service(());
        Box::pin(async move { application.await.map(Upgraded) })
    }
}

/// See the module's text.
pub(super) struct Upgraded<S>(S);

impl<S, B> Service<(Request, Framed<TcpStream, Codec>)> for Upgraded<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = HttpResponse>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ();
    type Error = actix_http::Error;
    type Future = LocalBoxFuture<'static, Result<(), actix_http::Error>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), actix_http::Error>> {
        // An application is always ready; if not, it says why when it is called.
        self.0.poll_ready(context).map(|_| Ok(()))
    }

    fn call(&self, (request, framed): (Request, Framed<TcpStream, Codec>)) -> Self::Future {
        let parts = framed.into_parts();
        let socket = Rc::new(RefCell::new(parts.io));
        let early = Bytes::copy_from_slice(&parts.read_buf);
        let payload = Payload::Stream { payload: Box::pin(Incoming { socket: Rc::clone(&socket), early }) as _ };
        let answer = self.0.call(request.replace_payload(payload).0);
        let mut outgoing = Outgoing { socket, codec: parts.codec, unwritten: BytesMut::new() };
        Box::pin(async move {
            let carried = match answer.await {
                Ok(response) => Box::pin(outgoing.carry(response.into())).await,
                Err(response) => Box::pin(outgoing.carry(response.into())).await,
            };
            if let Err(error) = carried {
                log::debug!("a connection has ended: {error}");
            }
            Ok(())
        })
    }
}

/// What the peer sends.
struct Incoming {
    socket: Rc<RefCell<TcpStream>>,
    /// What came together with the request.
    early: Bytes,
}

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut this.early))));
        }
        READ.with_borrow_mut(|read| {
            let mut read = ReadBuf::new(read);
            ready!(Pin::new(&mut *this.socket.borrow_mut()).poll_read(context, &mut read))?;
            let bytes = read.filled();
            Poll::Ready((!bytes.is_empty()).then(|| Ok(Bytes::copy_from_slice(bytes))))
        })
    }
}

/// What the application sends.
struct Outgoing {
    socket: Rc<RefCell<TcpStream>>,
    codec: Codec,
    unwritten: BytesMut,
}

impl Outgoing {
    /// Writes `response`, its body as it comes, and closes.
    async fn carry<B: MessageBody + 'static>(&mut self, response: Response<B>) -> io::Result<()> {
        let (mut head, body) = response.into_parts();
        if head.status() != StatusCode::SWITCHING_PROTOCOLS {
            head.head_mut().set_connection_type(ConnectionType::Close);
        }
        let size = body.size();
        self.codec.encode(Message::Item((head, size)), &mut self.unwritten)?;
        let mut body = Box::pin(body);
        if !matches!(size, BodySize::None | BodySize::Sized(0)) {
            poll_fn(|context| self.poll_body(body.as_mut(), context)).await?;
        }
        drop(body);
        let farewell = poll_fn(|context| {
            ready!(self.poll_write(context))?;
            Pin::new(&mut *self.socket.borrow_mut()).poll_shutdown(context)
        });
        tokio::time::timeout(FAREWELL_LIMIT, farewell).await?
    }

    /// Ready when the body has ended.
    fn poll_body<B: MessageBody>(&mut self, mut body: Pin<&mut B>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut waits = false;
            while self.unwritten.len() < UNWRITTEN {
                match body.as_mut().poll_next(context) {
                    Poll::Ready(Some(Ok(bytes))) => {
                        self.codec.encode(Message::Chunk(Some(bytes)), &mut self.unwritten)?;
                    }
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(io::Error::other(error.into().to_string())));
                    }
                    Poll::Ready(None) => {
                        return Poll::Ready(self.codec.encode(Message::Chunk(None), &mut self.unwritten));
                    }
                    Poll::Pending => {
                        waits = true;
                        break;
                    }
                }
            }
            ready!(self.poll_write(context))?;
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Ready when everything is written.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let mut socket = self.socket.borrow_mut();
            let count = ready!(Pin::new(&mut *socket).poll_write(context, &self.unwritten))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.advance(count);
        }
        self.unwritten = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}
