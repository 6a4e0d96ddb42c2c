//! The file in which a scribe records a child, from both ends: [`Writer`] and [`Reader`].
//!
//! When it is full, a new one takes its place that holds only what is not settled yet (the beginning of a line whose end
//! has not come, as a rule). Places are counted over the whole stream, so a reader knows what it has had already.

use super::frames::{Chunk, Event, Frame, HEAD, Origin};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How many bytes of each stream.
pub(super) type Places = [u64; 2];

/// The writing end.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Writer {
    /// Begins a record, which only this user can read.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: create(path)?, length: 0 })
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Adds a frame. After an error it can be tried again.
    pub(super) fn append(&mut self, frame: &Frame) -> io::Result<()> {
        let bytes = frame.encode();
        self.file.write_all_at(&bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Drops what is settled. After an error it is as before.
    pub(super) fn roll(&mut self, settled: Places) -> io::Result<()> {
        let mut old = Reader::open(&self.path, settled)?;
        let path = self.path.with_extension("rolled");
        let mut new = Self { file: create(&path)?, path: path.clone(), length: 0 };
        while let Some(frame) = old.next()? {
            if !matches!(frame, Frame::Event(Event::Full)) {
                new.append(&frame)?;
            }
        }
        std::fs::rename(&path, &self.path)?;
        (self.file, self.length) = (new.file, new.length);
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    file: File,
    at: u64,
    next: Places,
    /// Another file is to take this one's place.
    rolls: bool,
}

impl Reader {
    /// Opens a record to read what comes after these places.
    pub(super) fn open(path: &Path, from: Places) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: File::open(path)?, at: 0, next: from, rolls: false })
    }

    /// The next frame that is whole, without output that was read before.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let Some(frame) = self.read()? else { return Ok(None) };
            match frame {
                Frame::Output(chunk) => {
                    let place = &mut self.next[chunk.origin.index()];
                    if let Some(news) = chunk.behind(*place) {
                        *place = news.start + news.bytes.len() as u64;
                        return Ok(Some(Frame::Output(news)));
                    }
                }
                Frame::Event(event) => {
                    self.rolls |= event == Event::Full;
                    return Ok(Some(Frame::Event(event)));
                }
            }
        }
    }

    fn read(&mut self) -> io::Result<Option<Frame>> {
        if self.rolls {
            self.follow()?;
        }
        let mut head = [0; HEAD];
        if read_at(&self.file, &mut head, self.at)? < HEAD {
            return Ok(None);
        }
        let mut body = vec![0; Frame::body_length(head)?];
        if read_at(&self.file, &mut body, self.at + HEAD as u64)? < body.len() {
            return Ok(None);
        }
        self.at += (HEAD + body.len()) as u64;
        Frame::decode(head[0], &body).map(Some)
    }

    /// Takes the new file, if it is there. Without an agent the old one goes on.
    fn follow(&mut self) -> io::Result<()> {
        let file = File::open(&self.path)?;
        if file.metadata()?.ino() != self.file.metadata()?.ino() {
            (self.file, self.at, self.rolls) = (file, 0, false);
        }
        Ok(())
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, mut buffer: &mut [u8], mut at: u64) -> io::Result<usize> {
    let mut length = 0;
    while !buffer.is_empty() {
        match file.read_at(buffer, at) {
            Ok(0) => break,
            Ok(read) => {
                (length, at) = (length + read, at + read as u64);
                buffer = &mut buffer[read..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A piece of output that begins at a place of its stream.
pub(super) fn output(origin: Origin, start: u64, bytes: &[u8]) -> Frame {
    Frame::Output(Chunk { origin, ts: chrono::Utc::now(), start, bytes: bytes.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(reader: &mut Reader) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            texts.push(match frame {
                Frame::Output(chunk) => format!("{} {}", chunk.start, String::from_utf8(chunk.bytes).unwrap()),
                Frame::Event(event) => format!("{event:?}"),
            });
        }
        texts
    }

    #[test]
    fn a_reader_follows_a_record_into_its_next_file_and_misses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let mut writer = Writer::create(&path).unwrap();
        let mut reader = Reader::open(&path, [0, 0]).unwrap();
        assert_eq!(texts(&mut reader), Vec::<String>::new());
        writer.append(&output(Origin::Stdout, 0, b"one\ntwo")).unwrap();
        writer.append(&output(Origin::Stderr, 0, b"oops\n")).unwrap();
        writer.append(&Frame::Event(Event::Full)).unwrap();
        assert_eq!(texts(&mut reader), ["0 one\ntwo", "0 oops\n", "Full"]);
        writer.roll([4, 5]).unwrap();
        writer.append(&output(Origin::Stdout, 7, b"!\n")).unwrap();
        assert_eq!(texts(&mut reader), ["7 !\n"], "the tail was read before");
        // Who comes later finds what was not settled.
        assert_eq!(texts(&mut Reader::open(&path, [4, 5]).unwrap()), ["4 two", "7 !\n"]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn half_a_frame_is_none_yet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let bytes = output(Origin::Stdout, 0, b"whole\n").encode();
        for length in [0, 3, HEAD, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(Reader::open(&path, [0, 0]).unwrap().next().unwrap(), None);
        }
    }
}
