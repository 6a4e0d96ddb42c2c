//! The address, from the first moment on. Until the coordinator can serve, a waiting room answers there.

use super::StartError;
use crate::http::waiting_room::WaitingRoom;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use tokio::net::TcpSocket;

/// Connections that may wait to be accepted. After a break all agents come at once, and one that finds no place tries
/// again after a second. The system may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// The socket, and the file `listen` that says where it is, for port 0 can be anything. The file goes with the handle.
pub(super) struct Listening {
    listener: TcpListener,
    file: PathBuf,
}

impl Listening {
    /// Takes the address and says so.
    pub(super) fn on(address: SocketAddr, data_dir: &Path) -> Result<Self, StartError> {
        let listener = listen(address).map_err(|source| StartError::Listen { address, source })?;
        let address = listener.local_addr().map_err(StartError::Http)?;
        log::info!("listening on http://{address}");
        let file = data_dir.join("listen");
        let new = data_dir.join("listen.new");
        let written = std::fs::write(&new, format!("{address}\n")).and_then(|()| std::fs::rename(&new, &file));
        written.map_err(|source| StartError::DataDir { path: file.clone(), source })?;
        Ok(Self { listener, file })
    }

    /// Another handle of the same socket: who accepts first gets the connection.
    pub(super) fn socket(&self) -> Result<TcpListener, StartError> {
        self.listener.try_clone().map_err(StartError::Http)
    }

    /// Answers there until there is somebody who can serve.
    pub(super) fn waiting_room(&self) -> Result<WaitingRoom, StartError> {
        let opened: io::Result<WaitingRoom> = self.listener.try_clone().and_then(WaitingRoom::open);
        opened.map_err(StartError::Http)
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file); // it may be gone already
    }
}
