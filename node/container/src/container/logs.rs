//! A container's log: bounded on disk, read by position, followed without polling.
//!
//! The shim appends records to numbered segment files and drops the oldest; readers open the
//! files themselves, so that a slow or dead reader costs the app nothing.
//! A record is a 12 byte head (nanoseconds since the Unix epoch as u64, stream as u8, length of
//! the source as u8, length of the line as u16; little endian), the source and the line's bytes.
//!
//! What it never does: interpret the text, or wait for a reader.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::error::{Context as _, Result};
use super::log_rate::{LogRate, LogRateLimiter, Verdict};
use crate::limits::{LOG_BATCH_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_SEGMENTS_MAX};

const HEAD_BYTES: usize = 12;

/// Which of the app's two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogStream {
    /// Standard output, Diego's OUT.
    Stdout,
    /// Standard error, Diego's ERR.
    Stderr,
}

/// One line of the app, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was read from the app, nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// Where it came from.
    pub stream: LogStream,
    /// As of what it was written, such as `APP/PROC/WEB`; empty where nobody said.
    pub source: String,
    /// Its bytes, 1 to 61440; UTF-8 only if the app writes UTF-8.
    pub text: Vec<u8>,
}

/// A place between two lines of one container's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    segment: u64,
    offset: u64,
}

impl LogPosition {
    /// Before the first line ever written; reading from here begins at the oldest line kept.
    pub const START: Self = Self { segment: 0, offset: 0 };

    /// As one number, in the order of positions: the segment above, the offset below. Segments
    /// stay far below 4 GiB, and there are never 2^32 of them.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        (self.segment << 32) | (self.offset & 0xffff_ffff)
    }

    /// The position that [`Self::to_u64`] made a number of.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self { segment: number >> 32, offset: number & 0xffff_ffff }
    }
}

/// Some lines, and where the next ones are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// In the order they were written.
    pub lines: Vec<LogLine>,
    /// Read on from here.
    pub next: LogPosition,
    /// Whether lines between the asked position and the first of these are gone.
    pub lost: bool,
}

/// Cuts an app's bytes into lines: at `\n` or `\r`, and after 61440 bytes, there on a boundary
/// of UTF-8; empty lines are dropped (Diego's log streamer does all three).
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    pub(super) fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = LOG_LINE_BYTES_MAX - self.partial.len();
            let piece = &bytes[..bytes.len().min(room)];
            if let Some(end) = piece.iter().position(|b| matches!(b, b'\n' | b'\r')) {
                self.partial.extend_from_slice(&piece[..end]);
                self.flush(&mut line);
                bytes = &bytes[end + 1..];
                continue;
            }
            self.partial.extend_from_slice(piece);
            bytes = &bytes[piece.len()..];
            if self.partial.len() == LOG_LINE_BYTES_MAX {
                let rest = self.partial.split_off(character_boundary(&self.partial));
                line(&self.partial);
                self.partial = rest;
            }
        }
    }

    /// Ends the last, unfinished line.
    pub(super) fn flush(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            line(&self.partial);
            self.partial.clear();
        }
    }
}

/// Where to cut so that an unfinished UTF-8 character at the end stays whole: at most three
/// bytes before the end, and at the end itself for what is not UTF-8.
fn character_boundary(bytes: &[u8]) -> usize {
    for back in 1..=3.min(bytes.len()) {
        let at = bytes.len() - back;
        let length = match bytes[at] {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            _ => 1,
        };
        return if length > back { at } else { bytes.len() };
    }
    bytes.len()
}

/// The shim's side: appends, rotates, drops.
#[derive(Debug)]
pub(super) struct LogWriter {
    dir: PathBuf,
    file: File,
    end: LogPosition,
    segment_bytes_max: u64,
    batch: Vec<u8>,
    since: Instant,
    limiter: LogRateLimiter,
}

impl LogWriter {
    /// Starts a log of at most `bytes_max` (and at least a few lines) in the empty directory.
    /// `rate` bounds what the app says.
    pub(super) fn create(dir: &Path, bytes_max: u64, rate: LogRate) -> io::Result<Self> {
        let dir = dir.to_owned();
        let file = File::create_new(segment_path(&dir, 0))?;
        let record_bytes_max = HEAD_BYTES + usize::from(u8::MAX) + LOG_LINE_BYTES_MAX;
        let line_bytes_max = u64::try_from(record_bytes_max)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let segment_bytes_max = (bytes_max / LOG_SEGMENTS_MAX).max(line_bytes_max);
        Ok(Self {
            dir,
            file,
            end: LogPosition::START,
            segment_bytes_max,
            batch: Vec::new(),
            since: Instant::now(),
            limiter: LogRateLimiter::new(rate),
        })
    }

    /// Adds a line of the app, or what its limits make of it.
    pub(super) fn push_app(
        &mut self,
        at_ns: u64,
        stream: LogStream,
        source: &str,
        text: &[u8],
    ) -> io::Result<()> {
        match self.limiter.admit(self.since.elapsed(), text.len()) {
            Verdict::Pass => self.push(at_ns, stream, source, text),
            Verdict::Drop => Ok(()),
            Verdict::Replace(notice) => {
                self.push(at_ns, LogStream::Stdout, source, notice.as_bytes())
            }
        }
    }

    /// Adds a line; it is in the file after the next [`Self::write`].
    pub(super) fn push(
        &mut self,
        at_ns: u64,
        stream: LogStream,
        source: &str,
        text: &[u8],
    ) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "log line too long");
        let length = u16::try_from(text.len()).map_err(too_long)?;
        let source_length = u8::try_from(source.len()).map_err(too_long)?;
        let bytes = (self.batch.len() + HEAD_BYTES + source.len() + text.len()) as u64;
        if self.end.offset + bytes > self.segment_bytes_max {
            self.write()?;
            if self.end.offset > 0 {
                self.rotate()?;
            }
        }
        self.batch.extend_from_slice(&at_ns.to_le_bytes());
        self.batch.extend_from_slice(&[u8::from(stream == LogStream::Stderr), source_length]);
        self.batch.extend_from_slice(&length.to_le_bytes());
        self.batch.extend_from_slice(source.as_bytes());
        self.batch.extend_from_slice(text);
        Ok(())
    }

    /// Hands the lines pushed so far to the kernel.
    /// What it cannot take (a full disk) is cut off again, so that the records stay whole.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if let Err(error) = self.file.write_all(&batch) {
            self.file.set_len(self.end.offset)?;
            self.file.seek(SeekFrom::Start(self.end.offset))?;
            return Err(error);
        }
        self.end.offset += batch.len() as u64;
        self.batch = batch;
        self.batch.clear();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let segment = self.end.segment + 1;
        self.file = File::create_new(segment_path(&self.dir, segment))?;
        self.end = LogPosition { segment, offset: 0 };
        if let Some(oldest) = segment.checked_sub(LOG_SEGMENTS_MAX) {
            fs::remove_file(segment_path(&self.dir, oldest))?;
        }
        Ok(())
    }

    /// Behind the last line that readers can see.
    pub(super) fn end(&self) -> LogPosition {
        self.end
    }
}

fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:020}"))
}

/// Reads up to `lines_max` lines from `position`; an empty batch means that there are no more
/// yet.
/// Blocks on the disk only.
pub(super) fn read(dir: &Path, position: LogPosition, lines_max: usize) -> Result<LogBatch> {
    let mut batch = LogBatch { next: position, ..LogBatch::default() };
    // Each round moves on by a segment, or ends; LOG_SEGMENTS_MAX of them can be there, and
    // the writer may rotate on while we read.
    while batch.lines.len() < lines_max {
        // Asked before reading: once it is there, nothing is added to the one before it.
        let next_is_there = segment_path(dir, batch.next.segment + 1).exists();
        let path = segment_path(dir, batch.next.segment);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                match oldest_after(dir, batch.next.segment)? {
                    Some(segment) => {
                        batch.lost = true;
                        batch.next = LogPosition { segment, offset: 0 };
                        continue;
                    }
                    None => return Ok(batch),
                }
            }
            Err(e) => return Err(e).context(|| format!("open {}", path.display())),
        };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(batch.next.offset))
            .and_then(|_| file.take(LOG_BATCH_BYTES_MAX as u64).read_to_end(&mut bytes))
            .context(|| format!("read {}", path.display()))?;
        let before = batch.lines.len();
        batch.next.offset += decode(&bytes, lines_max, &mut batch.lines);
        if batch.lines.len() > before {
            return Ok(batch);
        }
        if !next_is_there {
            return Ok(batch);
        }
        batch.next = LogPosition { segment: batch.next.segment + 1, offset: 0 };
    }
    Ok(batch)
}

/// The oldest segment kept that is newer than `segment`.
fn oldest_after(dir: &Path, segment: u64) -> Result<Option<u64>> {
    let context = || format!("list {}", dir.display());
    let mut oldest = None;
    for entry in fs::read_dir(dir).context(context)? {
        let name = entry.context(context)?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
        if let Some(number) = number.filter(|number| *number > segment) {
            oldest = Some(oldest.map_or(number, |oldest: u64| oldest.min(number)));
        }
    }
    Ok(oldest)
}

/// Appends whole records to `lines`, up to `lines_max` of them in all; returns the bytes used.
fn decode(bytes: &[u8], lines_max: usize, lines: &mut Vec<LogLine>) -> u64 {
    let mut rest = bytes;
    while lines.len() < lines_max {
        let Some((head, body)) = rest.split_first_chunk::<HEAD_BYTES>() else { break };
        let [t0, t1, t2, t3, t4, t5, t6, t7, stream, s0, l0, l1] = *head;
        let Some((source, body)) = body.split_at_checked(s0.into()) else { break };
        let Some((text, after)) = body.split_at_checked(u16::from_le_bytes([l0, l1]).into()) else {
            break;
        };
        lines.push(LogLine {
            at_ns: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            stream: if stream == 1 { LogStream::Stderr } else { LogStream::Stdout },
            source: String::from_utf8_lossy(source).into_owned(),
            text: text.to_vec(),
        });
        rest = after;
    }
    (bytes.len() - rest.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line.to_vec()));
        }
        splitter.flush(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn lines_end_at_newline_or_return_and_empty_ones_are_dropped() {
        assert_eq!(split(&[b"a\nb\r\n\nc"]), [b"a", b"b", b"c"]);
        assert_eq!(split(&[b"ab", b"c\nd", b"ef\r"]), [b"abc".as_slice(), b"def"]);
        assert!(split(&[b"\n\r\r\n"]).is_empty());
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let euro = "\u{20ac}".as_bytes(); // three bytes
        let mut text = vec![b'x'; LOG_LINE_BYTES_MAX - 1];
        text.extend_from_slice(euro);
        let lines = split(&[&text]);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), LOG_LINE_BYTES_MAX - 1);
        assert_eq!(lines[1], euro);

        let exact = vec![b'x'; LOG_LINE_BYTES_MAX];
        assert_eq!(split(&[&exact, b"\ny"]), [exact.as_slice(), b"y"]);

        // Not UTF-8 at all: cut at the limit, nothing lost.
        let binary = vec![0x80; 2 * LOG_LINE_BYTES_MAX + 5];
        let lengths: Vec<_> = split(&[&binary]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [LOG_LINE_BYTES_MAX, LOG_LINE_BYTES_MAX, 5]);
    }

    fn texts(batch: &LogBatch) -> Vec<String> {
        batch.lines.iter().map(|l| String::from_utf8(l.text.clone()).unwrap()).collect()
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::create(dir.path(), 1 << 20, LogRate::default()).unwrap();
        log.push(1, LogStream::Stdout, "APP", b"one").unwrap();
        log.push(2, LogStream::Stderr, "", b"two").unwrap();
        log.write().unwrap();
        let first = read(dir.path(), LogPosition::START, 1).unwrap();
        assert_eq!(texts(&first), ["one"]);
        assert_eq!(first.lines[0].source, "APP");
        let second = read(dir.path(), first.next, 10).unwrap();
        assert_eq!(
            second.lines,
            [LogLine {
                at_ns: 2,
                stream: LogStream::Stderr,
                source: String::new(),
                text: b"two".to_vec()
            }]
        );
        assert_eq!(second.next, log.end());
        let third = read(dir.path(), second.next, 10).unwrap();
        assert_eq!(third, LogBatch { next: second.next, ..LogBatch::default() });
    }

    #[test]
    fn the_log_is_bounded_and_a_slow_reader_is_told_what_it_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::create(dir.path(), 400_000, LogRate::default()).unwrap();
        for number in 0..5000_u64 {
            let line = format!("{number:0>1000}");
            log.push(number, LogStream::Stdout, "APP", line.as_bytes()).unwrap();
            log.write().unwrap();
        }
        let kept: u64 =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= 400_000, "{kept} bytes kept");
        assert!(kept > 200_000, "{kept} bytes kept");

        let (mut position, mut numbers, mut lost) = (LogPosition::START, Vec::new(), 0);
        loop {
            let batch = read(dir.path(), position, 100).unwrap();
            if batch.lines.is_empty() {
                break;
            }
            lost += u32::from(batch.lost);
            numbers.extend(batch.lines.iter().map(|line| line.at_ns));
            position = batch.next;
        }
        assert_eq!(lost, 1);
        assert_eq!(position, log.end());
        assert_eq!(*numbers.last().unwrap(), 4999);
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no gaps after the loss");
    }

    #[test]
    fn half_a_record_is_not_a_line() {
        let mut lines = Vec::new();
        let mut bytes = vec![0; HEAD_BYTES];
        bytes[10] = 5;
        bytes.extend_from_slice(b"abcd");
        assert_eq!(decode(&bytes, 10, &mut lines), 0);
        bytes.push(b'e');
        assert_eq!(decode(&bytes, 10, &mut lines), 17);
        assert_eq!(lines[0].text, b"abcde");
    }
}
