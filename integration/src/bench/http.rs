//! A keep-alive HTTP client that costs next to nothing: the coordinator shares its cores with it.

use crate::swarm::connect;
use crate::{Context, Failure};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub(super) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

/// A request that can be sent again and again.
#[derive(Clone, Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// A GET.
    pub(super) fn get(path: &str, token: &str) -> Self {
        Self(format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes())
    }

    /// A POST of JSON.
    pub(super) fn post(path: &str, token: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n");
        let kind = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        Self((head + &kind).into_bytes())
    }

    /// The POST of a backup on a host.
    pub(super) fn job(host_id: &str, token: &str) -> Self {
        let body = format!(r#"{{"kind":"backup","source_group":"{}"}}"#, super::rig::GROUP);
        Self::post(&format!("/v1/hosts/{host_id}/jobs"), token, &body)
    }

    /// The POST of an operation: a backup on every host.
    pub(super) fn operation(token: &str) -> Self {
        let body = format!(r#"{{"kind":"backup","source_group":"{}","selector":{{"all":true}}}}"#, super::rig::GROUP);
        Self::post("/v1/operations", token, &body)
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The system or the server refuses.
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, Failure> {
        Ok(Self { stream: connect(address).await?, input: Vec::with_capacity(4096) })
    }

    /// Sends a request and gives the body of its answer.
    ///
    /// # Errors
    /// There is no answer, or it is not one of success.
    pub(super) async fn call(&mut self, request: &Request) -> Result<&[u8], Failure> {
        self.stream.write_all(&request.0).await.context("sending a request")?;
        self.input.clear();
        loop {
            if let Some((status, body)) = answer(&self.input)? {
                if (200..300).contains(&status) {
                    return Ok(&self.input[body..]);
                }
                return Err(Failure::new(String::from_utf8_lossy(&self.input).into_owned()));
            }
            if self.stream.read_buf(&mut self.input).await.context("reading an answer")? == 0 {
                return Err(Failure::new("the connection has ended"));
            }
        }
    }

    /// The same, with the body read as JSON.
    ///
    /// # Errors
    /// As [`Self::call`], or the body is no JSON.
    pub(super) async fn json(&mut self, request: &Request) -> Result<Value, Failure> {
        Ok(serde_json::from_slice(self.call(request).await?)?)
    }

    /// Asks for a job or an operation; gives its id.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub(super) async fn submit(&mut self, request: &Request) -> Result<String, Failure> {
        crate::api::text_of(&self.json(request).await?, "id")
    }
}

/// Status and start of the body, once the answer is whole.
fn answer(input: &[u8]) -> Result<Option<(u16, usize)>, Failure> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&input[..end]).context("the head of an answer")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Failure::new(format!("no HTTP: {head}")))?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(Ok(0), |(_, value)| value.trim().parse()).context("a content length")?;
    let body = end + 4;
    Ok((input.len() >= body + length).then_some((status, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_when_it_is_whole() {
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-length: 3\r\n\r\nabc";
        assert_eq!(answer(whole).unwrap(), Some((202, whole.len() - 3)));
        assert_eq!(answer(&whole[..whole.len() - 1]).unwrap(), None);
        assert_eq!(answer(&whole[..20]).unwrap(), None);
        assert!(answer(b"SMTP\r\n\r\n").is_err());
    }
}
