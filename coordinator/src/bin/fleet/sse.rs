//! Reading server-sent events.

use std::io::{self, BufRead};

/// An event with a name and its data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// What it is; `message` unless it says so.
    pub(crate) name: String,
    /// Its lines, joined.
    pub(crate) data: String,
}

/// The next event; `None` at the end of the stream, which also cuts off an event that is not whole.
///
/// # Errors
/// The stream breaks off.
pub(crate) fn next(stream: &mut impl BufRead) -> io::Result<Option<Event>> {
    let mut event = Event::default();
    let mut has_data = false;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            if !has_data {
                event = Event::default();
                continue;
            }
            if event.name.is_empty() {
                "message".clone_into(&mut event.name);
            }
            return Ok(Some(event));
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.name),
            "data" => {
                if has_data {
                    event.data.push('\n');
                }
                has_data = true;
                event.data += value;
            }
            // A comment, an id that we have from the data, a field of a later day.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_whatever_stands_between_them() {
        let mut stream = ": hello\n\nevent: log\nid: 7\ndata: {\"a\": 1}\n\n:\n\ndata:x\r\ndata: y\r\n\r\nevent: status\n\ndata: cut".as_bytes();
        let mut all = Vec::new();
        while let Some(Event { name, data }) = next(&mut stream).expect("it can be read") {
            all.push((name, data));
        }
        let event = |name: &str, data: &str| (name.to_owned(), data.to_owned());
        assert_eq!(all, [event("log", "{\"a\": 1}"), event("message", "x\ny")]);
    }
}
