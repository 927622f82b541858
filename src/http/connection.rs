//! The connections of clients: how long one may be held, and how much memory it may take.
//!
//! actix limits the time of a connection's first head, and of an idle connection. Everything else
//! is limited here: a client that does not take its answer, one that sends a head or a body without
//! end, and one that sends many requests without reading the answers.

use actix_http::{HttpService, Protocol};
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server};
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Sleep, sleep};

use crate::config::Http;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How many bytes are read before the requests in them are served. actix parses all requests that
/// it has read, and keeps some 3 KB for each, however short it is.
const READ_AT_ONCE: usize = 1024;

/// After an answer to a request whose body was not read, what arrives is discarded for so long,
/// so that the client gets the answer before the connection is closed.
const LINGER: Duration = Duration::from_secs(1);

/// A client that has closed its side while its request is answered is gone after so long. Until
/// then it may only have said that it will send no more.
const GONE: Duration = Duration::from_secs(1);

/// How many read timeouts a request has, besides the time limit of the database: one for its head,
/// one for its body, and the rest for the client to take the answer.
const READ_TIMEOUTS: u32 = 8;

/// How long a client may hold a connection.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// How long it may take nothing of an answer.
    stall: Duration,
    /// From the first byte of a request until the answer is taken.
    request: Duration,
}

impl Deadlines {
    /// The deadlines that follow from the settings; `work` is the time limit of the database.
    pub fn new(http: &Http, work: Duration) -> Self {
        Self { stall: http.read_timeout, request: READ_TIMEOUTS * http.read_timeout + work }
    }
}

/// Serves what `app` makes on a port; returns the server and the port.
///
/// # Errors
/// When the port cannot be opened.
pub fn serve<I, S, B>(
    http: &Http,
    deadlines: Deadlines,
    app: impl Fn() -> I + Send + Clone + 'static,
) -> io::Result<(Server, u16)>
where
    I: IntoServiceFactory<S, actix_http::Request>,
    S: ServiceFactory<actix_http::Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<actix_http::Response<B>> + 'static,
    <S::Service as actix_web::dev::Service<actix_http::Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let listener = listen(SocketAddr::new(http.host, http.port))?;
    let port = listener.local_addr()?.port();
    let builder = Server::build()
        .workers(http.workers)
        // `/metrics` is all that uses them.
        .worker_max_blocking_threads(1)
        .max_concurrent_connections(http.max_connections.div_ceil(http.workers))
        .shutdown_timeout(http.shutdown.as_secs())
        .disable_signals();
    let (stopping, read_timeout) = (builder.graceful_shutdown_signal(), http.read_timeout);
    let keep_alive = http.keep_alive;
    // What `actix_web::HttpServer` does, for another type of stream.
    let service = move || {
        let stopping = stopping.clone();
        let service = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(keep_alive)
            .client_request_timeout(read_timeout)
            .client_disconnect_timeout(LINGER)
            .on_connect_ext(|connection: &Connection, data| {
                data.insert(connection.progress.clone());
            })
            .finish(map_config(
                app().into_factory().map_err(|error| error.into().error_response()),
                |()| AppConfig::default(),
            ));
        fn_service(move |stream: TcpStream| async move {
            let peer = stream.peer_addr().ok();
            Ok((Connection::new(stream, deadlines), Protocol::Http1, peer))
        })
        .and_then(service)
    };
    Ok((builder.listen("http", listener, service)?.run(), port))
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// What a connection and the requests on it know of each other. A connection stays on one thread.
#[derive(Default)]
pub struct Progress {
    /// Whether a request is being answered.
    is_answering: Cell<bool>,
    /// Whether the handler waits for more of the body of this request.
    is_body_wanted: Cell<bool>,
    /// How many answers were made.
    answers: Cell<u64>,
    /// The connection, while it must not read.
    held_back: RefCell<Option<Waker>>,
}

impl Progress {
    /// A request begins to be answered.
    pub fn begin(&self) {
        self.is_answering.set(true);
        self.is_body_wanted.set(false);
    }

    /// The handler waits for more of the body, or does not.
    pub fn want_body(&self, is_wanted: bool) {
        self.is_body_wanted.set(is_wanted);
        if is_wanted {
            self.resume();
        }
    }

    /// All of the answer was given to the connection.
    pub fn end(&self) {
        self.is_answering.set(false);
        self.answers.set(self.answers.get() + 1);
        self.resume();
    }

    fn resume(&self) {
        if let Some(connection) = self.held_back.take() {
            connection.wake();
        }
    }
}

/// The stream of a connection, with deadlines. Whoever misses one is cut off.
pub struct Connection {
    stream: TcpStream,
    progress: Rc<Progress>,
    deadlines: Deadlines,
    /// Until when the current request must be done with.
    request: Option<Pin<Box<Sleep>>>,
    /// Until when the client must take something of the answer.
    stall: Option<Pin<Box<Sleep>>>,
    /// When the client that has closed its side is gone.
    gone: Option<Pin<Box<Sleep>>>,
    /// How many bytes were read since the requests in them were last served.
    read: usize,
    /// How many answers had been made when `request` was last set.
    answers: u64,
}

impl Connection {
    fn new(stream: TcpStream, deadlines: Deadlines) -> Self {
        // Otherwise the end of an answer that takes several writes is sent only when the client has
        // confirmed its beginning, which it does after some 40 ms. A failure means a slower answer.
        let _ = stream.set_nodelay(true);
        let (progress, request, stall, gone) = (Rc::default(), None, None, None);
        Self { stream, progress, deadlines, request, stall, gone, read: 0, answers: 0 }
    }

    /// Fails when the client has missed a deadline. It is called whenever actix does anything with
    /// the connection, and lets actix be called again at the next deadline.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.answers != self.progress.answers.get() {
            self.answers = self.progress.answers.get();
            self.request = None;
        }
        if self.progress.is_answering.get() {
            self.begin_request();
        }
        let mut missed = |deadline: &mut Option<Pin<Box<Sleep>>>| {
            deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
        };
        if missed(&mut self.request) || missed(&mut self.stall) {
            // Without this, the kernel would keep what the client did not take.
            let _ = self.stream.set_zero_linger();
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn begin_request(&mut self) {
        let limit = self.deadlines.request;
        self.request.get_or_insert_with(|| Box::pin(sleep(limit)));
    }

    /// Whether nothing may be read now: a client that sends requests without waiting for the
    /// answers must wait, and so must a body until its handler asks for it.
    fn is_held_back(&self, cx: &Context<'_>) -> bool {
        let progress = &self.progress;
        let is_held_back = progress.is_answering.get() && !progress.is_body_wanted.get();
        if is_held_back {
            progress.held_back.replace(Some(cx.waker().clone()));
        }
        is_held_back
    }

    /// Fails when the client is gone for whom a request is being answered. Without it, prop would
    /// go on working for nobody, because nothing is read meanwhile.
    fn check_for_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut next = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut next)) {
            Poll::Ready(Ok(0)) => {
                let gone = self.gone.get_or_insert_with(|| Box::pin(sleep(GONE)));
                match gone.as_mut().poll(cx) {
                    Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
                    Poll::Pending => Ok(()),
                }
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    fn note_written(&mut self, cx: &mut Context<'_>, is_pending: bool) -> io::Result<()> {
        if !is_pending {
            self.stall = None;
            return Ok(());
        }
        let limit = self.deadlines.stall;
        self.stall.get_or_insert_with(|| Box::pin(sleep(limit)));
        self.check(cx)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        if this.is_held_back(cx) {
            this.check_for_end(cx)?;
            return Poll::Pending;
        }
        if this.read >= READ_AT_ONCE {
            this.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = buffer.remaining().min(READ_AT_ONCE - this.read);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(length));
        match Pin::new(&mut this.stream).poll_read(cx, &mut part) {
            Poll::Ready(Ok(())) => {
                let read = part.filled().len();
                buffer.advance(read);
                this.read += read;
                if read > 0 {
                    this.begin_request();
                }
                Poll::Ready(Ok(()))
            }
            other => {
                this.read = 0;
                other
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note_written(cx, written.is_pending())?;
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn the_end_of_an_answer_does_not_wait_for_the_client_to_confirm_its_beginning() {
        let listener = TcpSocket::new_v4().unwrap();
        listener.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = listener.listen(1).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let second = Duration::from_secs(1);
        let connection = Connection::new(stream, Deadlines { stall: second, request: second });
        assert!(connection.stream.nodelay().unwrap());
        drop(client);
    }
}
