//! Reads a tar as layers are written: ustar, GNU and PAX, with long names, sparse files and
//! extended attributes (POSIX pax; GNU tar manual, "Basic Tar Format" and "Storing Sparse
//! Files"). Pure reading; believes nothing, and bounds everything that it keeps.
//!
//! Not the `tar` crate's reader: that one (0.4.46, read) collects a long name or a PAX record
//! whole, whatever length the header claims, splits PAX records at newlines although attribute
//! values hold any bytes, and does not know PAX sparse files.

use std::io::{self, Read, Seek, SeekFrom};

use crate::image::unpack::Fault;
use crate::limits::{LAYER_EXTENSION_BYTES_MAX, LAYER_PATH_BYTES_MAX, LAYER_SPARSE_PIECES_MAX};

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    /// A device, a fifo, or a type that nobody defines: left out.
    Other,
}

/// One entry, without its body.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    /// Target of a link.
    pub(super) link: Vec<u8>,
    /// Permission bits, with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: (i64, u32),
    /// Length of the file once unpacked.
    pub(super) bytes: u64,
    /// Of a sparse file: offset and length of what the body holds. Ascending, apart, within
    /// `bytes`.
    pub(super) pieces: Option<Vec<(u64, u64)>>,
    /// Names and values, unfiltered.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tar being read. [`Tar::next`] skips what is left of the last entry's body.
#[derive(Debug)]
pub(super) struct Tar<R> {
    input: R,
    /// Of the current body.
    body_left: u64,
    padding_left: u64,
    /// Headers read: an entry whose name cannot be read goes by its number.
    headers: u64,
}

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Extensions {
    gnu_path: Option<Vec<u8>>,
    gnu_link: Option<Vec<u8>>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extensions {
    fn record(&self, key: &str) -> Option<&[u8]> {
        // The last one counts.
        self.records.iter().rev().find(|(k, _)| k == key.as_bytes()).map(|(_, v)| v.as_slice())
    }
}

impl<R: Read> Tar<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, body_left: 0, padding_left: 0, headers: 0 }
    }

    /// The next entry, or `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Fault> {
        let mut extensions = Extensions::default();
        let mut extension_bytes = 0;
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.body_left = self.number(&header[124..136], "size")?;
            self.padding_left = self.body_left.wrapping_neg() % BLOCK as u64;
            let flag = header[156];
            if !matches!(flag, b'L' | b'K' | b'x' | b'g') {
                return self.entry(&header, &extensions).map(Some);
            }
            extension_bytes += self.body_left;
            if extension_bytes > LAYER_EXTENSION_BYTES_MAX {
                return Err(self.bad(format!(
                    "more than {LAYER_EXTENSION_BYTES_MAX} bytes of extension headers"
                )));
            }
            let mut body = Vec::new();
            self.read_body_to_end(&mut body)?;
            match flag {
                b'L' => extensions.gnu_path = Some(until_nul(&body).to_vec()),
                b'K' => extensions.gnu_link = Some(until_nul(&body).to_vec()),
                b'x' => extensions.records = records(&body).map_err(|e| self.bad(e))?,
                // Global records: Docker passes over them, as they are comments in practice.
                _ => {}
            }
        }
    }

    /// The body of the entry that [`Tar::next`] has returned last.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let want = usize::try_from(self.body_left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = read_some(&mut self.input, &mut buffer[..want]).map_err(Fault::Input)?;
        if got == 0 {
            return Err(self.cut());
        }
        self.body_left -= got as u64;
        Ok(got)
    }

    /// Reads what stands behind the archive's end: it is part of the bytes that the diff id names.
    pub(super) fn drain(&mut self) -> Result<(), Fault> {
        io::copy(&mut self.input, &mut io::sink()).map_err(Fault::Input).map(drop)
    }

    fn skip(&mut self) -> Result<(), Fault> {
        let left = self.body_left.saturating_add(self.padding_left);
        let skipped = io::copy(&mut (&mut self.input).take(left), &mut io::sink());
        if skipped.map_err(Fault::Input)? < self.body_left {
            return Err(self.cut());
        }
        (self.body_left, self.padding_left) = (0, 0);
        Ok(())
    }

    /// Passes over the body of the entry that [`Tar::next`] has returned last, and returns where
    /// it begins. That it ends within the input is for the caller to check.
    pub(super) fn pass(&mut self) -> Result<u64, Fault>
    where
        R: Seek,
    {
        let begins = self.input.stream_position().map_err(Fault::Input)?;
        let after = begins.saturating_add(self.body_left).saturating_add(self.padding_left);
        self.input.seek(SeekFrom::Start(after)).map_err(Fault::Input)?;
        (self.body_left, self.padding_left) = (0, 0);
        Ok(begins)
    }

    fn read_body_to_end(&mut self, body: &mut Vec<u8>) -> Result<(), Fault> {
        let mut block = [0; BLOCK];
        loop {
            match self.read(&mut block)? {
                0 => return Ok(()),
                got => body.extend_from_slice(&block[..got]),
            }
        }
    }

    /// A header block, or `None` at the end: a block of zeros, or no block.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Fault> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(self.cut()),
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        self.headers += 1;
        let stated = self.number(&block[148..156], "checksum")?;
        if !checksums(&block).contains(&stated) {
            return Err(self.bad("the header's checksum is wrong".to_owned()));
        }
        Ok(Some(block))
    }

    /// Fills the block as far as the input reaches.
    fn fill(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < BLOCK {
            match read_some(&mut self.input, &mut block[filled..]).map_err(Fault::Input)? {
                0 => break,
                got => filled += got,
            }
        }
        Ok(filled)
    }

    fn entry(&mut self, header: &[u8; BLOCK], more: &Extensions) -> Result<Entry, Fault> {
        let mut path = match (&more.gnu_path, more.record("path")) {
            (_, Some(path)) => path.to_vec(),
            (Some(path), None) => path.clone(),
            (None, None) => ustar_path(header),
        };
        if let Some(name) = more.record("GNU.sparse.name") {
            path = name.to_vec();
        }
        let link = match (&more.gnu_link, more.record("linkpath")) {
            (_, Some(link)) => link.to_vec(),
            (Some(link), None) => link.clone(),
            (None, None) => until_nul(&header[157..257]).to_vec(),
        };
        if path.len().max(link.len()) > LAYER_PATH_BYTES_MAX {
            return Err(self.bad(format!("a path of more than {LAYER_PATH_BYTES_MAX} bytes")));
        }
        let kind = match header[156] {
            // Tars from before POSIX mark directories by a slash only.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Directory,
            _ => Kind::Other,
        };
        if let Some(bytes) = self.record_number(more, "size")? {
            self.body_left = bytes;
            self.padding_left = bytes.wrapping_neg() % BLOCK as u64;
        }
        if matches!(header[156], b'1'..=b'6') {
            // Links, devices, directories and fifos have no body, whatever their size says.
            (self.body_left, self.padding_left) = (0, 0);
        }
        let mut entry = Entry {
            kind,
            path,
            link,
            mode: u32::try_from(self.number(&header[100..108], "mode")? & 0o7777).unwrap_or(0),
            uid: self.id(&header[108..116], more, "uid")?,
            gid: self.id(&header[116..124], more, "gid")?,
            mtime: self.mtime(header, more)?,
            bytes: self.body_left,
            pieces: None,
            xattrs: xattrs(more),
        };
        if kind == Kind::File {
            self.sparse(header, more, &mut entry)?;
        }
        Ok(entry)
    }

    fn id(&self, field: &[u8], more: &Extensions, name: &str) -> Result<u32, Fault> {
        let id = match self.record_number(more, name)? {
            Some(id) => id,
            None => self.number(field, name)?,
        };
        // The last id means "leave as it is" to chown(2).
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| self.bad(format!("{name} {id} is none that Linux has")))
    }

    fn mtime(&self, header: &[u8; BLOCK], more: &Extensions) -> Result<(i64, u32), Fault> {
        let Some(text) = more.record("mtime") else {
            return Ok((self.number(&header[136..148], "mtime")?.cast_signed(), 0));
        };
        let wrong = || self.bad("mtime is not a number".to_owned());
        let text = str::from_utf8(text).map_err(|_| wrong())?;
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let mut seconds: i64 = seconds.parse().map_err(|_| wrong())?;
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let mut nanos: u32 = format!("{fraction:0<9.9}").parse().map_err(|_| wrong())?;
        if text.starts_with('-') && nanos > 0 {
            seconds = seconds.saturating_sub(1);
            nanos = 1_000_000_000 - nanos;
        }
        Ok((seconds, nanos))
    }

    /// Reads a sparse file's map, in whichever of the four forms that GNU tar has written.
    fn sparse(
        &mut self,
        header: &[u8; BLOCK],
        more: &Extensions,
        entry: &mut Entry,
    ) -> Result<(), Fault> {
        let (bytes, numbers) = if header[156] == b'S' {
            (self.number(&header[483..495], "real size")?, self.gnu_map(header)?)
        } else if more.record("GNU.sparse.major") == Some(b"1") {
            let bytes = self.record_number(more, "GNU.sparse.realsize")?;
            (bytes.unwrap_or_default(), self.map_in_body()?)
        } else if let Some(bytes) = self.record_number(more, "GNU.sparse.size")? {
            (bytes, self.pax_map(more)?)
        } else {
            return Ok(());
        };
        let mut pieces = Vec::with_capacity(numbers.len() / 2);
        let (mut end, mut held) = (0, 0u64);
        for pair in numbers.chunks_exact(2) {
            let (offset, length) = (pair[0], pair[1]);
            let next = offset.checked_add(length).filter(|next| offset >= end && *next <= bytes);
            end = next.ok_or_else(|| self.bad("the map of a sparse file overlaps".to_owned()))?;
            held += length;
            if length > 0 {
                pieces.push((offset, length));
            }
        }
        if held != self.body_left {
            return Err(self.bad("the map of a sparse file does not fit its body".to_owned()));
        }
        entry.bytes = bytes;
        entry.pieces = Some(pieces);
        Ok(())
    }

    /// Old GNU: four pairs in the header, then blocks of 21.
    fn gnu_map(&mut self, header: &[u8; BLOCK]) -> Result<Vec<u64>, Fault> {
        let mut numbers = Vec::new();
        self.gnu_pairs(&header[386..482], &mut numbers)?;
        let mut extended = header[482] != 0;
        while extended {
            let mut block = [0; BLOCK];
            if self.fill(&mut block)? < BLOCK {
                return Err(self.cut());
            }
            self.gnu_pairs(&block[..504], &mut numbers)?;
            extended = block[504] != 0;
        }
        Ok(numbers)
    }

    fn gnu_pairs(&self, fields: &[u8], numbers: &mut Vec<u64>) -> Result<(), Fault> {
        for pair in fields.chunks_exact(24) {
            if pair[0] == 0 {
                break;
            }
            numbers.push(self.number(&pair[..12], "sparse offset")?);
            numbers.push(self.number(&pair[12..], "sparse length")?);
        }
        self.check_pieces(numbers.len() / 2)
    }

    fn check_pieces(&self, pieces: usize) -> Result<(), Fault> {
        if pieces > LAYER_SPARSE_PIECES_MAX {
            return Err(self.bad(format!("more than {LAYER_SPARSE_PIECES_MAX} sparse pieces")));
        }
        Ok(())
    }

    /// PAX 1.0: decimal lines at the start of the body, padded to a block: how many pairs, then
    /// the pairs.
    fn map_in_body(&mut self) -> Result<Vec<u64>, Fault> {
        let mut numbers = Vec::new();
        let mut wanted = None;
        let mut line = Vec::new();
        while wanted != Some(numbers.len()) {
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.read(&mut block[filled..])? {
                    0 => return Err(self.bad("the map of a sparse file is cut".to_owned())),
                    got => filled += got,
                }
            }
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let number = decimal(&line)
                    .ok_or_else(|| self.bad("the map of a sparse file is no numbers".to_owned()))?;
                line.clear();
                match wanted {
                    None => {
                        let pairs = usize::try_from(number).unwrap_or(usize::MAX);
                        self.check_pieces(pairs)?;
                        wanted = Some(pairs * 2);
                    }
                    Some(_) => numbers.push(number),
                }
                if wanted == Some(numbers.len()) {
                    break;
                }
            }
            if line.len() > BLOCK {
                return Err(self.bad("the map of a sparse file is no numbers".to_owned()));
            }
        }
        Ok(numbers)
    }

    /// PAX 0.1 (one record of commas) and 0.0 (a record for each number).
    fn pax_map(&self, more: &Extensions) -> Result<Vec<u64>, Fault> {
        let texts: Vec<&[u8]> = match more.record("GNU.sparse.map") {
            Some(map) => map.split(|b| *b == b',').filter(|text| !text.is_empty()).collect(),
            None => {
                let is_number =
                    |key: &[u8]| key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes";
                more.records.iter().filter(|(k, _)| is_number(k)).map(|(_, v)| &v[..]).collect()
            }
        };
        self.check_pieces(texts.len() / 2)?;
        let numbers: Option<Vec<u64>> = texts.into_iter().map(decimal).collect();
        numbers
            .filter(|numbers| numbers.len().is_multiple_of(2))
            .ok_or_else(|| self.bad("the map of a sparse file is no pairs of numbers".to_owned()))
    }

    fn record_number(&self, more: &Extensions, key: &str) -> Result<Option<u64>, Fault> {
        let Some(text) = more.record(key) else {
            return Ok(None);
        };
        decimal(text).map(Some).ok_or_else(|| self.bad(format!("{key} is not a number")))
    }

    /// A header's number: octal digits, or (GNU) big-endian bytes after a first byte with its
    /// high bit set. Blank is zero.
    fn number(&self, field: &[u8], name: &str) -> Result<u64, Fault> {
        let wrong = || self.bad(format!("{name} is not a number"));
        if field[0] & 0x80 != 0 {
            let negative = field[0] & 0x40 != 0;
            let (high, low) = field.split_at(field.len() - field.len().min(8));
            let fits = match high {
                [] => true,
                [first, rest @ ..] if negative => *first == 0xff && rest.iter().all(|b| *b == 0xff),
                [first, rest @ ..] => *first == 0x80 && rest.iter().all(|b| *b == 0),
            };
            let mut bytes = [0; 8];
            bytes[8 - low.len()..].copy_from_slice(low);
            if high.is_empty() {
                // An eight-byte field: its first byte is the mark and part of the number.
                bytes[0] = if negative { bytes[0] } else { bytes[0] & 0x7f };
            }
            return if fits { Ok(u64::from_be_bytes(bytes)) } else { Err(wrong()) };
        }
        let text = str::from_utf8(until_nul(field)).map_err(|_| wrong())?.trim();
        if text.is_empty() {
            return Ok(0);
        }
        if text.starts_with('+') {
            return Err(wrong());
        }
        u64::from_str_radix(text, 8).map_err(|_| wrong())
    }

    fn bad(&self, reason: String) -> Fault {
        Fault::Bad { entry: format!("number {}", self.headers), reason }
    }

    fn cut(&self) -> Fault {
        self.bad("the tar ends in its middle".to_owned())
    }
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// Name and, in POSIX's ustar, its prefix. GNU's header keeps other things there.
fn ustar_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    let prefix = until_nul(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

/// The sum of a header's bytes, its checksum field taken as spaces; and the same with signed
/// bytes, as some old tars wrote it.
fn checksums(header: &[u8; BLOCK]) -> [u64; 2] {
    let spaced = |i: usize, b: u8| if (148..156).contains(&i) { b' ' } else { b };
    let unsigned = header.iter().enumerate().map(|(i, b)| u64::from(spaced(i, *b))).sum();
    let signed: i64 =
        header.iter().enumerate().map(|(i, b)| i64::from(spaced(i, *b).cast_signed())).sum();
    [unsigned, signed.cast_unsigned()]
}

/// A PAX record: its keyword and its value.
type Record = (Vec<u8>, Vec<u8>);

/// PAX records: `LENGTH KEY=VALUE\n`, the length counting all of it. Values hold any bytes.
fn records(mut body: &[u8]) -> Result<Vec<Record>, String> {
    let wrong = || "an extended header that is not records".to_owned();
    let mut records = Vec::new();
    // Some writers pad with NULs.
    while body.first().is_some_and(|b| *b != 0) {
        let space = body.iter().position(|b| *b == b' ').ok_or_else(wrong)?;
        let length = decimal(&body[..space]).and_then(|n| usize::try_from(n).ok());
        let length = length.filter(|n| *n > space + 1 && *n <= body.len()).ok_or_else(wrong)?;
        let (record, rest) = body.split_at(length);
        let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        body = rest;
    }
    Ok(records)
}

fn decimal(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    if text.starts_with('+') {
        return None;
    }
    text.parse().ok()
}

fn xattrs(more: &Extensions) -> Vec<(Vec<u8>, Vec<u8>)> {
    let name = |key: &[u8]| key.strip_prefix(b"SCHILY.xattr.").map(<[u8]>::to_vec);
    more.records.iter().filter_map(|(k, v)| Some((name(k)?, v.clone()))).collect()
}
