//! The WebSocket of a simulated agent, as small as it can be: an upgrade, text frames out, whole frames in (RFC 6455).
//!
//! The coordinator shares its two cores with the load generator, so what a library spends on generality would be
//! measured as the coordinator's. Frames are masked with the key zero, which leaves the bytes as they are; the server
//! unmasks them like any others.

use crate::{Context, Failure};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Connections from one source address: so few of the ports that the system hands out that the search for a free one
/// ends at once.
const CONNECTIONS_A_SOURCE: u32 = 1_000;
/// Source addresses: those of 127.1.0.0/16 whose last part is from 1 to 250.
const SOURCES: u32 = 256 * 250;
/// The longest answer to an upgrade request.
const LONGEST_HEAD: usize = 4096;

const FINAL_TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;

/// What one frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A whole text message.
    Text(&'a str),
    /// To be answered by a pong of the same payload.
    Ping(&'a [u8]),
    /// The peer ends, with this code.
    Close(u16),
    /// Nothing that an agent must act on.
    Other,
}

/// Adds a text message to `out`.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_frame(out, FINAL_TEXT, text.as_bytes());
}

/// Adds the answer to a ping.
pub(super) fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put_frame(out, 0x8a, payload);
}

fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match payload.len() {
        length @ 0..126 => out.push(MASKED | length as u8),
        length @ 126..65_536 => {
            out.push(MASKED | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend_from_slice(payload);
}

/// The first whole frame in `input` and its length, or `None` if there is none yet.
///
/// # Errors
/// The server sends what it must not.
pub(super) fn first_frame(input: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Failure> {
    let (Some(&first), Some(&second)) = (input.first(), input.get(1)) else { return Ok(None) };
    if second & MASKED != 0 {
        return Err(Failure::new("a masked frame from the server"));
    }
    let (header, length) = match second {
        126 => (4, be(input.get(2..4))),
        127 => (10, be(input.get(2..10))),
        short => (2, Some(usize::from(short))),
    };
    let Some(length) = length else { return Ok(None) };
    let Some(payload) = input.get(header..header + length) else { return Ok(None) };
    let frame = match first {
        FINAL_TEXT => Frame::Text(std::str::from_utf8(payload).context("a text frame")?),
        0x89 => Frame::Ping(payload),
        0x88 => Frame::Close(be(payload.get(..2)).map_or(1005, |code| code as u16)),
        0x8a => Frame::Other,
        other => return Err(Failure::new(format!("a frame that begins with {other:#x}"))),
    };
    Ok(Some((frame, header + length)))
}

fn be(bytes: Option<&[u8]>) -> Option<usize> {
    Some(bytes?.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

/// Opens a TCP connection, from one of many loopback addresses: a single one would run out of ports, for those of
/// closed connections are held back for a minute. Each process begins with others, for the same reason.
///
/// # Errors
/// The system refuses.
pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
    let source = CONNECTIONS.fetch_add(1, Ordering::Relaxed) / CONNECTIONS_A_SOURCE;
    let source = std::process::id().wrapping_mul(97).wrapping_add(source) % SOURCES;
    let source = Ipv4Addr::new(127, 1, (source / 250) as u8, (source % 250) as u8 + 1);
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into()).context("a port of our own")?;
    let stream = socket.connect(address).await.context("connecting")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks for an upgrade and gives what came after the answer.
///
/// # Errors
/// It is refused.
pub(super) async fn upgrade(stream: &mut TcpStream, path: &str, token: &str) -> Result<Vec<u8>, Failure> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2l4dGVlbiBieXRlcy4uLg==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut input = Vec::with_capacity(512);
    loop {
        if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&input[..end]).into_owned();
            if !head.starts_with("HTTP/1.1 101 ") {
                return Err(Failure::new(format!("no upgrade: {head}")));
            }
            input.drain(..end + 4);
            return Ok(input);
        }
        if input.len() > LONGEST_HEAD || stream.read_buf(&mut input).await? == 0 {
            return Err(Failure::new(format!("no answer to an upgrade: {}", String::from_utf8_lossy(&input))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_any_length_are_read_whole_or_not_at_all() {
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(length);
            let mut masked = Vec::new();
            put_text(&mut masked, &text);
            // A server's frame is the same without mask.
            let header = masked.len() - length - 4;
            let mut frame = masked[..header].to_vec();
            frame[1] &= !MASKED;
            frame.extend_from_slice(text.as_bytes());
            assert_eq!(first_frame(&frame).unwrap(), Some((Frame::Text(&text), frame.len())));
            assert_eq!(first_frame(&frame[..frame.len() - 1]).unwrap(), None);
        }
    }

    #[test]
    fn a_close_tells_its_code_and_a_mask_is_an_error() {
        assert_eq!(first_frame(&[0x88, 2, 0x0f, 0xa1, 9]).unwrap(), Some((Frame::Close(4001), 4)));
        assert!(first_frame(&[0x81, 0x80]).is_err());
    }
}
