//! The real disk: `std::fs`, `fdatasync`, and `fsync` of directories.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Disk, DiskError, DiskErrorKind, DiskFile, Listed};

/// The file system below one directory.
#[derive(Clone, Debug)]
pub(crate) struct RealDisk {
    root: Arc<PathBuf>,
}

impl RealDisk {
    /// Everything is below `root`.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root: Arc::new(root) }
    }

    /// The path of a file for those who need more than the port.
    pub(crate) fn below(&self, path: &str) -> PathBuf {
        self.path(path)
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.as_ref().clone() } else { self.root.join(path) }
    }

    fn error(&self, operation: &'static str, path: &str, error: &io::Error) -> DiskError {
        failed(operation, &self.path(path).display().to_string(), error)
    }
}

fn failed(operation: &'static str, path: &str, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::NoSpace,
        _ => DiskErrorKind::Other(error.to_string()),
    };
    DiskError { operation, path: path.to_owned(), kind }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn open(&self, path: &str) -> Result<RealFile, DiskError> {
        let full = self.path(path);
        let file = OpenOptions::new().read(true).write(true).open(&full);
        let file = file.map_err(|error| self.error("open", path, &error))?;
        Ok(RealFile { file, path: full.display().to_string() })
    }

    fn create(&self, path: &str) -> Result<RealFile, DiskError> {
        let full = self.path(path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&full);
        let file = file.map_err(|error| self.error("create", path, &error))?;
        Ok(RealFile { file, path: full.display().to_string() })
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, DiskError> {
        let listed = || -> io::Result<Vec<Listed>> {
            let mut files = Vec::new();
            for item in std::fs::read_dir(self.path(directory))? {
                let item = item?;
                let metadata = item.metadata()?;
                if metadata.is_file() {
                    let name = item.file_name().to_string_lossy().into_owned();
                    files.push(Listed { name, size_bytes: metadata.len() });
                }
            }
            files.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(files)
        };
        listed().map_err(|error| self.error("list", directory, &error))
    }

    fn exists(&self, path: &str) -> Result<bool, DiskError> {
        self.path(path).try_exists().map_err(|error| self.error("look for", path, &error))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        std::fs::rename(self.path(from), self.path(to)).map_err(|error| self.error("rename", from, &error))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        std::fs::remove_file(self.path(path)).map_err(|error| self.error("remove", path, &error))
    }

    fn create_directory(&self, path: &str) -> Result<(), DiskError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.path(path));
        made.map_err(|error| self.error("create", path, &error))
    }

    fn sync_directory(&self, path: &str) -> Result<(), DiskError> {
        let synced = File::open(self.path(path)).and_then(|directory| Ok(rustix::fs::fsync(&directory)?));
        synced.map_err(|error| self.error("sync", path, &error))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let space = rustix::fs::statvfs(self.root.as_ref());
        let space = space.map_err(|error| self.error("ask the free space of", "", &error.into()))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

/// A file of the real disk.
#[derive(Debug)]
pub(crate) struct RealFile {
    file: File,
    path: String,
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| failed("read", &self.path, &error))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, offset).map_err(|error| failed("write", &self.path, &error))
    }

    fn sync(&self) -> Result<(), DiskError> {
        rustix::fs::fdatasync(&self.file).map_err(|error| failed("sync", &self.path, &error.into()))
    }

    fn release(&self, offset: u64, bytes: u64) -> Result<(), DiskError> {
        use rustix::fs::FallocateFlags;
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let released = rustix::fs::fallocate(&self.file, mode, offset, bytes);
        released.map_err(|error| failed("give back space of", &self.path, &error.into()))
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(|error| failed("ask the size of", &self.path, &error))?.len())
    }

    fn set_size(&self, bytes: u64) -> Result<(), DiskError> {
        self.file.set_len(bytes).map_err(|error| failed("set the size of", &self.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_disk_keeps_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        super::super::contract::holds(&RealDisk::new(directory.path().to_owned()));
    }
}
