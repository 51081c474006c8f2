//! A disk on which everything can be written and nothing is changed: writes stay in memory, over another disk.
//!
//! `verify` opens a journal on it exactly as a server would, recovery and all, and leaves the real one as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::store::disk::{Disk, DiskError, DiskErrorKind, DiskFile, Listed};

/// Bytes that are kept together once one of them was written.
const PAGE_BYTES: usize = 4096;

/// The other disk, with what was written since. Clones are the same disk.
pub(super) struct Shadow<D: Disk> {
    below: D,
    names: Arc<Mutex<Names<D::File>>>,
}

impl<D: Disk> Clone for Shadow<D> {
    fn clone(&self) -> Self {
        Self { below: self.below.clone(), names: self.names.clone() }
    }
}

/// What is called differently than below.
struct Names<F> {
    /// Files that somebody has open or has changed.
    files: BTreeMap<String, Weak<Mutex<Content<F>>>>,
    /// Those that were changed: kept, open or not.
    changed: Vec<Arc<Mutex<Content<F>>>>,
    removed: BTreeSet<String>,
    directories: BTreeSet<String>,
}

struct Content<F> {
    path: String,
    below: Option<F>,
    size: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
    changed: bool,
}

/// An open file.
pub(super) struct ShadowFile<D: Disk> {
    names: Arc<Mutex<Names<D::File>>>,
    content: Arc<Mutex<Content<D::File>>>,
}

impl<D: Disk> Shadow<D> {
    /// Nothing is written yet.
    pub(super) fn new(below: D) -> Self {
        let names = Names {
            files: BTreeMap::new(),
            changed: Vec::new(),
            removed: BTreeSet::new(),
            directories: BTreeSet::new(),
        };
        Self { below, names: Arc::new(Mutex::new(names)) }
    }

    fn file(&self, content: Arc<Mutex<Content<D::File>>>) -> ShadowFile<D> {
        ShadowFile { names: self.names.clone(), content }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(operation: &'static str, path: &str) -> DiskError {
    DiskError { operation, path: path.to_owned(), kind: DiskErrorKind::NotFound }
}

impl<D: Disk> Disk for Shadow<D> {
    type File = ShadowFile<D>;

    fn open(&self, path: &str) -> Result<ShadowFile<D>, DiskError> {
        let mut names = held(&self.names);
        if let Some(content) = names.files.get(path).and_then(Weak::upgrade) {
            return Ok(self.file(content));
        }
        if names.removed.contains(path) {
            return Err(not_found("open", path));
        }
        let below = self.below.open(path)?;
        let size = below.size()?;
        let content =
            Content { path: path.to_owned(), below: Some(below), size, pages: BTreeMap::new(), changed: false };
        let content = Arc::new(Mutex::new(content));
        names.files.insert(path.to_owned(), Arc::downgrade(&content));
        Ok(self.file(content))
    }

    fn create(&self, path: &str) -> Result<ShadowFile<D>, DiskError> {
        if self.exists(path)? {
            let kind = DiskErrorKind::Other("it exists".to_owned());
            return Err(DiskError { operation: "create", path: path.to_owned(), kind });
        }
        let content = Content { path: path.to_owned(), below: None, size: 0, pages: BTreeMap::new(), changed: true };
        let content = Arc::new(Mutex::new(content));
        let mut names = held(&self.names);
        names.removed.remove(path);
        names.files.insert(path.to_owned(), Arc::downgrade(&content));
        names.changed.push(content.clone());
        Ok(self.file(content))
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, DiskError> {
        let names = held(&self.names);
        let below = match self.below.list(directory) {
            Err(DiskError { kind: DiskErrorKind::NotFound, .. }) if names.directories.contains(directory) => Vec::new(),
            below => below?,
        };
        let mut listed: BTreeMap<String, u64> = below.into_iter().map(|file| (file.name, file.size_bytes)).collect();
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        for path in &names.removed {
            path.strip_prefix(&prefix).map(|name| listed.remove(name));
        }
        for content in &names.changed {
            let content = held(content);
            if let Some(name) = content.path.strip_prefix(&prefix).filter(|name| !name.contains('/')) {
                listed.insert(name.to_owned(), content.size);
            }
        }
        Ok(listed.into_iter().map(|(name, size_bytes)| Listed { name, size_bytes }).collect())
    }

    fn exists(&self, path: &str) -> Result<bool, DiskError> {
        let names = held(&self.names);
        if names.files.get(path).is_some_and(|content| content.strong_count() > 0) {
            return Ok(true);
        }
        if names.removed.contains(path) {
            return Ok(false);
        }
        self.below.exists(path)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let file = self.open(from)?;
        self.remove(to).or_else(|error| if error.kind == DiskErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        file.change(|content| to.clone_into(&mut content.path));
        let mut names = held(&self.names);
        names.files.remove(from);
        names.removed.insert(from.to_owned());
        names.removed.remove(to);
        names.files.insert(to.to_owned(), Arc::downgrade(&file.content));
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        if !self.exists(path)? {
            return Err(not_found("remove", path));
        }
        let mut names = held(&self.names);
        names.files.remove(path);
        names.changed.retain(|content| held(content).path != path);
        names.removed.insert(path.to_owned());
        Ok(())
    }

    fn create_directory(&self, path: &str) -> Result<(), DiskError> {
        held(&self.names).directories.insert(path.to_owned());
        Ok(())
    }

    fn sync_directory(&self, _path: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.below.free_bytes()
    }
}

impl<D: Disk> ShadowFile<D> {
    /// Changes the content, which is kept from now on.
    fn change<T>(&self, change: impl FnOnce(&mut Content<D::File>) -> T) -> T {
        let mut content = held(&self.content);
        let is_new = !std::mem::replace(&mut content.changed, true);
        let outcome = change(&mut content);
        drop(content);
        if is_new {
            held(&self.names).changed.push(self.content.clone());
        }
        outcome
    }
}

impl<F: DiskFile> Content<F> {
    /// The bytes of a page as they are.
    fn page(&self, number: u64) -> Result<Box<[u8; PAGE_BYTES]>, DiskError> {
        if let Some(page) = self.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE_BYTES]);
        if let Some(below) = &self.below {
            let start = number * PAGE_BYTES as u64;
            let there = below.size()?.saturating_sub(start).min(PAGE_BYTES as u64);
            let there = usize::try_from(there).unwrap_or(PAGE_BYTES);
            below.read_at(start, &mut page[..there])?;
        }
        Ok(page)
    }

    /// Each page that a range touches: its number, the range within it, the range within the whole.
    fn parts(
        offset: u64,
        length: usize,
    ) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let within = usize::try_from(at % PAGE_BYTES as u64).unwrap_or(0);
            let count = (PAGE_BYTES - within).min(length - done);
            let part = (at / PAGE_BYTES as u64, within..within + count, done..done + count);
            done += count;
            (count > 0).then_some(part)
        })
    }
}

impl<D: Disk> DiskFile for ShadowFile<D> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let content = held(&self.content);
        if offset + buffer.len() as u64 > content.size {
            let kind = DiskErrorKind::Other("the file ends before".to_owned());
            return Err(DiskError { operation: "read", path: content.path.clone(), kind });
        }
        if let (Some(below), false) = (&content.below, content.changed) {
            return below.read_at(offset, buffer);
        }
        for (number, within, whole) in Content::<D::File>::parts(offset, buffer.len()) {
            buffer[whole].copy_from_slice(&content.page(number)?[within]);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.change(|content| {
            content.size = content.size.max(offset + bytes.len() as u64);
            for (number, within, whole) in Content::<D::File>::parts(offset, bytes.len()) {
                let bytes = &bytes[whole];
                // A new segment is mostly zeros, which a file without anything below has anyway.
                if content.below.is_none() && !content.pages.contains_key(&number) && bytes.iter().all(|b| *b == 0) {
                    continue;
                }
                let mut page = content.page(number)?;
                page[within].copy_from_slice(bytes);
                content.pages.insert(number, page);
            }
            Ok(())
        })
    }

    fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn release(&self, offset: u64, bytes: u64) -> Result<(), DiskError> {
        self.change(|content| {
            let bytes = usize::try_from(bytes.min(content.size.saturating_sub(offset))).unwrap_or(usize::MAX);
            for (number, within, _) in Content::<D::File>::parts(offset, bytes) {
                let mut page = content.page(number)?;
                // Mostly the zeros at the end of a segment, of which nothing needs to be kept.
                if page[within.clone()].iter().any(|byte| *byte != 0) {
                    page[within].fill(0);
                    content.pages.insert(number, page);
                }
            }
            Ok(())
        })
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(held(&self.content).size)
    }

    fn set_size(&self, bytes: u64) -> Result<(), DiskError> {
        self.change(|content| {
            let old = content.size;
            content.size = bytes;
            // What lay behind the new end must read as zeros if the file grows again.
            let end = bytes / PAGE_BYTES as u64;
            for number in end..old.div_ceil(PAGE_BYTES as u64) {
                let mut page = content.page(number)?;
                let from = if number == end { usize::try_from(bytes % PAGE_BYTES as u64).unwrap_or(0) } else { 0 };
                page[from..].fill(0);
                content.pages.insert(number, page);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::simulated::SimulatedDisk;

    #[test]
    fn the_shadow_keeps_the_contract_of_disks() {
        crate::store::disk::contract::holds(&Shadow::new(SimulatedDisk::new()));
    }

    #[test]
    fn what_is_written_to_the_shadow_leaves_the_disk_below_as_it_was() {
        let disk = SimulatedDisk::new();
        disk.create("kept").unwrap().write_at(0, &[7; 10_000]).unwrap();
        disk.create("gone").unwrap().write_at(0, b"x").unwrap();
        let shadow = Shadow::new(disk.clone());
        let (one, other) = (shadow.open("kept").unwrap(), shadow.open("kept").unwrap());
        one.write_at(4090, &[9; 12]).unwrap();
        let mut bytes = [0; 20];
        other.read_at(4086, &mut bytes).unwrap();
        assert_eq!(bytes[3..17], [[7; 1].as_slice(), &[9; 12], &[7; 1]].concat()[..], "another handle sees it");
        shadow.remove("gone").unwrap();
        assert!(shadow.open("gone").is_err() && !shadow.exists("gone").unwrap());
        shadow.rename("kept", "gone").unwrap();
        drop((one, other));
        shadow.open("gone").unwrap().read_at(4090, &mut bytes[..12]).unwrap();
        assert_eq!(bytes[..12], [9; 12], "kept although nobody has it open");
        assert_eq!(disk.content("kept"), [7; 10_000]);
        assert_eq!(disk.content("gone"), b"x");
    }
}
