//! Carries the connections of requests that ask for an upgrade to WebSocket.
//!
//! The application answers such a request like any other; then what comes from the socket is its payload, and its body
//! goes to the socket. What carries ordinary requests could do that too, but keeps two buffers for each connection, which
//! grow to 256 KiB when much comes at once and stay like that. An agent is connected for months and says little: here a
//! connection that rests has no buffer and no timer at all. What is read goes through one buffer a thread, and nothing is
//! read before it is asked for, which makes the back-pressure. A peer that takes nothing of what is written for it is cut
//! off after a while: what waits for it, and its session, would stay for ever.

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
use tokio::time::{Sleep, sleep};

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;
/// The application is not asked for more while this much is to be written.
const UNWRITTEN: usize = 32 * 1024;
/// How long a peer may take nothing of what it is sent.
const UNREAD_LIMIT: Duration = Duration::from_secs(75);
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
        // There may be the answer to a request that came before this one.
        let mut outgoing = Outgoing::new(socket, parts.codec, parts.write_buf, UNREAD_LIMIT);
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
    /// How long the peer may take nothing, and the timer of that while it does not take all.
    limit: Duration,
    patience: Option<Pin<Box<Sleep>>>,
}

impl Outgoing {
    fn new(socket: Rc<RefCell<TcpStream>>, codec: Codec, unwritten: BytesMut, limit: Duration) -> Self {
        Self { socket, codec, unwritten, limit, patience: None }
    }

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
            let written = Pin::new(&mut *self.socket.borrow_mut()).poll_write(context, &self.unwritten)?;
            match written {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.unwritten.advance(count);
                    self.patience = None;
                }
                Poll::Pending => {
                    ready!(self.poll_patience(context));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")));
                }
            }
        }
        self.unwritten = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Ready when the peer has taken nothing for too long.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        self.patience.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::BodyStream;
    use futures_util::{StreamExt, stream};
    use std::convert::Infallible;
    use tokio::net::TcpListener;

    const HOUR: Duration = Duration::from_secs(3600);
    const CHUNK: usize = 16 * 1024;
    /// More than the sockets of a connection hold.
    const CHUNKS: usize = 4096;

    /// What sends to a peer, and the peer.
    async fn connected(limit: Duration) -> (Outgoing, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        (Outgoing::new(Rc::new(RefCell::new(socket)), Codec::default(), BytesMut::new(), limit), peer)
    }

    /// `CHUNKS` of bytes, and then nothing more; it never ends.
    fn body() -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::repeat(Ok(Bytes::from_static(&[b'x'; CHUNK]))).take(CHUNKS).chain(stream::pending())
    }

    /// Reads up to `most` bytes; how many there were.
    async fn read(peer: &TcpStream, most: usize) -> usize {
        let mut piece = vec![0; most.min(PIECE)];
        peer.readable().await.unwrap();
        peer.try_read(&mut piece).unwrap_or(0)
    }

    #[actix_web::test]
    async fn a_peer_that_takes_nothing_is_cut_off_and_the_body_dropped() {
        let (mut outgoing, _peer) = connected(Duration::from_millis(1)).await;
        let held = Rc::new(());
        let body = BodyStream::new(body().map({
            let held = Rc::clone(&held);
            move |chunk| (Rc::clone(&held), chunk).1
        }));
        let carried = outgoing.carry(Response::with_body(StatusCode::SWITCHING_PROTOCOLS, body)).await;
        assert_eq!(carried.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[actix_web::test]
    async fn patience_begins_anew_with_all_that_is_taken_and_ends_with_the_last() {
        let (mut outgoing, peer) = connected(HOUR).await;
        // The codec writes what follows as this head says: as it is. The head itself is left out.
        let mut head = Response::new(StatusCode::SWITCHING_PROTOCOLS).drop_body();
        head.head_mut().no_chunking(true);
        outgoing.codec.encode(Message::Item((head, BodySize::Stream)), &mut BytesMut::new()).unwrap();
        let mut body = Box::pin(BodyStream::new(body()));
        let deadline = |outgoing: &Outgoing| outgoing.patience.as_ref().map(|sleep| sleep.deadline());
        let mut write = async |outgoing: &mut Outgoing, until: usize, taken: &mut usize| {
            let all = poll_fn(|context| outgoing.poll_body(body.as_mut(), context));
            let enough = async {
                while *taken < until {
                    *taken += read(&peer, until - *taken).await;
                }
            };
            tokio::select! {
                biased;
                end = all => panic!("the body has ended: {end:?}"),
                () = enough => {}
            }
        };
        let mut taken = 0;
        write(&mut outgoing, 1, &mut taken).await;
        let first = deadline(&outgoing).expect("a peer that does not take all is waited for");
        write(&mut outgoing, CHUNKS * CHUNK / 2, &mut taken).await;
        assert!(deadline(&outgoing) > Some(first));
        write(&mut outgoing, CHUNKS * CHUNK, &mut taken).await;
        assert_eq!(deadline(&outgoing), None);
        assert_eq!(outgoing.unwritten.capacity(), 0);
    }
}
