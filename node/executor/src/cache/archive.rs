//! Makes a plain tar of whatever archive was downloaded: a tar, a gzipped tar or a zip, told apart
//! by how they begin. What it writes is bounded, and in a room of its own.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use tar::{EntryType, Header};
use tempfile::NamedTempFile;
use zip::ZipArchive;
use zip::read::ZipFile;

use super::DownloadError;
use super::blocking::Halt;
use super::fetch::Fetched;
use super::index::{Index, Room};
use crate::limits::{ZIP_DIRECTORY_BYTES_MAX, ZIP_LINK_BYTES_MAX};

/// A tar's block.
const BLOCK: usize = 512;

/// How an archive begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tar,
    Gzip,
    Zip,
}

impl Kind {
    fn of(begin: &[u8]) -> Option<Self> {
        if begin.starts_with(&[0x1f, 0x8b, 8]) {
            return Some(Self::Gzip);
        }
        if begin.starts_with(b"PK\x03\x04") || begin.starts_with(b"PK\x05\x06") {
            return Some(Self::Zip);
        }
        // POSIX's and GNU's tars, and those of before, by the sum of the first header.
        let header = Header::from_byte_slice(begin.first_chunk::<BLOCK>()?);
        let sum: u32 = begin[..BLOCK]
            .iter()
            .enumerate()
            .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        let is_tar = header.cksum().is_ok_and(|said| said == sum);
        is_tar.then_some(Self::Tar)
    }
}

/// A tar and the room that it takes.
#[derive(Debug)]
pub(super) struct Tar {
    pub(super) file: NamedTempFile,
    pub(super) bytes: u64,
    pub(super) room: Room,
}

/// Makes a tar of at most `bytes_max` bytes. It blocks.
pub(super) fn to_tar(
    fetched: Fetched,
    index: &std::sync::Arc<Index>,
    bytes_max: u64,
    halt: &Halt,
) -> Result<Tar, DownloadError> {
    let Fetched { mut file, bytes, room, .. } = fetched;
    let disk = DownloadError::disk(file.path());
    let mut begin = Vec::with_capacity(BLOCK);
    file.seek(SeekFrom::Start(0)).map_err(&disk)?;
    file.as_file().take(BLOCK as u64).read_to_end(&mut begin).map_err(&disk)?;
    file.seek(SeekFrom::Start(0)).map_err(&disk)?;
    let kind = Kind::of(&begin).ok_or(DownloadError::Format)?;
    if kind == Kind::Tar {
        return if bytes > bytes_max {
            Err(DownloadError::Large(bytes_max))
        } else {
            Ok(Tar { file, bytes, room })
        };
    }
    let made = index.make_file()?;
    let to = made.reopen().map_err(DownloadError::disk(made.path()))?;
    let mut output = Output {
        path: made.path().to_owned(),
        file: BufWriter::with_capacity(64 << 10, to),
        room: index.room(),
        bytes: 0,
        bytes_max,
        refusal: None,
    };
    let input = halt.reading(BufReader::new(file.as_file()));
    let written = match kind {
        Kind::Zip => zip_to_tar(input, &mut output),
        Kind::Gzip | Kind::Tar => io::copy(&mut MultiGzDecoder::new(input), &mut output).map(drop),
    };
    let written = written.and_then(|()| output.flush());
    let Output { room, bytes, refusal, .. } = output;
    match (refusal, written) {
        (Some(refusal), _) => Err(refusal),
        (None, Err(error)) => Err(DownloadError::Broken(error.to_string())),
        (None, Ok(())) => Ok(Tar { file: made, bytes, room }),
    }
}

/// A file that takes no more than it may.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    room: Room,
    bytes: u64,
    bytes_max: u64,
    /// Why it took no more.
    refusal: Option<DownloadError>,
}

impl Output {
    fn take(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(DownloadError::Large(self.bytes_max));
        }
        self.room.take(bytes.len() as u64)?;
        self.file.write_all(bytes).map_err(DownloadError::disk(&self.path))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.take(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(refusal) => {
                let error = io::Error::other(refusal.to_string());
                self.refusal = Some(refusal);
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn zip_to_tar(input: impl Read + Seek, output: &mut Output) -> io::Result<()> {
    // Reading the list of contents is all that happens before the archive is there.
    let left = Rc::new(Cell::new(ZIP_DIRECTORY_BYTES_MAX));
    let mut zip = ZipArchive::new(Rationed { input, left: Rc::clone(&left) })?;
    left.set(u64::MAX);
    let mut tar = tar::Builder::new(output);
    for at in 0..zip.len() {
        append(&mut tar, zip.by_index(at)?)?;
    }
    tar.finish()
}

/// Modes and times are the zip's; owners it has none. A path out of the archive is refused.
fn append<R: Read + Seek>(
    tar: &mut tar::Builder<&mut Output>,
    mut file: ZipFile<'_, R>,
) -> io::Result<()> {
    let path = file.name()?.into_owned();
    let mut header = Header::new_gnu();
    let time = file.last_modified().map_or(0, seconds);
    header.set_mtime(time);
    let kind = if file.is_dir() {
        EntryType::Directory
    } else if file.is_symlink() {
        EntryType::Symlink
    } else {
        EntryType::Regular
    };
    header.set_entry_type(kind);
    let mode = if kind == EntryType::Directory { 0o755 } else { 0o644 };
    header.set_mode(file.unix_mode().map_or(mode, |mode| mode & 0o7777));
    if kind == EntryType::Symlink {
        let mut target = String::new();
        (&mut file).take(ZIP_LINK_BYTES_MAX).read_to_string(&mut target)?;
        header.set_size(0);
        return tar.append_link(&mut header, path, target);
    }
    if kind == EntryType::Directory {
        header.set_size(0);
        return tar.append_data(&mut header, path, io::empty());
    }
    // What the zip says of the size is in the header already: it must hold.
    let size = file.size();
    header.set_size(size);
    let mut body = Exact { input: file, left: size };
    tar.append_data(&mut header, path, &mut body)
}

/// Seconds since 1970 of a date that knows no time zone, taken as UTC.
fn seconds(time: zip::DateTime) -> u64 {
    // Howard Hinnant's days_from_civil, for years from 1980 on.
    let (year, month, day) =
        (u64::from(time.year()), u64::from(time.month()), u64::from(time.day()));
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.saturating_sub(719_468);
    let of_day = u64::from(time.hour()) * 3600 + u64::from(time.minute()) * 60;
    days * 86_400 + of_day + u64::from(time.second())
}

/// Reads what was promised, and fails where it is less or more.
struct Exact<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let wrong = |kind| Err(io::Error::new(kind, "a file's size is not what the zip says"));
        self.left = match self.left.checked_sub(read as u64) {
            Some(left) if read == 0 && left > 0 && !buffer.is_empty() => {
                return wrong(io::ErrorKind::UnexpectedEof);
            }
            Some(left) => left,
            None => return wrong(io::ErrorKind::InvalidData),
        };
        Ok(read)
    }
}

/// Reads no more than it may.
struct Rationed<R> {
    input: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("the list of contents is too long"))?);
        Ok(read)
    }
}

impl<R: Seek> Seek for Rationed<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.input.seek(to)
    }
}
