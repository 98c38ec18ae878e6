//! The format of a file in the object store: pieces of AES-256-GCM under a key of the file's own, as
//! `AttachedFile.key` in media.proto defines it. If a piece was changed, moved, left out or cut off, the file does
//! not open.

use std::io::{self, Read};

use aes_gcm::aead::{Aead, AeadInOut};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use sha2::{Digest, Sha256};
use tern_types::limits::MEDIA_PART_BYTES;

use super::MediaError;
use crate::upload_plan::{Hash, Key};

/// The size of a sealed piece in bytes. A part of an upload is a whole number of pieces; only a file's last piece is
/// shorter.
pub const SEALED: usize = 64 * 1024;
/// The size of AES-GCM's tag in bytes, by which a sealed piece is longer than its plain text.
const TAG: usize = 16;
/// The bytes of the file in one piece.
pub const PLAIN: usize = SEALED - TAG;
/// The number of pieces in a part.
const PIECES_OF_PART: u64 = MEDIA_PART_BYTES / SEALED as u64;

/// Returns the number of pieces of a file of `length` bytes. An empty file has one piece.
fn pieces(length: u64) -> u64 {
    length.div_ceil(PLAIN as u64).max(1)
}

/// Returns the size in bytes of the ciphertext of a file of `length` bytes, or `None` if that is more than can be
/// uploaded.
pub fn sealed_length(length: u64) -> Option<u64> {
    let sealed = length.checked_add(pieces(length).checked_mul(TAG as u64)?)?;
    (sealed <= tern_types::limits::MAX_MEDIA_BYTES).then_some(sealed)
}

/// Returns the number of parts in the upload of a file of `length` bytes.
pub fn parts(length: u64) -> u64 {
    pieces(length).div_ceil(PIECES_OF_PART)
}

/// Returns the byte of the file at which a part begins. Parts count from 0.
pub fn offset(part: u64) -> u64 {
    part * PIECES_OF_PART * PLAIN as u64
}

/// Returns the nonce of a piece: three bytes 0, the piece's number in 8 bytes (big-endian), and 1 for the file's last
/// piece, else 0.
fn nonce(piece: u64, last: bool) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&piece.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce.into()
}

/// Seals one part of a file, piece by piece.
pub struct PartSealer<R> {
    file: R,
    cipher: Aes256Gcm,
    next: u64,
    end: u64,
    length: u64,
}

impl<R: Read> PartSealer<R> {
    /// Begins to seal the part with the number `part`, counted from 0. `file` stands at the part's [`offset`]; `length`
    /// is that of the whole file in bytes.
    pub fn new(file: R, key: &Key, length: u64, part: u64) -> Self {
        let next = part * PIECES_OF_PART;
        Self {
            file,
            cipher: Aes256Gcm::new(key.into()),
            next,
            end: (next + PIECES_OF_PART).min(pieces(length)),
            length,
        }
    }

    /// Returns the next sealed piece, or `None` at the end of the part. A file that is shorter than `length` is an
    /// error (`UnexpectedEof`).
    pub fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.next == self.end {
            return Ok(None);
        }
        let last = self.next + 1 == pieces(self.length);
        let rest = self.length - self.next * PLAIN as u64;
        let plain = usize::try_from(rest).unwrap_or(PLAIN).min(PLAIN);
        let mut piece = Vec::with_capacity(plain + TAG);
        piece.resize(plain, 0);
        self.file.read_exact(&mut piece)?;
        self.cipher
            .encrypt_in_place(&nonce(self.next, last), b"", &mut piece)
            .map_err(|_| io::Error::other("a piece cannot be sealed"))?;
        self.next += 1;
        Ok(Some(piece))
    }
}

/// Returns the SHA-256 of each part of the ciphertext. A file that is shorter than `length` is an error
/// (`UnexpectedEof`).
pub fn part_hashes(file: &mut impl Read, key: &Key, length: u64) -> io::Result<Vec<Hash>> {
    let mut hashes = Vec::new();
    for part in 0..parts(length) {
        let mut sealer = PartSealer::new(&mut *file, key, length, part);
        let mut hash = Sha256::new();
        while let Some(piece) = sealer.piece()? {
            hash.update(&piece);
        }
        hashes.push(hash.finalize().into());
    }
    Ok(hashes)
}

/// Returns the hash that names the ciphertext, computed as the platform does (`AttachedFile.sha256`).
pub fn content_id(parts: &[Hash]) -> Hash {
    match parts {
        [only] => *only,
        parts => Sha256::digest(parts.concat()).into(),
    }
}

/// Opens a file while it arrives.
pub struct Opener {
    cipher: Aes256Gcm,
    length: u64,
    /// The bytes of a piece that is not complete yet.
    waiting: Vec<u8>,
    /// The number of the next piece.
    next: u64,
    /// The hash of the present part, as far as its pieces have come.
    part: Sha256,
    /// The hashes of the parts before.
    hashes: Vec<Hash>,
    came: u64,
}

impl Opener {
    /// Begins to open a file of `length` bytes, not counting what sealing adds.
    pub fn new(key: &Key, length: u64) -> Self {
        Self {
            cipher: Aes256Gcm::new(key.into()),
            length,
            waiting: Vec::with_capacity(SEALED),
            next: 0,
            part: Sha256::new(),
            hashes: Vec::new(),
            came: 0,
        }
    }

    /// Returns the bytes of ciphertext that have arrived. A transfer that was cut off goes on from here.
    pub fn came(&self) -> u64 {
        self.came
    }

    /// Takes bytes of ciphertext, and appends the pieces that they complete to `out`.
    ///
    /// # Errors
    ///
    /// [`MediaError::Corrupt`] if a piece does not open, or if the ciphertext is longer than it should be.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), MediaError> {
        self.came += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.next == pieces(self.length) {
                return Err(MediaError::Corrupt("it is longer"));
            }
            let last = self.next + 1 == pieces(self.length);
            let rest = usize::try_from(self.length - self.next * PLAIN as u64).unwrap_or(PLAIN);
            let wanted = rest.min(PLAIN) + TAG;
            let (now, later) = bytes.split_at(bytes.len().min(wanted - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
            if self.waiting.len() == wanted {
                self.part.update(&self.waiting);
                let opened = self
                    .cipher
                    .decrypt(&nonce(self.next, last), self.waiting.as_slice());
                out.extend_from_slice(&opened.map_err(|_| MediaError::Corrupt("a piece does not open"))?);
                self.waiting.clear();
                self.next += 1;
                if self.next.is_multiple_of(PIECES_OF_PART) || last {
                    self.hashes.push(self.part.finalize_reset().into());
                }
            }
        }
        Ok(())
    }

    /// Returns whether the whole file has arrived.
    pub fn is_complete(&self) -> bool {
        self.next == pieces(self.length)
    }

    /// Returns the hash that names the ciphertext, for a comparison with `AttachedFile.sha256`.
    ///
    /// # Errors
    ///
    /// [`MediaError::Corrupt`] if the file is not complete.
    pub fn finish(&self) -> Result<Hash, MediaError> {
        if !self.is_complete() {
            return Err(MediaError::Corrupt("it is shorter"));
        }
        Ok(content_id(&self.hashes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = [7; 32];

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 % 251) as u8).collect()
    }

    fn seal(file: &[u8]) -> Vec<u8> {
        let length = file.len() as u64;
        let mut sealed = Vec::new();
        for part in 0..parts(length) {
            let mut sealer = PartSealer::new(&file[offset(part) as usize..], &KEY, length, part);
            while let Some(piece) = sealer.piece().unwrap() {
                sealed.extend(piece);
            }
        }
        sealed
    }

    fn open(sealed: &[u8], length: usize, chunk: usize) -> Result<(Vec<u8>, Hash), MediaError> {
        let (mut opener, mut out) = (Opener::new(&KEY, length as u64), Vec::new());
        for chunk in sealed.chunks(chunk) {
            opener.push(chunk, &mut out)?;
        }
        Ok((out, opener.finish()?))
    }

    #[test]
    fn what_is_sealed_opens_and_has_the_declared_length_and_hash() {
        let part = MEDIA_PART_BYTES as usize / SEALED * PLAIN;
        for length in [
            0,
            1,
            PLAIN - 1,
            PLAIN,
            PLAIN + 1,
            3 * PLAIN,
            part - 1,
            part,
            part + 1,
        ] {
            let file = bytes(length);
            let sealed = seal(&file);
            assert_eq!(
                sealed_length(length as u64),
                Some(sealed.len() as u64),
                "{length}"
            );
            let by_part: Vec<Hash> = sealed
                .chunks(MEDIA_PART_BYTES as usize)
                .map(|part| Sha256::digest(part).into())
                .collect();
            assert_eq!(
                part_hashes(&mut file.as_slice(), &KEY, length as u64).unwrap(),
                by_part
            );
            let (opened, hash) = open(&sealed, length, 10_000).unwrap();
            assert_eq!(opened, file, "{length}");
            assert_eq!(hash, content_id(&by_part));
        }
        assert_eq!(sealed_length(2 << 30), None);
        assert_eq!(sealed_length(u64::MAX), None);
    }

    /// Compares with a value that another implementation computed, because a client in another language has to produce
    /// the same bytes.
    #[test]
    fn the_format_is_what_the_proto_says() {
        let sealed = seal(b"hello");
        assert_eq!(hex(&sealed), KNOWN);
    }

    const KNOWN: &str = "582dd50c5bf462f887f4b79aa17309d42bf56eb904";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn pieces_in_another_order_left_out_or_cut_off_do_not_open() {
        let length = 3 * PLAIN - 5;
        let sealed = seal(&bytes(length));
        let (one, rest) = sealed.split_at(SEALED);
        let (two, three) = rest.split_at(SEALED);
        assert!(
            open(&[two, one, three].concat(), length, 999).is_err(),
            "another order"
        );
        assert!(open(&[one, three].concat(), length, 999).is_err(), "one left out");
        assert!(open(&[one, two].concat(), length, 999).is_err(), "cut off");
        assert!(
            open(&[one, two].concat(), 2 * PLAIN, 999).is_err(),
            "cut off, with the length changed"
        );
        assert!(
            open(&[&sealed, b"x".as_slice()].concat(), length, 999).is_err(),
            "longer"
        );
        assert!(open(&sealed, length, 999).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn a_changed_bit_does_not_open(length in 0usize..200_000, at: prop::sample::Index, bit in 0u8..8, chunk in 1usize..100_000) {
            let mut sealed = seal(&bytes(length));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(open(&sealed, length, chunk).is_err());
        }
    }
}
