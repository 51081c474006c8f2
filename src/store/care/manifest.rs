//! The manifest of a backup: `BACKUP`, written last, so that a backup that was cut is no backup.
//!
//! It is text, so that an operator can read it:
//!
//! ```text
//! roundtable backup 1
//! directory 0123456789abcdef0123456789abcdef    the data directory that it was made of
//! segment_bytes 67108864
//! made_at_ms 1795387161999                      the server's clock, milliseconds since 1970
//! last_lsn 4711                                 everything up to this packet is in it
//! file FORMAT 102 89abcdef                      each file: name, bytes, CRC-32 (IEEE) of all of it, in hexadecimal
//! file journal/00000001.seg 67108864 89abcdef
//! crc 89abcdef                                  CRC-32 of the lines above
//! ```

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path};

use super::place::failed;
use crate::store::OpenError;
use crate::store::directory::Format;
use crate::store::disk::real::RealDisk;
use crate::store::disk::{Disk, DiskFile};

/// Its name.
pub(super) const MANIFEST: &str = "BACKUP";
const UNFINISHED: &str = "BACKUP.tmp";
/// The format that this program writes, and the newest that it reads.
const MANIFEST_FORMAT: u32 = 1;
/// Bytes of the manifest of a backup of a million segments; more is no manifest.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) format: Format,
    pub(super) made_at_ms: u64,
    pub(super) last_lsn: u64,
    pub(super) files: Vec<Listed>,
}

impl Manifest {
    fn to_text(&self) -> String {
        let Format { segment_bytes, directory } = self.format;
        let directory = u128::from_be_bytes(directory);
        let mut text = format!(
            "roundtable backup {MANIFEST_FORMAT}\ndirectory {directory:032x}\nsegment_bytes {segment_bytes}\n\
             made_at_ms {}\nlast_lsn {}\n",
            self.made_at_ms, self.last_lsn
        );
        for Listed { name, bytes, crc } in &self.files {
            text.push_str("file ");
            text.push_str(&[name.clone(), bytes.to_string(), format!("{crc:08x}")].join(" "));
            text.push('\n');
        }
        let crc = crc32fast::hash(text.as_bytes());
        format!("{text}crc {crc:08x}\n")
    }

    fn parse(text: &str) -> Result<Self, OpenError> {
        let first = text.lines().next().and_then(|line| line.strip_prefix("roundtable backup ")).unwrap_or_default();
        let found: u32 =
            first.parse().map_err(|_| damaged("its first line is not `roundtable backup` and a number"))?;
        if found > MANIFEST_FORMAT {
            return Err(OpenError::NewerFormat { file: MANIFEST.to_owned(), found, supported: MANIFEST_FORMAT });
        }
        let (covered, crc) = text.rsplit_once("crc ").ok_or_else(|| damaged("it has no CRC"))?;
        if crc != format!("{:08x}\n", crc32fast::hash(covered.as_bytes())) {
            return Err(damaged("its CRC does not fit"));
        }
        let field = |name: &str| covered.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let number = |name: &str| field(name).parse().map_err(|_| damaged("a number is missing"));
        let directory = u128::from_str_radix(field("directory "), 16).map_err(|_| damaged("it has no directory id"))?;
        let segment_bytes = u32::try_from(number("segment_bytes ")?).map_err(|_| damaged("segments are too large"))?;
        let format = Format { segment_bytes, directory: directory.to_be_bytes() };
        let files = covered.lines().filter_map(|line| line.strip_prefix("file "));
        let files = files.map(|line| file(line).ok_or_else(|| damaged("a line of a file is no such line")));
        Ok(Self {
            format,
            made_at_ms: number("made_at_ms ")?,
            last_lsn: number("last_lsn ")?,
            files: files.collect::<Result<_, _>>()?,
        })
    }

    /// Writes it, durably, as the last thing of a backup.
    pub(super) fn write(&self, disk: &RealDisk) -> Result<(), OpenError> {
        let file = disk.create(UNFINISHED)?;
        file.write_at(0, self.to_text().as_bytes())?;
        file.sync()?;
        disk.rename(UNFINISHED, MANIFEST)?;
        disk.sync_directory("")?;
        Ok(())
    }

    /// Reads the one of a backup.
    pub(super) fn read(backup: &Path) -> Result<Self, OpenError> {
        let path = backup.join(MANIFEST);
        let read = || -> io::Result<String> {
            let mut text = String::new();
            fs::File::open(&path)?.take(MANIFEST_BYTES_MAX).read_to_string(&mut text)?;
            Ok(text)
        };
        match read() {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged("it is not text")),
            Err(error) if error.kind() == io::ErrorKind::NotFound && backup.is_dir() => {
                Err(damaged("it is missing: this is no backup, or one that was not finished"))
            }
            Err(error) => Err(failed("read", &path, &error)),
        }
    }
}

/// A file's line. Its name stays below the backup.
fn file(line: &str) -> Option<Listed> {
    let mut words = line.split(' ');
    let (name, bytes, crc) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let crc = u32::from_str_radix(crc, 16).ok()?;
    (is_plain && words.next().is_none()).then(|| Listed { name: name.to_owned(), bytes, crc })
}

fn damaged(reason: &str) -> OpenError {
    OpenError::Corrupt { file: MANIFEST.to_owned(), offset: 0, reason: reason.to_owned() }
}

/// Size and CRC of a whole file, which is only read; `None` when `go_on` said no.
pub(super) fn checksum(path: &Path, go_on: &dyn Fn() -> bool) -> Result<Option<(u64, u32)>, OpenError> {
    let read = || -> io::Result<Option<(u64, u32)>> {
        let mut file = fs::File::open(path)?;
        let (mut buffer, mut hasher, mut bytes) = (vec![0; 1024 * 1024], crc32fast::Hasher::new(), 0);
        while go_on() {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(Some((bytes, hasher.finalize())));
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
        Ok(None)
    };
    read().map_err(|error| failed("read", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_every_flipped_bit_of_it_is_noticed() {
        let manifest = Manifest {
            format: Format { segment_bytes: 4096, directory: [0x2a; 16] },
            made_at_ms: 7,
            last_lsn: 9,
            files: vec![Listed { name: "journal/00000001.seg".to_owned(), bytes: 4096, crc: 0xab }],
        };
        let text = manifest.to_text();
        assert_eq!(Manifest::parse(&text), Ok(manifest));
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(Manifest::parse(&text).is_err(), "bit {bit}");
            }
        }
        for name in ["../etc/passwd", "/etc/passwd", "a/../b", "./a", "journal/a"] {
            assert_eq!(file(&format!("{name} 1 ab")).is_some(), name == "journal/a", "{name}");
        }
    }
}
