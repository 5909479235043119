//! One layer's way from the registry to a directory: the body is hashed, decompressed, hashed
//! again and unpacked as it comes, never twice through the disk. A task feeds from the network,
//! a thread unpacks; a cut connection is resumed where it broke, unseen by the thread.

use std::io::{self, BufRead, Read};
use std::path::Path;

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use tokio::sync::mpsc;

use crate::image::digest::Hasher;
use crate::image::manifest::{Compression, Layer};
use crate::image::registry::{Again, Failure, Session};
use crate::image::steps::step;
use crate::image::unpack::{self, Bounds, unpack};
use crate::image::{Digest, Error, LayerFault};
use crate::limits::{LAYER_CHUNKS_WAITING_MAX, LAYER_PROGRESS_BYTES_MIN};

/// From the network to the unpacking thread. A channel that closes without an end means that the
/// fetch was given up.
pub(crate) enum Piece {
    Bytes(Bytes),
    End,
}

pub(crate) fn channel() -> (mpsc::Sender<Piece>, mpsc::Receiver<Piece>) {
    mpsc::channel(LAYER_CHUNKS_WAITING_MAX)
}

/// One layer of one image, and where it is fetched.
#[derive(Debug)]
pub(crate) struct Fetch<'a> {
    pub(crate) session: &'a Session,
    /// The image in full, for errors.
    pub(crate) image: &'a str,
    pub(crate) layer: Layer,
}

/// Why a try at a layer ended early.
enum Stop {
    Failed(Failure),
    /// The thread wants no more: its own result says why.
    Unwanted,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Fetch<'_> {
    /// Fetches all of the layer's bytes, as many tries as it takes within the session's patience.
    pub(crate) async fn feed(
        &self,
        pieces: mpsc::Sender<Piece>,
        advanced: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        let max = self.session.patience.layer;
        let fed = tokio::time::timeout(max, self.feed_patiently(&pieces, advanced)).await;
        fed.unwrap_or_else(|_| Err(self.fault(LayerFault::TooSlow(max))))
    }

    async fn feed_patiently(
        &self,
        pieces: &mpsc::Sender<Piece>,
        advanced: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        let (mut got, mut failed, mut mark) = (0, 0, 0);
        while got < self.layer.blob.bytes {
            match self.attempt(&mut got, pieces, advanced).await {
                Ok(()) => {}
                Err(Stop::Unwanted) => return Ok(()),
                Err(Stop::Failed(failure)) => {
                    if got - mark >= LAYER_PROGRESS_BYTES_MIN {
                        (failed, mark) = (0, got);
                    }
                    failed += 1;
                    self.session.pause(failure, failed).await?;
                }
            }
        }
        // Nobody listening is no failure of the fetch.
        let _ = pieces.send(Piece::End).await;
        Ok(())
    }

    /// One try, from byte `got` on.
    async fn attempt(
        &self,
        got: &mut u64,
        pieces: &mpsc::Sender<Piece>,
        advanced: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Stop> {
        let size = self.layer.blob.bytes;
        let mut response = self.session.layer(self.layer.blob, *got).await?;
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
        let start = if resumed { *got } else { 0 };
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        if resumed && !range.is_some_and(|range| range.starts_with(&format!("bytes {start}-"))) {
            let reason = "it resumes elsewhere than asked".to_owned();
            let what = crate::image::Part::Layer(self.layer.blob.digest);
            return Err(Failure::from(self.session.rubbish(what, reason)).into());
        }
        if let Some(length) = response.content_length()
            && length != size - start
        {
            return Err(Failure::from(self.size(start.saturating_add(length))).into());
        }
        // What is known already comes again from a registry that does not resume.
        let mut known = *got - start;
        loop {
            let mut chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if *got < size => {
                    // The end of the body, or a connection cut where no length was given.
                    let error = self.size(*got);
                    return Err(Failure { error, again: Again::Soon }.into());
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.cut(*got, &error).into()),
            };
            let skipped = known.min(chunk.len() as u64);
            known -= skipped;
            chunk.advance(usize::try_from(skipped).unwrap_or(usize::MAX));
            if chunk.is_empty() {
                continue;
            }
            *got += chunk.len() as u64;
            if *got > size {
                return Err(Failure::from(self.size(*got)).into());
            }
            advanced(*got);
            pieces.send(Piece::Bytes(chunk)).await.map_err(|_| Stop::Unwanted)?;
        }
    }

    fn cut(&self, got: u64, error: &reqwest::Error) -> Failure {
        let mut failure = self.session.broken(error);
        if let Error::Unreachable { reason, .. } = &mut failure.error {
            let Layer { blob, .. } = self.layer;
            *reason = format!(
                "layer {} broke off after {got} of {} bytes: {reason}",
                blob.digest, blob.bytes
            );
        }
        failure
    }

    fn size(&self, actual: u64) -> Error {
        self.fault(LayerFault::Size { expected: self.layer.blob.bytes, actual })
    }

    pub(crate) fn fault(&self, fault: LayerFault) -> Error {
        Error::Layer { image: self.image.to_owned(), layer: self.layer.blob.digest, fault }
    }
}

/// How the unpacking of a layer ended without one.
#[derive(Debug)]
pub(crate) enum Ended {
    Fault(LayerFault),
    Disk {
        entry: String,
        source: io::Error,
    },
    /// The fetch was given up; it says why.
    GivenUp,
}

/// Unpacks a layer into `root` as its pieces come, and verifies both of its digests. Returns the
/// length of its files together. Blocks; what is in `root` after a failure is rubbish.
pub(crate) fn receive(
    pieces: mpsc::Receiver<Piece>,
    layer: Layer,
    diff_id: Digest,
    root: &Path,
) -> Result<u64, Ended> {
    receive_within(Bounds::default(), pieces, layer, diff_id, root)
}

/// [`receive`], with bounds of the caller's; they bound the tar's own bytes as well.
pub(crate) fn receive_within(
    bounds: Bounds,
    pieces: mpsc::Receiver<Piece>,
    layer: Layer,
    diff_id: Digest,
    root: &Path,
) -> Result<u64, Ended> {
    let mut body = Body { pieces, current: Bytes::new(), hasher: Hasher::default(), end: false };
    let result = match layer.compression {
        Compression::None => unpack_from(&mut body, root, bounds),
        Compression::Gzip => unpack_from(MultiGzDecoder::new(&mut body), root, bounds),
        Compression::Zstd => unpack_from(Zstd::new(&mut body), root, bounds),
    };
    let fault = match &result {
        Ok(_) => None,
        Err(unpack::Fault::Disk { .. } | unpack::Fault::TooLarge(_)) => return result_of(result),
        Err(unpack::Fault::Input(_) | unpack::Fault::Bad { .. }) => Some(()),
    };
    // Wrong bytes often look like a bad tar: the digest is the truer word, so read on to the end.
    if io::copy(&mut body, &mut io::sink()).is_err() {
        return Err(Ended::GivenUp);
    }
    let expected = layer.blob.digest;
    let actual = body.hasher.finish();
    if actual != expected {
        return Err(Ended::Fault(LayerFault::Digest { expected, actual }));
    }
    if fault.is_some() {
        return result_of(result);
    }
    let (bytes, actual) = result_of_both(result)?;
    if actual != diff_id {
        return Err(Ended::Fault(LayerFault::DiffId { expected: diff_id, actual }));
    }
    Ok(bytes)
}

type Outcome = Result<(u64, Digest), unpack::Fault>;

fn unpack_from(input: impl Read, root: &Path, bounds: Bounds) -> Outcome {
    let mut hashed = Hashed { input, hasher: Hasher::default(), bytes_max: bounds.bytes };
    let bytes = unpack(&mut hashed, root, bounds)?;
    Ok((bytes, hashed.hasher.finish()))
}

fn result_of(outcome: Outcome) -> Result<u64, Ended> {
    result_of_both(outcome).map(|(bytes, _)| bytes)
}

fn result_of_both(outcome: Outcome) -> Result<(u64, Digest), Ended> {
    outcome.map_err(|fault| match fault {
        unpack::Fault::Input(error) if error.get_ref().is_some_and(|e| e.is::<TooLong>()) => {
            Ended::Fault(LayerFault::TooLarge { limit: error.to_string() })
        }
        unpack::Fault::Input(error) => {
            Ended::Fault(LayerFault::Compression { reason: error.to_string() })
        }
        unpack::Fault::Bad { entry, reason } => Ended::Fault(LayerFault::Tar { entry, reason }),
        unpack::Fault::TooLarge(limit) => Ended::Fault(LayerFault::TooLarge { limit }),
        unpack::Fault::Disk { entry, source } => Ended::Disk { entry, source },
    })
}

/// The compressed body as a reader; hashes what it is given, in order.
struct Body {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    hasher: Hasher,
    end: bool,
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.end {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    if self.hasher.bytes > 0 {
                        step("layer half-way");
                    }
                    self.hasher.update(&bytes);
                    self.current = bytes;
                }
                Some(Piece::End) => self.end = true,
                None => return Err(io::Error::other("the fetch was given up")),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.fill_buf()?.read(buffer)?;
        self.consume(got);
        Ok(got)
    }
}

/// The uncompressed tar: hashed, and bounded against bombs that hide in padding.
struct Hashed<R> {
    input: R,
    hasher: Hasher,
    bytes_max: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        if self.hasher.bytes > self.bytes_max {
            return Err(io::Error::other(TooLong(self.bytes_max)));
        }
        Ok(got)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0} bytes of tar")]
struct TooLong(u64);

/// A zstd stream of any number of frames, skippable ones among them (RFC 8878).
struct Zstd<R> {
    input: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(input: R) -> Self {
        Self { input, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Reads a frame's header, or skips a frame that holds no data.
    fn begin_frame(&mut self) -> io::Result<()> {
        match self.decoder.init(&mut self.input) {
            Ok(()) => {
                self.in_frame = true;
                Ok(())
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let skipped = (&mut self.input).take(u64::from(length));
                io::copy(&mut { skipped }, &mut io::sink()).map(drop)
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            while self.in_frame {
                let got = self.decoder.read(buffer)?;
                if got > 0 {
                    return Ok(got);
                }
                self.in_frame = !self.decoder.is_finished();
                if self.in_frame {
                    let some = BlockDecodingStrategy::UptoBytes(buffer.len());
                    self.decoder.decode_blocks(&mut self.input, some).map_err(io::Error::other)?;
                }
            }
            if self.input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.begin_frame()?;
        }
    }
}
