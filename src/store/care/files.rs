//! What stands in a data directory, by what the files say themselves, and what is wrong with it.

use std::collections::BTreeMap;

use super::{Finding, Severity};
use crate::store::OpenError;
use crate::store::directory::{Format, read_format};
use crate::store::disk::{Disk, DiskFile, Listed};
use crate::store::journal::head::{self, HEAD_FILE, Head};
use crate::store::journal::segment::{HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, segment_number, segment_path};
use crate::store::journal::spare::SUFFIX;
use crate::store::journal::{DirectoryId, JOURNAL_DIRECTORY};

/// The number of the first segment of all.
const FIRST: u32 = 1;

/// A file that holds a segment, under its own name or another's.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) path: String,
    pub(super) number: u32,
    /// Unless it is damaged.
    pub(super) header: Option<SegmentHeader>,
    pub(super) size_bytes: u64,
    /// Name, size and header are as they must be.
    pub(super) is_in_order: bool,
}

/// The files of a journal.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) format: Format,
    /// Whether `FORMAT` itself says so; else the segments do.
    pub(super) format_is_whole: bool,
    /// By the number of the segment that each holds.
    pub(super) holders: BTreeMap<u32, Holder>,
    /// The segments that there should be.
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) findings: Vec<Finding>,
}

/// Looks at all files of a journal. An error where not even the format can be told.
pub(super) fn find<D: Disk>(disk: &D) -> Result<Files, OpenError> {
    let listed = disk.list_or_none(JOURNAL_DIRECTORY)?;
    let mut findings = Vec::new();
    let segments = segments(&listed, &mut findings);
    let headers = headers(disk, &segments)?;
    let (format, format_is_whole) = format(disk, &headers, &mut findings)?;
    let named = headers.iter().map(|file| file.number);
    let found = named.clone().min().zip(named.max());
    let (first, last) = bounds(disk, format.directory, found, &mut findings)?;
    for file in headers.iter().filter(|file| file.number < first) {
        let what = "it was cleaned, and a stop came before it was removed: the next start does it";
        findings.push(Finding::new(Severity::Note, segment_path(file.number), None, what));
    }
    let holders = holders(headers.into_iter().filter(|file| file.number >= first).collect(), format, &mut findings);
    for number in (first..=last).filter(|number| !holders.contains_key(number)) {
        findings.push(Finding::damage(segment_path(number), 0, "the segment is missing"));
    }
    Ok(Files { format, format_is_whole, holders, first, last, findings })
}

/// Of the files of the journal's directory, the segments with the numbers of their names.
fn segments(listed: &[Listed], findings: &mut Vec<Finding>) -> Vec<(u32, Listed)> {
    let mut segments = Vec::new();
    for file in listed {
        let path = format!("{JOURNAL_DIRECTORY}/{}", file.name);
        match segment_number(&file.name) {
            Some(number) if segment_path(number) == path => segments.push((number, file.clone())),
            // Spares and unfinished segments are there after each stop; the next start removes them.
            _ if file.name == HEAD_FILE || file.name.ends_with(SUFFIX) => {}
            _ if file.name == super::REPAIR_MARK => {
                let what = "a repair was interrupted just before its end: run `roundtable repair` again";
                findings.push(Finding::new(Severity::Note, path, None, what));
            }
            _ => {
                let what = "no file of roundtable: left alone";
                findings.push(Finding::new(Severity::Warning, path, None, what));
            }
        }
    }
    segments
}

/// What is known of a file before the format is.
struct Named {
    /// The number in its name.
    number: u32,
    size_bytes: u64,
    header: Result<SegmentHeader, HeaderError>,
}

fn headers<D: Disk>(disk: &D, segments: &[(u32, Listed)]) -> Result<Vec<Named>, OpenError> {
    let mut headers = Vec::new();
    for (named, file) in segments {
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
        let there = usize::try_from(file.size_bytes).unwrap_or(usize::MAX).min(bytes.len());
        disk.open(&segment_path(*named))?.read_at(0, &mut bytes[..there])?;
        let header = SegmentHeader::decode(&bytes);
        if let Err(HeaderError::Newer(found)) = header {
            use crate::store::journal::segment::SEGMENT_FORMAT;
            return Err(OpenError::NewerFormat { file: segment_path(*named), found, supported: SEGMENT_FORMAT });
        }
        headers.push(Named { number: *named, size_bytes: file.size_bytes, header });
    }
    Ok(headers)
}

/// What `FORMAT` says or, if it is damaged, what most of the segments say.
fn format<D: Disk>(disk: &D, headers: &[Named], findings: &mut Vec<Finding>) -> Result<(Format, bool), OpenError> {
    let damage = match read_format(disk) {
        Ok(Some(format)) => return Ok((format, true)),
        Ok(None) => OpenError::Corrupt { file: "FORMAT".to_owned(), offset: 0, reason: "it is missing".to_owned() },
        Err(error @ OpenError::Corrupt { .. }) => error,
        Err(other) => return Err(other),
    };
    let mut votes: BTreeMap<(u64, DirectoryId), usize> = BTreeMap::new();
    for header in headers.iter().filter_map(|named| named.header.as_ref().ok()) {
        *votes.entry((header.segment_bytes, header.directory)).or_default() += 1;
    }
    let most = votes.into_iter().max_by_key(|(_, count)| *count).map(|(said, _)| said);
    let Some((segment_bytes, directory)) = most else { return Err(damage) };
    let Ok(segment_bytes) = u32::try_from(segment_bytes) else { return Err(damage) };
    if let OpenError::Corrupt { file, offset, reason } = damage {
        findings.push(Finding::damage(file, offset, reason));
    }
    Ok((Format { segment_bytes, directory }, false))
}

/// Which file holds which segment: a whole header knows better than a name.
fn holders(headers: Vec<Named>, format: Format, findings: &mut Vec<Finding>) -> BTreeMap<u32, Holder> {
    let mut holders = BTreeMap::new();
    let (mut right, mut wrong): (Vec<Named>, Vec<Named>) = headers.into_iter().partition(is_rightly_named);
    // Those under their own names first: of two that hold the same segment, the other one is the copy.
    right.append(&mut wrong);
    for file in right {
        let path = segment_path(file.number);
        let mut found = |what: String| findings.push(Finding::damage(path.clone(), 0, what));
        let number = match &file.header {
            Ok(header) if header.directory != format.directory => {
                found("the segment belongs to another data directory".to_owned());
                continue;
            }
            Ok(header) if header.number != file.number => {
                found(format!("the file holds segment {}: it was swapped, or copied from there", header.number));
                header.number
            }
            Ok(header) if header.segment_bytes != u64::from(format.segment_bytes) => {
                found("the segment was made for another size".to_owned());
                continue;
            }
            Ok(header) => header.number,
            Err(error) => {
                found(say(*error));
                file.number
            }
        };
        let size_is_right = file.size_bytes == u64::from(format.segment_bytes);
        if !size_is_right {
            let what = format!("the segment has {} bytes instead of {}", file.size_bytes, format.segment_bytes);
            let at = file.size_bytes.min(u64::from(format.segment_bytes));
            findings.push(Finding::damage(path.clone(), at, what));
        }
        let is_in_order = size_is_right && file.header.is_ok_and(|header| header.number == file.number);
        let header = file.header.ok();
        let holder = Holder { path, number, header, size_bytes: file.size_bytes, is_in_order };
        holders.entry(number).or_insert(holder);
    }
    holders
}

fn is_rightly_named(file: &Named) -> bool {
    file.header.as_ref().is_ok_and(|header| header.number == file.number)
}

fn say(error: HeaderError) -> String {
    match error {
        HeaderError::NotASegment => "the header is not that of a segment".to_owned(),
        HeaderError::BadCrc => "the header's CRC does not fit".to_owned(),
        HeaderError::Newer(format) => format!("the header has format {format}"),
        HeaderError::Malformed(error) => format!("the header holds no value: {error}"),
    }
}

/// With which segment the log begins, and which is the newest that there should be: `HEAD` may name one that is gone.
/// Where `HEAD` is damaged, the segments themselves are all that is known.
fn bounds<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    found: Option<(u32, u32)>,
    findings: &mut Vec<Finding>,
) -> Result<(u32, u32), OpenError> {
    let (lowest, highest) = found.unwrap_or((FIRST, 0));
    match head::read(disk, directory) {
        Ok(Head { newest, first }) => {
            if newest + 1 < highest
                && let OpenError::Corrupt { file, offset, reason } = head::behind(newest, highest)
            {
                findings.push(Finding::damage(file, offset, reason));
            }
            Ok((first, newest.max(highest).max(first)))
        }
        Err(OpenError::Corrupt { file, offset, reason }) => {
            findings.push(Finding::damage(file, offset, reason));
            Ok((lowest, highest.max(lowest)))
        }
        Err(other) => Err(other),
    }
}
