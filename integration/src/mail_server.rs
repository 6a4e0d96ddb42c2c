//! A mail server: it speaks as much SMTP as a client needs, keeps what it gets, and refuses when told to.

use crate::tls::Stream;
use crate::{Context, Failure, Tls, eventually};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// One mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// It came encrypted.
    pub encrypted: bool,
    /// The user who has logged in, and the password.
    pub login: Option<(String, String)>,
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// The message as it came, with its headers.
    pub text: String,
}

#[derive(Debug, Default)]
struct State {
    /// What is said to every recipient instead of yes.
    refusal: Mutex<Option<String>>,
    received: Mutex<Vec<Mail>>,
    /// What STARTTLS goes on with.
    tls: Option<Tls>,
}

/// The server. It lives as long as this process, and its port too.
#[derive(Clone, Debug)]
pub struct MailServer {
    address: SocketAddr,
    state: Arc<State>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MailServer {
    /// Listens on a port of its own.
    ///
    /// # Errors
    /// It can't listen.
    pub fn start() -> Result<Self, Failure> {
        Self::start_as(None)
    }

    /// The same, which offers STARTTLS.
    ///
    /// # Errors
    /// It can't listen.
    pub fn start_tls(tls: &Tls) -> Result<Self, Failure> {
        Self::start_as(Some(tls.clone()))
    }

    fn start_as(tls: Option<Tls>) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a mail server")?;
        let server = Self { address: listener.local_addr()?, state: Arc::new(State { tls, ..State::default() }) };
        let state = Arc::clone(&server.state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A client that goes away is no fault of ours.
                thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Ok(server)
    }

    /// Its host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses every recipient with this answer from now on, such as `550 no`; `None`: no more.
    pub fn refuse(&self, answer: Option<&str>) {
        *locked(&self.state.refusal) = answer.map(str::to_owned);
    }

    /// What has come so far, the oldest first.
    pub fn received(&self) -> Vec<Mail> {
        locked(&self.state.received).clone()
    }

    /// What has come once that is as it should be.
    ///
    /// # Errors
    /// It is not when `limit` is over.
    pub fn until(&self, what: &str, limit: Duration, good: impl Fn(&[Mail]) -> bool) -> Result<Vec<Mail>, Failure> {
        eventually(what, limit, || {
            let received = self.received();
            if good(&received) { Ok(received) } else { Err(Failure::new(format!("{received:?}"))) }
        })
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> Result<(), Failure> {
        let plain = stream.try_clone()?;
        let stream: Box<dyn Stream> = Box::new(stream);
        let wants_tls = self.converse(&mut BufReader::new(stream), Some("220 mail.test ESMTP"), false)?;
        match &self.tls {
            Some(tls) if wants_tls => self.converse(&mut BufReader::new(tls.over(plain)?), None, true).map(drop),
            _ => Ok(()),
        }
    }

    /// Talks until the end, or until the client wants TLS.
    fn converse(
        &self,
        stream: &mut BufReader<Box<dyn Stream>>,
        greeting: Option<&str>,
        encrypted: bool,
    ) -> Result<bool, Failure> {
        let mut mail = Mail { encrypted, ..Mail::default() };
        if let Some(greeting) = greeting {
            say(stream, greeting)?;
        }
        let offers_tls = self.tls.is_some() && !encrypted;
        while let Some(line) = next(stream)? {
            let verb: String = line.chars().take(4).collect::<String>().to_ascii_uppercase();
            let answer = match verb.as_str() {
                "EHLO" if offers_tls => "250-mail.test\r\n250 STARTTLS".to_owned(),
                "EHLO" => "250-mail.test\r\n250-8BITMIME\r\n250 AUTH PLAIN".to_owned(),
                "STAR" if offers_tls => {
                    say(stream, "220 go on")?;
                    return Ok(true);
                }
                "AUTH" => {
                    mail.login = login(&line);
                    if mail.login.is_some() { "235 welcome" } else { "535 who?" }.to_owned()
                }
                "MAIL" => {
                    mail.from = between(&line);
                    "250 yes".to_owned()
                }
                "RCPT" => {
                    mail.to.push(between(&line));
                    locked(&self.refusal).clone().unwrap_or_else(|| "250 yes".to_owned())
                }
                "DATA" => {
                    say(stream, "354 go on")?;
                    while let Some(line) = next(stream)?.filter(|line| line != ".") {
                        mail.text.push_str(line.strip_prefix('.').unwrap_or(&line));
                        mail.text.push('\n');
                    }
                    let rest = Mail { login: mail.login.clone(), encrypted, ..Mail::default() };
                    locked(&self.received).push(std::mem::replace(&mut mail, rest));
                    "250 kept".to_owned()
                }
                "RSET" | "NOOP" => "250 yes".to_owned(),
                "QUIT" => {
                    say(stream, "221 bye")?;
                    return Ok(false);
                }
                _ => "502 what?".to_owned(),
            };
            say(stream, &answer)?;
        }
        Ok(false)
    }
}

fn say(stream: &mut BufReader<Box<dyn Stream>>, line: &str) -> Result<(), Failure> {
    let stream = stream.get_mut();
    write!(stream, "{line}\r\n")?;
    Ok(stream.flush()?)
}

/// The next line, without its end.
fn next(stream: &mut BufReader<Box<dyn Stream>>) -> Result<Option<String>, Failure> {
    let mut line = String::new();
    let read = stream.read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// What stands between `<` and `>`.
fn between(line: &str) -> String {
    line.split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(inner, _)| inner.to_owned())
        .unwrap_or_default()
}

/// User and password of `AUTH PLAIN …`.
fn login(line: &str) -> Option<(String, String)> {
    use base64::Engine;
    let encoded = line.split_whitespace().nth(2)?;
    let plain = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let mut parts = plain.split(|byte| *byte == 0).skip(1).map(|part| String::from_utf8_lossy(part).into_owned());
    Some((parts.next()?, parts.next()?))
}
