//! Writes a history: one clock, one order, one file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::format::{Line, What};

/// Shared by all that see something. The lines stand in the order of their times, whoever writes them.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Arc<Mutex<Inside>>);

#[derive(Debug)]
struct Inside {
    began: Instant,
    file: BufWriter<File>,
    lines: u64,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> Self {
        let file = BufWriter::with_capacity(1 << 20, File::create(path).expect("a file for the history"));
        Self(Arc::new(Mutex::new(Inside { began: Instant::now(), file, lines: 0 })))
    }

    /// What is so now.
    pub(crate) fn say(&self, what: What) {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let t = u64::try_from(inside.began.elapsed().as_nanos()).expect("not for centuries");
        serde_json::to_writer(&mut inside.file, &Line { t, what }).expect("a line is written");
        inside.file.write_all(b"\n").expect("a line is written");
        inside.lines += 1;
    }

    pub(crate) fn lines(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines
    }

    pub(crate) fn flush(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).file.flush().expect("the history is written");
    }
}

/// Reads a file of lines.
pub(crate) fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).expect("a history");
    let line = |(number, text): (usize, &str)| {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{} line {}: {error}", path.display(), number + 1))
    };
    text.lines().enumerate().map(line).collect()
}
