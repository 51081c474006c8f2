//! How much of a group's log is kept.

/// What the log of each group keeps at least. An entry is let go once it is over any of the three, and not before the
/// segment of the journal that it stands in is cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many entries.
    pub entries_max: u64,
    /// The newest so many bytes, as entries take in the journal without their headers.
    pub bytes_max: u64,
    /// Entries up to this age, in milliseconds of running time: a wrong clock ages nothing.
    pub age_ms_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            entries_max: crate::limits::RETENTION_ENTRIES_DEFAULT,
            bytes_max: crate::limits::RETENTION_BYTES_DEFAULT,
            age_ms_max: crate::limits::RETENTION_AGE_MS_DEFAULT,
        }
    }
}

impl Retention {
    /// The lowest seq that is kept by count.
    pub(crate) fn floor_by_count(&self, head: u64) -> u64 {
        head.saturating_sub(self.entries_max).saturating_add(1)
    }

    /// Whether something that was written at one time is too old at another.
    pub(crate) fn is_expired(&self, written_ms: u64, now_ms: u64) -> bool {
        written_ms.saturating_add(self.age_ms_max) < now_ms
    }

    /// How much of a log of so many bytes and entries would be kept by count and bytes, about.
    pub(crate) fn kept_bytes(&self, log_bytes: u64, entries: u64) -> u64 {
        let by_count = if entries > self.entries_max {
            u64::try_from(u128::from(log_bytes) * u128::from(self.entries_max) / u128::from(entries))
                .unwrap_or(log_bytes)
        } else {
            log_bytes
        };
        by_count.min(self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_keeps_at_under_and_over_each_limit() {
        let retention = Retention { entries_max: 10, bytes_max: 500, age_ms_max: 100 };
        assert_eq!([9, 10, 11, 25].map(|head| retention.floor_by_count(head)), [1, 1, 2, 16]);
        assert_eq!([99, 100, 101].map(|now| retention.is_expired(0, now)), [false, false, true]);
        assert!(!retention.is_expired(u64::MAX, 0));
        assert_eq!(retention.kept_bytes(400, 10), 400);
        assert_eq!(retention.kept_bytes(400, 20), 200);
        assert_eq!(retention.kept_bytes(900, 10), 500);
    }
}
