//! The bytes of a file, without those that are zero: a segment of 4 MiB that is hardly written costs hardly anything.

use std::collections::BTreeMap;

const PAGE_BYTES: u64 = 4096;
type Page = [u8; 4096];

/// What a file holds. A page that is not there reads as zeros, and no page lies behind the size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    size: u64,
    pages: BTreeMap<u64, Box<Page>>,
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that its pages take.
    pub(crate) fn space(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    /// Cuts or extends it; what is new reads as zeros.
    pub(crate) fn set_size(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size - size);
            self.pages.split_off(&size.div_ceil(PAGE_BYTES));
        }
        self.size = size;
    }

    /// Writes, and extends it where it has to be.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.size = self.size.max(offset + bytes.len() as u64);
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let within = place(at % PAGE_BYTES);
            let (now, later) = rest.split_at(rest.len().min(4096 - within));
            self.write_in_page(at / PAGE_BYTES, within, now);
            at += now.len() as u64;
            rest = later;
        }
    }

    fn write_in_page(&mut self, number: u64, within: usize, bytes: &[u8]) {
        if bytes.iter().all(|byte| *byte == 0) {
            if bytes.len() == 4096 {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                page[within..within + bytes.len()].fill(0);
            }
            return;
        }
        let page = self.pages.entry(number).or_insert_with(|| Box::new([0; 4096]));
        page[within..within + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes a stretch zero; the size stays.
    pub(crate) fn zero(&mut self, offset: u64, bytes: u64) {
        let end = offset.saturating_add(bytes).min(self.size);
        let mut at = offset;
        while at < end {
            let until = (at / PAGE_BYTES + 1).saturating_mul(PAGE_BYTES).min(end);
            let zeros = [0; 4096];
            self.write_in_page(at / PAGE_BYTES, place(at % PAGE_BYTES), &zeros[..place(until - at)]);
            at = until;
        }
    }

    /// Reads what there is of a stretch.
    pub(crate) fn read(&self, offset: u64, bytes: usize) -> Vec<u8> {
        let there = self.size.saturating_sub(offset).min(bytes as u64);
        let mut out = vec![0; place(there)];
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = place(at % PAGE_BYTES);
            let now = (out.len() - done).min(4096 - within);
            if let Some(page) = self.pages.get(&(at / PAGE_BYTES)) {
                out[done..done + now].copy_from_slice(&page[within..within + now]);
            }
            done += now;
        }
        out
    }
}

fn place(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it fits the memory")
}
