//! The network between one agent and the coordinator: forwards, and breaks when told to.

use crate::{Context, Failure};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often a paused link looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A link. Its port stays the same as long as this process lives.
#[derive(Clone, Debug)]
pub(super) struct Link {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    refuses: AtomicBool,
    paused: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// Listens on a port of its own and forwards to `target`.
    pub(super) fn start(target: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a link")?;
        let link = Self { address: listener.local_addr()?, state: Arc::default() };
        let state = link.state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !state.refuses.load(Ordering::SeqCst) {
                    // A coordinator that is away: the agent's connection just ends.
                    let _ = state.forward(stream, target);
                }
            }
        });
        Ok(link)
    }

    /// Where the agent finds it.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection.
    pub(super) fn cut(&self) {
        for stream in self.state.open().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends every connection and takes no other, until told otherwise.
    pub(super) fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
        if refuses {
            self.cut();
        }
    }

    /// Forwards nothing and keeps the connections, until told otherwise.
    pub(super) fn pause(&self, paused: bool) {
        self.state.paused.store(paused, Ordering::SeqCst);
    }
}

impl State {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forward(self: &Arc<Self>, agent: TcpStream, target: SocketAddr) -> Result<(), Failure> {
        let coordinator = TcpStream::connect(target)?;
        self.open().extend([agent.try_clone()?, coordinator.try_clone()?]);
        for (from, to) in [(agent.try_clone()?, coordinator.try_clone()?), (coordinator, agent)] {
            let state = self.clone();
            thread::spawn(move || state.copy(from, to));
        }
        Ok(())
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            while self.paused.load(Ordering::SeqCst) {
                thread::sleep(LOOK_EVERY);
            }
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_forwards_until_it_is_cut() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Link::start(server.local_addr().unwrap()).unwrap();
        let mut agent = TcpStream::connect(link.address).unwrap();
        let (mut peer, _) = server.accept().unwrap();
        agent.write_all(b"ping").unwrap();
        let mut heard = [0; 4];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ping");
        link.refuse(true);
        assert!(matches!(peer.read(&mut heard), Ok(0) | Err(_)) && matches!(agent.read(&mut heard), Ok(0) | Err(_)));
        let mut refused = TcpStream::connect(link.address).unwrap();
        assert!(matches!(refused.read(&mut heard), Ok(0) | Err(_)));
        link.refuse(false);
        let _agent = TcpStream::connect(link.address).unwrap();
        server.accept().unwrap();
    }
}
